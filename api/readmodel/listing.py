"""Iterates the rows of a workspace in a reader's order: ranked, dismissed and newest items, drafts, decisions. Pure.

Every iterator is lazy: it costs what the caller reads, not the length of the list (law 7).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from api.readmodel.indexes import DECISIONS, IndexName, text_prefix
from api.readmodel.readers import Reader
from api.readmodel.sorted_sets import AnySortedSet, SortedKeys, merge_sorted
from api.readmodel.workspace import Workspace
from schemas.views import DraftRow, ItemRow, decode_row
from streams.core.domain.rank import BANDS, ID_OFFSET, STAGES, is_pinned, pinned_sort_key

__all__ = [
    "MAX_DRAFTS", "PAGE_BYTES", "all_decisions", "asking", "decisions", "decisions_of_subject", "dismissed", "drafts",
    "first_page", "item_rows", "newest", "ranked",
]

# Bytes of rows in a page or a window, unless one item alone has more: 500 items of 8 KB. An item may have 128 KiB.
# Without this limit a page could have 64 MB, which takes half a second to render and several times its size in memory.
PAGE_BYTES = 4 << 20
MAX_DRAFTS = 50
# The first two bytes of a sort key: band and stage. Pins reorder within one such group.
_GROUPS = [bytes((band, stage)) for band in range(len(BANDS)) for stage in STAGES]
_AFTER_ALL = b"\xff" * 9  # above all keys by time
_PINNED, _OTHER, _END = b"\0", b"\1", b"\2"  # the third byte

_PinnedKeys = Callable[[bytes, bytes], Iterator[bytes]]  # (after, until) -> keys of pinned items, after < key < until


class _DataCluster(msgspec.Struct):
    cluster: str | None = None


class _ItemClusters(msgspec.Struct):
    """The fields of an item row that decide whether the item is pinned."""

    data: _DataCluster = msgspec.field(default_factory=_DataCluster)
    clusters: list[str] = []


_decode_clusters = msgspec.json.Decoder(_ItemClusters).decode


def first_page(keys: Iterator[bytes], workspace: Workspace, limit: int) -> tuple[list[bytes], bool]:
    """Returns the first page of these sort keys, and whether more keys follow.

    A page has at most `limit` items and `PAGE_BYTES` of rows, but at least one item.
    """
    page: list[bytes] = []
    bytes_left = PAGE_BYTES
    for key in keys:
        bytes_left -= workspace.row_size(key)
        if len(page) == limit or (page and bytes_left < 0):
            return page, True
        page.append(key)
    return page, False


def ranked(
    workspace: Workspace, reader: Reader, pins: frozenset[str], after: bytes | None = None, kind: str = "",
    cluster: str = "",
) -> Iterator[bytes]:
    """Yields the sort keys of the reader's list after the key `after`, in the order of the pins.

    Items that the reader dismissed are left out. `kind` and `cluster` filter the list; "" means no filter.
    """
    if not (pins or kind or cluster):
        return _ranked_without_pins(workspace, reader, after or b"")
    sets = workspace.sets_of(reader, "ranked", kind, cluster)

    def pinned(after: bytes, until: bytes) -> Iterator[bytes]:
        return _pinned_keys(workspace, reader, pins, after, until, kind, cluster)

    keys = _in_order(workspace, pins, sets, after, pinned)
    dismissed_sets = _dismissed_sets(workspace, reader)
    if not dismissed_sets:
        return keys
    return (key for key in keys if not any(_without_pin(key) in dismissed for dismissed in dismissed_sets))


def _ranked_without_pins(workspace: Workspace, reader: Reader, after: bytes) -> Iterator[bytes]:
    """Yields the list of a reader without pins or filters.

    A reader may have dismissed thousands of items before the first item that is left. `difference_after` skips a run of
    them in a few steps.
    """
    runs = []
    for audience in reader.audiences:
        keys = workspace.sets.get(IndexName("ranked", audience))
        dismissed = workspace.sets.get(IndexName("dismissed", reader.user, audience)) if reader.user else None
        if keys is None:
            continue
        if isinstance(keys, SortedKeys) and isinstance(dismissed, SortedKeys):
            runs.append(keys.difference_after(dismissed, after))
        elif dismissed is None:
            runs.append(keys.ascending(after))
        else:  # an overlay of an earlier position has no positions to search in
            runs.append(_difference(keys.ascending(after), dismissed))
    return merge_sorted(runs)


def _difference(keys: Iterator[bytes], excluded: AnySortedSet) -> Iterator[bytes]:
    return (key for key in keys if key not in excluded)


def dismissed(
    workspace: Workspace, reader: Reader, pins: frozenset[str], after: bytes | None = None
) -> Iterator[bytes]:
    """Yields the sort keys of the items that the reader dismissed. With pins it reads each group as a whole."""
    sets = _dismissed_sets(workspace, reader)

    def pinned(after: bytes, until: bytes) -> Iterator[bytes]:
        return (key for key in merge_sorted([keys.ascending(after, until) for keys in sets])
                if _is_pinned(workspace, key, pins))

    return _in_order(workspace, pins, sets, after, pinned)


def newest(workspace: Workspace, reader: Reader, states: tuple[str, ...], kind: str = "") -> Iterator[bytes]:
    """Yields the ids of the items that the reader sees in these states, the latest opening first."""
    runs = [keys.descending() for state in states for keys in workspace.sets_of(reader, "newest", kind, state)]
    return (key[8:] for key in merge_sorted(runs, descending=True))


def item_rows(workspace: Workspace, ids: Iterator[bytes], limit: int) -> list[ItemRow]:
    """Returns the rows of the first page of these items (see `first_page`)."""
    keys, _ = first_page((bytes(ID_OFFSET) + item for item in ids), workspace, limit)
    return [row for key in keys if (row := workspace.item(key[ID_OFFSET:])) is not None]


def decisions(workspace: Workspace, reader: Reader, state: str = "", before: bytes | None = None) -> Iterator[bytes]:
    """Yields time and id of the decisions that the reader made or may see, the latest first, from below `before`.

    `state` filters by the state of the decision; "" means no filter.
    """
    sets = workspace.sets_of(reader, DECISIONS, selector=state)
    own = workspace.sets.get(IndexName("decided", reader.user, selector=state)) if reader.user else None
    runs = [keys.descending(before) for keys in (*sets, *([own] if own is not None else []))]
    return merge_sorted(runs, descending=True)


def all_decisions(workspace: Workspace, state: str = "", before: bytes | None = None) -> Iterator[bytes]:
    """Yields time and id of all decisions of the workspace as `decisions` does, without an access check."""
    workspace.ensure_family(DECISIONS)
    keys = workspace.sets.get(IndexName("all_decisions", selector=state))
    return iter(keys.descending(before)) if keys is not None else iter(())


def decisions_of_subject(workspace: Workspace, source_id: str, before: bytes | None = None) -> Iterator[bytes]:
    """Yields time and id of the decisions of the items with this source id, the latest first, from below `before`,
    without an access check."""
    workspace.ensure_family(DECISIONS)
    keys = workspace.sets.get(IndexName("decisions_of_subject"))
    prefix = text_prefix(source_id)
    for key in keys.descending(prefix + (before or _AFTER_ALL)) if keys is not None else ():
        if not key.startswith(prefix):
            return
        yield key[len(prefix):]


def asking(workspace: Workspace, states: tuple[str, ...]) -> Iterator[bytes]:
    """Yields the ids of the items that ask and are in these states, the latest opening first, without an access
    check."""
    workspace.ensure_family("asking")
    sets = (workspace.sets.get(IndexName("asking", selector=state)) for state in states)
    return (key[8:] for key in merge_sorted(
        [keys.descending() for keys in sets if keys is not None], descending=True))


def drafts(workspace: Workspace, user: str) -> Iterator[DraftRow]:
    """Yields the drafts in progress that the user owns or edited, the latest edit first."""
    keys = workspace.sets.get(IndexName("drafts", user))
    for key in keys.descending() if keys is not None else ():
        row = decode_row(key[8:], workspace.rows[key[8:]])
        if isinstance(row, DraftRow):
            yield row


def _dismissed_sets(workspace: Workspace, reader: Reader) -> list[AnySortedSet]:
    if not reader.user:
        return []
    sets = (workspace.sets.get(IndexName("dismissed", reader.user, audience)) for audience in reader.audiences)
    return [keys for keys in sets if keys is not None]


def _without_pin(key: bytes) -> bytes:
    """Returns the key as the indexes hold it."""
    return key if key[2:3] == _OTHER else key[:2] + _OTHER + key[3:]


def _is_pinned(workspace: Workspace, key: bytes, pins: frozenset[str]) -> bool:
    raw = workspace.rows.get(b"i:" + key[ID_OFFSET:])
    return raw is not None and is_pinned(_decode_clusters(raw), pins)  # type: ignore[arg-type]  # has the same fields


def _in_order(
    workspace: Workspace, pins: frozenset[str], sets: list[AnySortedSet], after: bytes | None, pinned: _PinnedKeys,
) -> Iterator[bytes]:
    """Yields the keys of `sets` after the key `after`. With pins, each group begins with the keys of `pinned`."""
    if pins:
        return _pinned_first(workspace, pins, sets, after or b"", pinned)
    return merge_sorted([keys.ascending(after or b"") for keys in sets])


def _pinned_first(
    workspace: Workspace, pins: frozenset[str], sets: list[AnySortedSet], after: bytes, pinned: _PinnedKeys,
) -> Iterator[bytes]:
    """Yields group by group: the pinned items, then the others.

    The second part skips the pinned items. On the first page this costs nothing extra, because that page already
    contains all pinned items of the group.
    """
    for group in _GROUPS:
        start, middle, end = group + _PINNED, group + _OTHER, group + _END
        if after >= end:
            continue
        if after < middle:
            from_key = middle + after[3:] if after > start else middle
            for key in pinned(from_key, end):
                yield pinned_sort_key(key)
        for key in merge_sorted([keys.ascending(max(after, middle), end) for keys in sets]):
            if not _is_pinned(workspace, key, pins):
                yield key


def _pinned_keys(
    workspace: Workspace, reader: Reader, pins: frozenset[str], after: bytes, until: bytes, kind: str, cluster: str
) -> Iterator[bytes]:
    """Yields the keys of the pinned items with after < key < until, from the indexes of the pinned clusters."""
    if cluster and cluster not in pins:
        # Of the items of one cluster, only incidents are in other clusters too.
        if kind not in ("", "incident"):
            return iter(())
        runs = [keys.ascending(after, until) for keys in workspace.sets_of(reader, "ranked", "incident", cluster)]
        return (key for key in merge_sorted(runs) if _is_pinned(workspace, key, pins))
    return merge_sorted([
        keys.ascending(after, until)
        for name in ([cluster] if cluster else sorted(pins))
        for keys in workspace.sets_of(reader, "ranked", kind, name)
    ])
