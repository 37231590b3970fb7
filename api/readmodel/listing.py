"""Walks over a workspace in the order a reader sees it. Lazy: what is not taken is not paid for (law 7). Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import msgspec

from api.readmodel.readers import Reader
from api.readmodel.sorted_sets import SortedKeys, merge_sorted
from api.readmodel.window import first_page
from schemas.views import DraftRow, ItemRow, decode_row
from streams.core.domain.rank import ID_OFFSET, is_pinned, pinned_sort_key

if TYPE_CHECKING:
    from api.readmodel.workspace import Workspace

__all__ = ["dismissed", "drafts", "item_rows", "newest", "ranked"]

# Pins reorder within these: the same band, blocking or not. They are the first two bytes of a sort key.
_GROUPS = [bytes((band, later)) for band in range(4) for later in (False, True)]
_PINNED, _OTHER, _END = b"\0", b"\1", b"\2"  # the third byte
MAX_DRAFTS = 50

_Pinned = Callable[[bytes, bytes], Iterator[bytes]]  # keys of what is pinned, after < key < until


class _Where(msgspec.Struct):
    cluster: str | None = None


class _Clusters(msgspec.Struct):
    """As much of an item's row as pins ask for."""

    data: _Where = msgspec.field(default_factory=_Where)
    clusters: list[str] = []


_clusters = msgspec.json.Decoder(_Clusters).decode


def ranked(
    space: Workspace, reader: Reader, pins: frozenset[str], after: bytes | None = None, kind: str = "",
    cluster: str = "",
) -> Iterator[bytes]:
    """Sort keys of the reader's list beyond `after`, the reader's pins in them, without what the reader put away."""
    if not (pins or kind or cluster):
        return _unpinned(space, reader, after or b"")
    lists = space.sets_of(reader, "rank", kind, cluster)

    def pinned(after: bytes, until: bytes) -> Iterator[bytes]:
        return _pinned_of(space, reader, pins, after, until, kind, cluster)

    keys = _in_order(space, pins, lists, after, pinned)
    away = _dismissed_sets(space, reader)
    if not away:
        return keys
    return (key for key in keys if not any(_without_pin(key) in found for found in away))


def _unpinned(space: Workspace, reader: Reader, after: bytes) -> Iterator[bytes]:
    """All of the list, for a reader without pins. Whoever put thousands away before the first that is left does not pay
    for them again and again."""
    runs = []
    for audience in reader.audiences:
        keys = space.sets.get(("rank", audience, "", ""))
        away = space.sets.get(("away", reader.user, audience)) if reader.user else None
        if keys is None:
            continue
        if isinstance(keys, SortedKeys) and isinstance(away, SortedKeys):
            runs.append(keys.difference_after(away, after))
        elif away is None:
            runs.append(keys.ascending(after))
        else:  # as it was in the past
            runs.append(_not_in(keys.ascending(after), away))  # type: ignore[arg-type]
    return merge_sorted(runs)


def _not_in(keys: Iterator[bytes], away: SortedKeys) -> Iterator[bytes]:
    return (key for key in keys if key not in away)


def dismissed(space: Workspace, reader: Reader, pins: frozenset[str], after: bytes | None = None) -> Iterator[bytes]:
    """Sort keys of what the reader put away. With pins it looks at all of a group for them."""
    lists = _dismissed_sets(space, reader)

    def pinned(after: bytes, until: bytes) -> Iterator[bytes]:
        return (key for key in merge_sorted([found.ascending(after, until) for found in lists])
                if _is_pinned(space, key, pins))

    return _in_order(space, pins, lists, after, pinned)


def newest(space: Workspace, reader: Reader, states: tuple[str, ...], kind: str = "") -> Iterator[bytes]:
    """Ids of the items the reader sees in these states, those that opened last first."""
    runs = [found.descending() for state in states for found in space.sets_of(reader, "new", state, kind)]
    return (key[8:] for key in merge_sorted(runs, descending=True))


def item_rows(space: Workspace, ids: Iterator[bytes], limit: int) -> list[ItemRow]:
    """The first of these items: at most `limit`, and PAGE_BYTES of rows, as on any page."""
    keys, _ = first_page((bytes(ID_OFFSET) + item for item in ids), space, limit)
    return [row for key in keys if (row := space.item(key[ID_OFFSET:])) is not None]


def drafts(space: Workspace, user: str) -> Iterator[DraftRow]:
    """Drafts in progress that the user owns or edited, the last touched first."""
    found = space.sets.get(("drafts", user))
    for key in found.descending() if found is not None else ():
        row = decode_row(key[8:], space.rows[key[8:]])
        if isinstance(row, DraftRow):
            yield row


def _dismissed_sets(space: Workspace, reader: Reader) -> list[SortedKeys]:
    if not reader.user:
        return []
    found = (space.sets.get(("away", reader.user, audience)) for audience in reader.audiences)
    return [keys for keys in found if keys is not None]  # type: ignore[misc]


def _without_pin(key: bytes) -> bytes:
    """The key as the indexes have it: without anybody's pins."""
    return key if key[2:3] == _OTHER else key[:2] + _OTHER + key[3:]


def _is_pinned(space: Workspace, key: bytes, pins: frozenset[str]) -> bool:
    raw = space.rows.get(b"i:" + key[ID_OFFSET:])
    return raw is not None and is_pinned(_clusters(raw), pins)  # type: ignore[arg-type]


def _in_order(
    space: Workspace, pins: frozenset[str], lists: list[SortedKeys], after: bytes | None, pinned: _Pinned,
) -> Iterator[bytes]:
    """The keys of `lists` beyond `after`, with pins those that `pinned` gives of a stretch first."""
    if pins:
        return _pinned_first(space, pins, lists, after or b"", pinned)
    return merge_sorted([found.ascending(after or b"") for found in lists])


def _pinned_first(
    space: Workspace, pins: frozenset[str], lists: list[SortedKeys], after: bytes, pinned: _Pinned,
) -> Iterator[bytes]:
    """Group by group: what is pinned, then the rest.

    The rest skips what is pinned. From the beginning of a list that costs nothing extra: all of a group's pinned items
    came before on the same page.
    """
    for group in _GROUPS:
        start, middle, end = group + _PINNED, group + _OTHER, group + _END
        if after >= end:
            continue
        if after < middle:
            from_key = middle + after[3:] if after > start else middle
            for key in pinned(from_key, end):
                yield pinned_sort_key(key)
        for key in merge_sorted([found.ascending(max(after, middle), end) for found in lists]):
            if not _is_pinned(space, key, pins):
                yield key


def _pinned_of(
    space: Workspace, reader: Reader, pins: frozenset[str], after: bytes, until: bytes, kind: str, cluster: str
) -> Iterator[bytes]:
    """Keys of the pinned items of one group, from the pinned clusters' own lists."""
    if cluster and cluster not in pins:
        # Of one cluster's items only incidents are also in others.
        if kind not in ("", "incident"):
            return iter(())
        runs = [keys.ascending(after, until) for keys in space.sets_of(reader, "rank", "incident", cluster)]
        return (key for key in merge_sorted(runs) if _is_pinned(space, key, pins))
    return merge_sorted([
        keys.ascending(after, until)
        for name in ([cluster] if cluster else sorted(pins)) for keys in space.sets_of(reader, "rank", kind, name)
    ])
