"""Events of a case from ClickHouse, newest first, in pages (CONTRACT §4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from api.contract.page_tokens import InvalidPageToken, decode_page_token, encode_page_token
from api.history.client import HistoryClient, Row
from api.readmodel.readers import Reader
from api.readmodel.workspace import Workspace
from schemas.scalars import format_timestamp
from streams.core.domain.keys import item_id
from streams.core.domain.visibility import Targets

__all__ = ["EventPosition", "decode_position", "encode_position", "fetch_events", "render_page"]

_CASE = """
SELECT
    toUnixTimestamp64Micro(occurred_at), event_id, type, subject, item_id, kind, priority, title, cluster, stack,
    case_state, session_id, task_id, proof_id, actor, resolved_action, seconds_open, decision_id, option, does, reason,
    role, seconds_to_decide, seconds_to_apply, position, fact_index
FROM activity
WHERE workspace_id = {ws:String} AND case_id = {case:String} AND $SEES
"""
_BEFORE = """
  AND occurred_at <= fromUnixTimestamp64Micro({at:Int64}, 'UTC')
  AND (occurred_at, event_id, position, fact_index)
    < (fromUnixTimestamp64Micro({at:Int64}, 'UTC'), {event:String}, {position:UInt64}, {nth:UInt32})
"""
# Target of each item, from its newest fact. Facts of a user's own acts (item.dismissed) do not count: their target is
# that user.
_TARGETS = """
SELECT item_id, argMax(target_user_id, (occurred_at, position, fact_index)),
    argMax(target_role, (occurred_at, position, fact_index))
FROM activity
WHERE workspace_id = {ws:String} AND item_id IN {items:Array(String)} AND NOT startsWith(type, 'item.')
GROUP BY item_id
"""
# Rows that an older attn wrote may share an event id; their positions differ.
_NEWEST = "ORDER BY occurred_at DESC, event_id DESC, position DESC, fact_index DESC LIMIT {limit:UInt32}"


_SUBJECT, _ITEM, _KIND = 3, 4, 5  # columns of _CASE
_MAX_QUERIES = 20  # of one request
_REFETCH_ROWS = 500  # rows of each query after the first


class EventPosition(NamedTuple):
    """Position of an event in the history of its case: time in microseconds, event id, log position, fact index.

    Page tokens of an older attn have no log position. The next page then skips all rows with that time and event id.
    """

    at: int
    event: str
    position: int = 0
    nth: int = 0


_decode_position = msgspec.json.Decoder(EventPosition).decode


def encode_position(position: EventPosition) -> str:
    """Returns the page token of the events that follow this one."""
    return encode_page_token(msgspec.json.encode(position))


def decode_position(token: str) -> EventPosition:
    """Returns the position in a page token. Raises InvalidPageToken if the token holds none."""
    payload = decode_page_token(token)
    try:
        position = _decode_position(payload)
    except (ValueError, msgspec.DecodeError) as error:
        raise InvalidPageToken from error
    if not (0 <= position.at < 1 << 53 and 0 <= position.position < 1 << 63 and 0 <= position.nth < 1 << 32):
        raise InvalidPageToken
    return position


async def fetch_events(
    client: HistoryClient, reader: Reader, case: str, limit: int, after: EventPosition | None, workspace: Workspace
) -> Sequence[Row]:
    """Returns at most `limit` + 1 rows of _CASE that the reader may see, newest first, from behind `after`.

    Sends further queries while `_drop_hidden` removes too many rows. At most `_MAX_QUERIES` run, which bounds the cost
    whatever a producer sends. Raises what HistoryClient.query raises.
    """
    events: list[Row] = []
    size = limit + 1
    for _ in range(_MAX_QUERIES):
        sql, parameters = _CASE + _NEWEST, {"case": case, "limit": size}
        if after is not None:
            sql, parameters = _CASE + _BEFORE + _NEWEST, parameters | after._asdict()
        rows = await client.query(sql, reader, **parameters)
        events += await _drop_hidden(client, reader, rows, workspace)
        if len(events) > limit or len(rows) < size:
            break
        after, size = _position_of(rows[-1]), _REFETCH_ROWS
    return events[:limit + 1]


async def _drop_hidden(
    client: HistoryClient, reader: Reader, rows: Sequence[Row], workspace: Workspace
) -> Iterable[Row]:
    """Drops early events whose item is now addressed to other readers. An early event arrived before its item opened.

    The fact of an early event has no item and carries the target that its source named. The replica knows the item
    until resolved items are removed; ClickHouse is asked about the others.
    """
    early = {item_id(reader.workspace_id, row[_KIND], row[_SUBJECT]) for row in rows if _is_early(row)}
    targets: dict[str, Targets | None] = {item: workspace.targets_of(item) for item in early}
    unknown = [item for item in early if not workspace.has_item(item)]
    if unknown:
        for item, user, role in await client.query(_TARGETS, reader, items=unknown):
            targets[item] = user or None, role or None

    def is_hidden(row: Row) -> bool:
        target = targets[item_id(reader.workspace_id, row[_KIND], row[_SUBJECT])] if _is_early(row) else None
        return target is not None and not reader.can_see(*target)

    return [row for row in rows if not is_hidden(row)]


def _is_early(row: Row) -> bool:
    return not row[_ITEM] and bool(row[_KIND])


def _position_of(row: Row) -> EventPosition:
    return EventPosition(row[0], row[1], row[-2], row[-1])


def render_page(case: str, rows: Sequence[Row], limit: int) -> dict[str, Any]:
    """Returns the response body of at most `limit` rows. It has `next` if `rows` has one more."""
    body: dict[str, Any] = {"case_id": case, "events": [_event(case, row) for row in rows[:limit]]}
    if len(rows) > limit:
        body["next"] = encode_position(_position_of(rows[limit - 1]))
    return body


def _event(case: str, row: Row) -> dict[str, Any]:
    """Returns an event in the form of the case event stream, with additional fields. Empty fields are left out."""
    (at, _, name, subject, item, kind, priority, title, cluster, stack, state, session, task, proof, actor, action,
     seconds, decision, option, does, reason, role, seconds_to_decide, seconds_to_apply, _, _) = row
    if name.startswith("task."):
        task = task or subject
    event = {
        "type": name.replace(".", "_"), "at": format_timestamp(at), "case_id": case, "state": state,
        "session_id": session, "task_id": task, "proof_id": proof, "item": item, "kind": kind,
        "priority": priority, "title": title, "cluster": cluster, "stack": stack, "actor": actor,
        "resolved_action": action, "seconds_open": seconds, "decision": decision, "option": option, "does": does,
        "reason": reason, "role": role, "seconds_to_decide": seconds_to_decide, "seconds_to_apply": seconds_to_apply,
    }
    return {field: value for field, value in event.items() if value is not None and value != ""}
