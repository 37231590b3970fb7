"""Renders what a reader requests as JSON: pages, items, activity, drafts and preferences. Pure.

Every HTTP route and every feed frame of the ankra dialect uses this module, therefore a page and a frame show an item
in the same way.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import msgspec
import orjson

from api.contract import serializers
from api.contract.asking.question_json import DECIDER_ROLES
from api.contract.page_tokens import InvalidPageToken, decode_page_token, encode_page_token
from api.readmodel import listing
from api.readmodel.indexes import TIME, IndexName
from api.readmodel.listing import first_page
from api.readmodel.readers import Reader
from api.readmodel.sorted_sets import merge_sorted
from api.readmodel.workspace import Workspace
from schemas.scalars import HOUR
from schemas.views import ActivityRow, ItemRow, MarkRow, decode_row
from streams.core.domain.event_types import ACTIVITY_COUNTERS
from streams.core.domain.rank import BANDS, ID_OFFSET, STAGES, is_pinned

__all__ = ["MAX_RECENT", "PageRenderer", "PageRequest", "sort_key_of_token"]

MAX_RECENT = 20  # entries of the activity summary
# Bytes of the item cache. An item that has just changed is requested by many readers.
_CACHE_BYTES = 16 << 20
_PINNED = 0  # third byte of a sort key


def sort_key_of_token(text: str) -> bytes:
    """Returns the sort key of the last item of the previous page. Raises InvalidPageToken if the text holds none."""
    key = decode_page_token(text)
    if len(key) <= ID_OFFSET or key[0] >= len(BANDS) or key[1] not in STAGES or key[2] > 1:
        raise InvalidPageToken
    return key


class PageRequest(NamedTuple):
    """One page of a list: at most `limit` items after the sort key `after`. `kind` and `cluster` "" do not filter."""

    limit: int
    after: bytes | None = None
    kind: str = ""
    cluster: str = ""


class PageRenderer:
    """Renders JSON for readers. Caches the JSON of items, which pages and the frames of several windows share."""

    activity_types = tuple(ACTIVITY_COUNTERS)

    def __init__(
        self, live_window: int = 24 * HOUR, cache_bytes: int = _CACHE_BYTES,
        decider_roles: frozenset[str] = DECIDER_ROLES,
    ) -> None:
        """`live_window`: how long the view keeps activity rows, in microseconds. `decider_roles`: ATTN_DECIDER_ROLES.
        """
        self.live_window = live_window
        self._decider_roles = decider_roles
        self._cache_bytes_left = cache_bytes
        self._cache: OrderedDict[bytes, tuple[bytes, bytes]] = OrderedDict()  # pin and id -> row, JSON

    def render_item(self, workspace: Workspace, key: bytes, mark: MarkRow | None = None) -> bytes:
        """Returns the JSON of the item with this sort key. `mark`: the mark by which the reader dismissed the item."""
        raw = workspace.rows[b"i:" + key[ID_OFFSET:]]
        pinned = key[2] == _PINNED
        if mark is not None:
            return self.item_json(decode_row(b"i:", raw), pinned, mark)  # type: ignore[arg-type]  # an ItemRow
        name = key[2:3] + key[ID_OFFSET:]
        cached = self._cache.get(name)
        if cached is not None and cached[0] is raw:
            return cached[1]
        encoded = self.item_json(decode_row(b"i:", raw), pinned)  # type: ignore[arg-type]  # an ItemRow
        self._cache_item(name, raw, encoded)
        return encoded

    def item_json(self, row: ItemRow, pinned: bool = False, mark: MarkRow | None = None) -> bytes:
        """Returns the JSON of an item in the format of the ranked list."""
        return serializers.ankra_item(row, pinned, mark, self._decider_roles)

    def crewship_json(self, row: ItemRow) -> bytes:
        """Returns the JSON of an item in Crewship's dialect."""
        return serializers.crewship_item(row, self._decider_roles)

    def _cache_item(self, name: bytes, raw: bytes, encoded: bytes) -> None:
        old = self._cache.pop(name, None)
        self._cache_bytes_left += len(old[0]) + len(old[1]) if old is not None else 0
        self._cache[name] = (raw, encoded)
        self._cache_bytes_left -= len(raw) + len(encoded)
        while self._cache_bytes_left < 0:
            _, (row, value) = self._cache.popitem(last=False)
            self._cache_bytes_left += len(row) + len(value)

    def item_by_id(self, workspace: Workspace, reader: Reader, item: str) -> bytes | None:
        """Returns the JSON of an item in any state. None if the item does not exist or the reader may not see it."""
        row = workspace.visible_item(reader, item)
        if row is None:
            return None
        mark = workspace.mark(reader.user, row.id.encode())
        is_dismissed = mark is not None and mark.surge == row.surge
        pinned = is_pinned(row, workspace.pins(reader.user))
        return self.item_json(row, pinned, mark if is_dismissed else None)

    def inbox_page(self, workspace: Workspace, reader: Reader, cursor: int, request: PageRequest) -> bytes:
        """Returns a page of the ranked list (CONTRACT: GET /org/me/inbox)."""
        pins = workspace.pins(reader.user)
        keys = listing.ranked(workspace, reader, pins, request.after, request.kind, request.cluster)
        page, has_more = first_page(keys, workspace, request.limit)
        return self.render_page(workspace, reader, cursor, page, has_more)

    def render_page(
        self, workspace: Workspace, reader: Reader, cursor: int, keys: list[bytes], has_more: bool,
        fields: dict[str, Any] | None = None,
    ) -> bytes:
        """Returns the page of these sort keys. `fields` are further fields of the JSON object."""
        items = b",".join([self.render_item(workspace, key) for key in keys])
        return self._render(workspace, reader, cursor, items, keys[-1] if has_more else None, fields)

    def dismissed_page(self, workspace: Workspace, reader: Reader, cursor: int, request: PageRequest) -> bytes:
        """Returns a page of the items that the reader dismissed."""
        kind, cluster = request.kind, request.cluster

        def is_requested(key: bytes) -> bool:
            row = workspace.item(key[ID_OFFSET:])
            if row is None or (kind and row.kind != kind):
                return False
            return not cluster or cluster == row.data.cluster or cluster in row.clusters

        keys = listing.dismissed(workspace, reader, workspace.pins(reader.user), request.after)
        page, has_more = first_page(filter(is_requested, keys), workspace, request.limit)
        items = b",".join([
            self.render_item(workspace, key, workspace.mark(reader.user, key[ID_OFFSET:])) for key in page])
        return self._render(workspace, reader, cursor, items, page[-1] if has_more else None, None)

    def _render(
        self, workspace: Workspace, reader: Reader, cursor: int, items: bytes, last: bytes | None,
        fields: dict[str, Any] | None,
    ) -> bytes:
        """Returns the page object. `last`: the sort key after which the next page begins; None: no next page."""
        body: dict[str, Any] = {
            "items": orjson.Fragment(b"[" + items + b"]"),
            "counts": orjson.Fragment(msgspec.json.encode(workspace.counts(reader))),
            "activity": self.activity(workspace, reader), "cursor": cursor,
        }
        if last is not None:
            body["next"] = encode_page_token(last)
        return orjson.dumps(body | fields if fields else body)

    def personal(self, workspace: Workspace, user: str) -> dict[str, Any]:
        """Returns the fields that a snapshot has in addition to a page."""
        return {"drafts": self.drafts(workspace, user), "preferences": self.preferences(workspace, user)}

    def drafts(self, workspace: Workspace, user: str) -> list[dict[str, Any]]:
        return [
            serializers.draft(row, user) for row in islice(listing.drafts(workspace, user), listing.MAX_DRAFTS)]

    def preferences(self, workspace: Workspace, user: str) -> dict[str, Any]:
        return serializers.preferences(workspace.preferences(user))

    def activity(
        self, workspace: Workspace, reader: Reader, window: int | None = None, clock: int = 0
    ) -> dict[str, Any]:
        """Returns the activity summary of the last `window` microseconds before `clock`.

        `window` None: all activity that the view keeps.
        """
        whole = window is None or window >= self.live_window
        since = TIME.pack(0 if window is None or whole else max(0, clock - window + 1))
        totals = dict.fromkeys(ACTIVITY_COUNTERS.values(), 0)
        for type_, counter in ACTIVITY_COUNTERS.items():
            totals[counter] += sum(
                keys.count_above(since) for keys in workspace.sets_of(reader, "activity", type_))
            overlaps = (
                workspace.sets.get(IndexName("activity", first, second, type_)) for first, second in reader.overlaps())
            totals[counter] -= sum(keys.count_above(since) for keys in overlaps if keys is not None)
        rows = islice(_recent_activity(workspace, reader, since), MAX_RECENT)
        recent = [serializers.activity_entry(row) for row in rows]
        length = self.live_window if window is None else window
        return {"window": serializers.window_name(length), **totals, "recent": recent}


def _recent_activity(workspace: Workspace, reader: Reader, since: bytes) -> Iterator[ActivityRow]:
    """Yields the activity that the reader sees, the latest first."""
    runs: Iterable[Iterator[bytes]] = (
        keys.descending() for type_ in ACTIVITY_COUNTERS for keys in workspace.sets_of(reader, "activity", type_))
    for key in merge_sorted(runs, descending=True):
        if key < since:
            return
        row = decode_row(key[8:], workspace.rows[key[8:]])
        if isinstance(row, ActivityRow):
            yield row
