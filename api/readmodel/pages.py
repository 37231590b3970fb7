"""What a reader is answered: pages, snapshot, activity, drafts, as JSON. Everything that reads asks here. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import msgspec
import orjson

from api.contract import serializers
from api.contract.page_tokens import InvalidPageToken, decode_page_token, encode_page_token
from api.readmodel import listing
from api.readmodel.indexes import TIME
from api.readmodel.readers import Reader
from api.readmodel.sorted_sets import merge_sorted
from api.readmodel.window import first_page
from api.readmodel.workspace import Workspace
from schemas.scalars import HOUR
from schemas.views import ActivityRow, MarkRow, decode_row
from streams.core.domain.event_types import ACTIVITY_COUNTERS
from streams.core.domain.rank import ID_OFFSET, is_pinned

__all__ = ["MAX_RECENT", "PageRenderer", "sort_key_of_token"]

MAX_RECENT = 20
# Encoded items kept, in bytes: what changed just now is asked for by many.
_CACHE_BYTES = 16 << 20
_PINNED = 0  # third byte of a sort key


def sort_key_of_token(text: str) -> bytes:
    """Returns the sort key of the last item of the previous page. Raises InvalidPageToken if the text holds none."""
    key = decode_page_token(text)
    if len(key) <= ID_OFFSET or key[0] > 3 or key[1] > 1 or key[2] > 1:
        raise InvalidPageToken
    return key


class PageRenderer:
    """The JSON of items is kept a while, as a page, a frame and another reader's frame share it."""

    activity_types = tuple(ACTIVITY_COUNTERS)

    def __init__(self, live_window: int = 24 * HOUR, cache_bytes: int = _CACHE_BYTES) -> None:
        """`live_window`: how long activity rows are kept, in microseconds."""
        self.live_window = live_window
        self._room = cache_bytes
        self._cache: OrderedDict[bytes, tuple[bytes, bytes]] = OrderedDict()  # pin and id -> row, JSON

    def render_item(self, space: Workspace, key: bytes, mark: MarkRow | None = None) -> bytes:
        """The item of a sort key, for a reader who has it in the list."""
        raw = space.rows[b"i:" + key[ID_OFFSET:]]
        pinned = key[2] == _PINNED
        if mark is not None:
            return serializers.ankra_item(decode_row(b"i:", raw), pinned, mark)  # type: ignore[arg-type]
        name = key[2:3] + key[ID_OFFSET:]
        known = self._cache.get(name)
        if known is not None and known[0] is raw:
            return known[1]
        encoded = serializers.ankra_item(decode_row(b"i:", raw), pinned)  # type: ignore[arg-type]
        self._cache_item(name, raw, encoded)
        return encoded

    def _cache_item(self, name: bytes, raw: bytes, encoded: bytes) -> None:
        old = self._cache.pop(name, None)
        self._room += len(old[0]) + len(old[1]) if old is not None else 0
        self._cache[name] = (raw, encoded)
        self._room -= len(raw) + len(encoded)
        while self._room < 0:
            _, (row, value) = self._cache.popitem(last=False)
            self._room += len(row) + len(value)

    def item_by_id(self, space: Workspace, reader: Reader, item: str) -> bytes | None:
        """The item with this id, if the reader may see it, whatever its state."""
        row = space.visible_item(reader, item)
        if row is None:
            return None
        mark = space.mark(reader.user, row.id.encode())
        away = mark is not None and mark.surge == row.surge
        return serializers.ankra_item(row, is_pinned(row, space.pins(reader.user)), mark if away else None)

    def inbox_page(
        self, space: Workspace, reader: Reader, cursor: int, limit: int, after: bytes | None = None, kind: str = "",
        cluster: str = "", more: dict[str, Any] | None = None,
    ) -> bytes:
        """A page of the ranked list. `more` is added to it."""
        keys, goes_on = first_page(
            listing.ranked(space, reader, space.pins(reader.user), after, kind, cluster), space, limit)
        return self.render_page(space, reader, cursor, keys, goes_on, more)

    def render_page(
        self, space: Workspace, reader: Reader, cursor: int, keys: list[bytes], goes_on: bool,
        more: dict[str, Any] | None = None,
    ) -> bytes:
        """The page of these sort keys; `goes_on`: there is another one."""
        items = b",".join([self.render_item(space, key) for key in keys])
        return self._page(space, reader, cursor, items, keys[-1] if goes_on else None, more)

    def dismissed_page(
        self, space: Workspace, reader: Reader, cursor: int, limit: int, after: bytes | None, kind: str, cluster: str
    ) -> bytes:
        """A page of what the reader put away."""
        def asked_for(key: bytes) -> bool:
            row = space.item(key[ID_OFFSET:])
            if row is None or (kind and row.kind != kind):
                return False
            return not cluster or cluster == row.data.cluster or cluster in row.clusters

        away = listing.dismissed(space, reader, space.pins(reader.user), after)
        keys, goes_on = first_page(filter(asked_for, away), space, limit)
        items = b",".join([self.render_item(space, key, space.mark(reader.user, key[ID_OFFSET:])) for key in keys])
        return self._page(space, reader, cursor, items, keys[-1] if goes_on else None, None)

    def _page(
        self, space: Workspace, reader: Reader, cursor: int, items: bytes, last: bytes | None,
        more: dict[str, Any] | None,
    ) -> bytes:
        """`last`: the sort key after which the next page begins."""
        body: dict[str, Any] = {
            "items": orjson.Fragment(b"[" + items + b"]"),
            "counts": orjson.Fragment(msgspec.json.encode(space.counts(reader))),
            "activity": self.activity(space, reader), "cursor": cursor,
        }
        if last is not None:
            body["next"] = encode_page_token(last)
        return orjson.dumps(body | more if more else body)

    def personal(self, space: Workspace, user: str) -> dict[str, Any]:
        """What a snapshot has beside the page."""
        return {"drafts": self.drafts(space, user), "preferences": self.preferences(space, user)}

    def drafts(self, space: Workspace, user: str) -> list[dict[str, Any]]:
        return [serializers.draft(row, user) for row in islice(listing.drafts(space, user), listing.MAX_DRAFTS)]

    def preferences(self, space: Workspace, user: str) -> dict[str, Any]:
        return serializers.preferences(space.preferences(user))

    def activity(
        self, space: Workspace, reader: Reader, window: int | None = None, clock: int = 0
    ) -> dict[str, Any]:
        """What was done within `window` before `clock`, microseconds; None: as long as it is kept."""
        whole = window is None or window >= self.live_window
        since = TIME.pack(0 if window is None or whole else max(0, clock - window + 1))
        found = dict.fromkeys(ACTIVITY_COUNTERS.values(), 0)
        for name, what in ACTIVITY_COUNTERS.items():
            found[what] += sum(keys.count_above(since) for keys in space.sets_of(reader, "done", name))
            twice = (space.sets.get(("done", *pair, name)) for pair in reader.overlaps())
            found[what] -= sum(keys.count_above(since) for keys in twice if keys is not None)
        recent = [serializers.activity_entry(row) for row in islice(_recent(space, reader, since), MAX_RECENT)]
        length = self.live_window if window is None else window
        return {"window": serializers.window_name(length), **found, "recent": recent}


def _recent(space: Workspace, reader: Reader, since: bytes) -> Iterator[ActivityRow]:
    runs: Iterable[Iterator[bytes]] = (
        keys.descending() for name in ACTIVITY_COUNTERS for keys in space.sets_of(reader, "done", name))
    for key in merge_sorted(runs, descending=True):
        if key < since:
            return
        row = decode_row(key[8:], space.rows[key[8:]])
        if isinstance(row, ActivityRow):
            yield row
