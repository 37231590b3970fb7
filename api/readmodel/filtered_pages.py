"""Selects pages of decisions (`GET /org/me/decisions`) and of items (`GET /api/v1/inbox`) by filters. Users get what
they may see, the key of a source gets the questions of its source. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import orjson

from api.contract.asking.question_json import decision_entry
from api.contract.page_tokens import InvalidPageToken, decode_page_token, encode_page_token
from api.readmodel import listing
from api.readmodel.access.source_keys import item_of_key, may_read_decision
from api.readmodel.indexes import TIME
from api.readmodel.readers import Reader
from api.readmodel.workspace import Workspace
from schemas.asking.question import DecisionRow
from schemas.views import ItemRow, SourceKeyRow, decode_row
from streams.core.domain.event_types import KINDS
from streams.core.domain.keys import item_id
from streams.runtime.source_keys import covers_source

__all__ = ["DecisionFilter", "DecisionPage", "ItemFilter", "decision_of_token", "decision_page", "item_page"]

MAX_SCANNED = 5000  # rows that a page with a filter reads: about 25 ms


class DecisionFilter(NamedTuple):
    """Which decisions a page lists: their state, the CloudEvents source of their item or one above it, and its source
    id. "": any."""

    state: str = ""
    source: str = ""
    source_id: str = ""


ANY_DECISION = DecisionFilter()


class ItemFilter(NamedTuple):
    """Which items a page lists: their states and kind, their source id and, of those that ask, the CloudEvents source
    or one above it. "": any."""

    states: tuple[str, ...]
    kind: str = ""
    source: str = ""
    source_id: str = ""


class DecisionPage(NamedTuple):
    """One page. `decisions`: a JSON array. `next`: the token of the next page, None on the last one."""

    decisions: bytes
    next: str | None

    @property
    def etag(self) -> str:
        """Returns an entity tag of the page: equal pages have equal tags on every edge."""
        return f'"{hashlib.sha256(self.decisions + (self.next or "").encode()).hexdigest()[:32]}"'

    def body(self, cursor: int) -> bytes:
        """Returns the JSON body of the response. `cursor`: the version of the view."""
        body: dict[str, object] = {"cursor": cursor, "decisions": orjson.Fragment(self.decisions)}
        return orjson.dumps(body if self.next is None else body | {"next": self.next})


def decision_of_token(text: str) -> bytes:
    """Returns time and id of the last decision of the previous page. Raises InvalidPageToken if the text holds none."""
    key = decode_page_token(text)
    if len(key) <= TIME.size:
        raise InvalidPageToken
    return key


def decision_page(
    workspace: Workspace, reader: Reader, limit: int, wanted: DecisionFilter = ANY_DECISION,
    before: bytes | None = None, source_key: SourceKeyRow | None = None,
) -> DecisionPage:
    """Returns a page of the decisions that the reader made or may see, the latest first; with `source_key`, those that
    answer questions of the key's source.

    `before`: time and id of the last decision of the previous page. A page has at most `limit` decisions and
    `listing.PAGE_BYTES` of rows, but at least one decision. A page with a filter or a key ends after `MAX_SCANNED`
    decisions, and may then have fewer than `limit`, or none, and a `next`.
    """
    page: list[bytes] = []
    last, bytes_left = b"", listing.PAGE_BYTES
    bounded = source_key is not None or wanted != ANY_DECISION
    for scanned, key in enumerate(_candidates(workspace, reader, wanted, before, source_key)):
        if bounded and scanned == MAX_SCANNED:
            return DecisionPage(_array(page), encode_page_token(last))
        raw = workspace.rows[b"c:" + key[TIME.size:]]
        row = decode_row(b"c:", raw)
        assert isinstance(row, DecisionRow)
        if not (_matches(row, wanted) and _may_read(row, reader, source_key)):
            last = key
            continue
        bytes_left -= len(raw)
        if len(page) == limit or (page and bytes_left < 0):
            return DecisionPage(_array(page), encode_page_token(last))
        page.append(decision_entry(row))
        last = key
    return DecisionPage(_array(page), None)


def _array(page: list[bytes]) -> bytes:
    return b"[" + b",".join(page) + b"]"


def _candidates(
    workspace: Workspace, reader: Reader, wanted: DecisionFilter, before: bytes | None, source_key: SourceKeyRow | None,
) -> Iterator[bytes]:
    """Yields time and id of the decisions among which the page is, the latest first."""
    if wanted.source_id:
        return listing.decisions_of_subject(workspace, wanted.source_id, before)
    if source_key is not None:
        return listing.all_decisions(workspace, wanted.state, before)
    return listing.decisions(workspace, reader, wanted.state, before)


def _matches(row: DecisionRow, wanted: DecisionFilter) -> bool:
    return (wanted.state in ("", row.state) and wanted.source_id in ("", row.subject)
            and covers_source(wanted.source or None, row.source))


def _may_read(row: DecisionRow, reader: Reader, source_key: SourceKeyRow | None) -> bool:
    if source_key is not None:
        return may_read_decision(source_key, row)
    return reader.can_see(row.target_user_id, row.target_role) or any(
        actor.user == reader.user for actor in row.actors)


def item_page(
    workspace: Workspace, reader: Reader, limit: int, wanted: ItemFilter, source_key: SourceKeyRow | None = None,
) -> tuple[list[ItemRow], int]:
    """Returns the items that the reader may see, the latest opening first, and the number of all unread ones; with
    `source_key`, the items of which its source asked the question.

    A page has at most `limit` items and `listing.PAGE_BYTES` of rows. A key and a filter read `MAX_SCANNED` items.
    """
    ids = _item_ids(workspace, reader, wanted, source_key)
    if source_key is None and not (wanted.source or wanted.source_id):
        return listing.item_rows(workspace, ids, limit), workspace.unread_count(reader)
    rows = []
    for item in islice(ids, MAX_SCANNED):
        row = (item_of_key(workspace, source_key, item.decode()) if source_key is not None
               else workspace.visible_item(reader, item.decode()))
        if row is not None and row.state in wanted.states and wanted.kind in ("", row.kind) and (
                not wanted.source or (row.source and covers_source(wanted.source, row.source))):
            rows.append(row)
    unread = workspace.unread_count(reader) if source_key is None else sum(row.state == "unread" for row in rows)
    return listing.item_rows(workspace, iter([row.id.encode() for row in rows]), limit), unread


def _item_ids(
    workspace: Workspace, reader: Reader, wanted: ItemFilter, source_key: SourceKeyRow | None,
) -> Iterator[bytes]:
    if wanted.source_id:
        return (item_id(workspace.workspace_id, kind, wanted.source_id).encode() for kind in sorted(KINDS))
    if source_key is not None:
        return listing.asking(workspace, wanted.states)
    return listing.newest(workspace, reader, wanted.states, wanted.kind)
