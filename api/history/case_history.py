"""Events of a case, paged."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from api.history.client import HistoryClient, Row
from api.readmodel.readers import Reader
from api.readmodel.workspace import Workspace
from schemas.scalars import from_us
from streams.core.domain.keys import item_id
from streams.core.domain.visibility import Targets

__all__ = ["Place", "history", "page_of", "read_place", "token"]

_CASE = """
SELECT
    toUnixTimestamp64Micro(occurred_at), event_id, type, subject, item_id, kind, priority, title, cluster, stack,
    case_state, session_id, task_id, proof_id, actor, resolved_action, seconds_open, position, fact_index
FROM activity
WHERE workspace_id = {ws:String} AND case_id = {case:String} AND $SEES
"""
_BEFORE = """
  AND occurred_at <= fromUnixTimestamp64Micro({at:Int64}, 'UTC')
  AND (occurred_at, event_id, position, fact_index)
    < (fromUnixTimestamp64Micro({at:Int64}, 'UTC'), {event:String}, {position:UInt64}, {nth:UInt32})
"""
# Who the items are for, by what was last said of them. A person's own acts (item.dismissed) are for that person.
_TARGETS = """
SELECT item_id, argMax(target_user_id, (occurred_at, position, fact_index)),
    argMax(target_role, (occurred_at, position, fact_index))
FROM activity
WHERE workspace_id = {ws:String} AND item_id IN {items:Array(String)} AND NOT startsWith(type, 'item.')
GROUP BY item_id
"""
# Of an older attn, rows of two events may have one id: their positions differ.
_NEWEST = "ORDER BY occurred_at DESC, event_id DESC, position DESC, fact_index DESC LIMIT {limit:UInt32}"


_SUBJECT, _ITEM, _KIND = 3, 4, 5  # columns of _CASE
_ROUNDS, _FURTHER = 20, 500


class Place(NamedTuple):
    """Of an event in its case's history: when, in microseconds, its id, and where its fact comes from. A token of an
    older attn has no position: nothing of the same id is beyond it."""

    at: int
    event: str
    position: int = 0
    nth: int = 0


_read_place = msgspec.json.Decoder(Place).decode


def token(place: Place) -> str:
    return urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def read_place(text: str) -> Place:
    """ValueError: not one of ours."""
    try:
        place = _read_place(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (Base64Error, ValueError, msgspec.DecodeError) as error:
        raise ValueError("next: not a page token") from error
    if not (0 <= place.at < 1 << 53 and 0 <= place.position < 1 << 63 and 0 <= place.nth < 1 << 32):
        raise ValueError("next: not a page token")
    return place


async def history(
    archive: HistoryClient, reader: Reader, case: str, limit: int, before: Place | None, space: Workspace
) -> Sequence[Row]:
    """Returns at most `limit` + 1 events of the case that the reader may see, newest first.

    Fetches further pages where a whole one was dropped by `_shown`: at most `_ROUNDS`, so the cost is bounded whatever
    a producer sends.
    """
    found: list[Row] = []
    size = limit + 1
    for _ in range(_ROUNDS):
        sql, given = _CASE + _NEWEST, {"case": case, "limit": size}
        if before is not None:
            sql, given = _CASE + _BEFORE + _NEWEST, given | before._asdict()
        rows = await archive.ask(sql, reader, **given)
        found += await _shown(archive, reader, rows, space)
        if len(found) > limit or len(rows) < size:
            break
        before, size = _place(rows[-1]), _FURTHER
    return found[:limit + 1]


async def _shown(archive: HistoryClient, reader: Reader, rows: Sequence[Row], space: Workspace) -> Iterable[Row]:
    """Drops events that arrived before their item opened if the item, as it is now, is for other readers.

    Such an event was recorded without an item, for those its source named. The view knows its item for as long as
    resolved items are kept; ClickHouse is asked for the others.
    """
    early = {item_id(reader.ws, row[_KIND], row[_SUBJECT]) for row in rows if _is_early(row)}
    targets: dict[str, Targets | None] = {item: space.targets_of(item) for item in early}
    gone = [item for item in early if not space.has(item)]
    if gone:
        for item, user, role in await archive.ask(_TARGETS, reader, items=gone):
            targets[item] = user or None, role or None

    def hidden(row: Row) -> bool:
        target = targets[item_id(reader.ws, row[_KIND], row[_SUBJECT])] if _is_early(row) else None
        return target is not None and not reader.sees(*target)

    return [row for row in rows if not hidden(row)]


def _is_early(row: Row) -> bool:
    return not row[_ITEM] and bool(row[_KIND])


def _place(row: Row) -> Place:
    return Place(row[0], row[1], row[-2], row[-1])


def page_of(case: str, rows: Sequence[Row], limit: int) -> dict[str, Any]:
    """The answer of these rows; one more than `limit` says that there is another page."""
    body: dict[str, Any] = {"case_id": case, "events": [_event(case, row) for row in rows[:limit]]}
    if len(rows) > limit:
        body["next"] = token(_place(rows[limit - 1]))
    return body


def _event(case: str, row: Row) -> dict[str, Any]:
    """As the case's stream tells it, and what it leaves out there."""
    (at, _, name, subject, item, kind, priority, title, cluster, stack, state, session, task, proof, actor, action,
     seconds, _, _) = row
    if name.startswith("task."):
        task = task or subject
    told = {
        "type": name.replace(".", "_"), "at": from_us(at), "case_id": case, "state": state, "session_id": session,
        "task_id": task, "proof_id": proof, "item": item, "kind": kind, "priority": priority, "title": title,
        "cluster": cluster, "stack": stack, "actor": actor, "resolved_action": action, "seconds_open": seconds,
    }
    return {field: value for field, value in told.items() if value is not None and value != ""}
