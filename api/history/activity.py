"""Activity of a window longer than the live one, from ClickHouse (CONTRACT §4)."""

from __future__ import annotations

from typing import Any

from api.contract import serializers
from api.history.client import HistoryClient, Row
from api.readmodel.pages import MAX_RECENT
from api.readmodel.readers import Reader
from schemas.views import ActivityRow
from streams.core.domain.event_types import ACTIVITY_COUNTERS, EVENT_RULES
from streams.core.domain.keys import activity_key, event_digest, item_id, parse_event_name

__all__ = ["fetch_activity"]

# An activity entry has title, target and the like of its item as it is now. The newest opening fact of the item has
# them (streams.core.fold.activity). An item without an opening fact has no target of its own: the entry keeps the
# target of its fact.
_DONE = """
WITH done AS (
    SELECT event_id, occurred_at, type, subject, kind, cluster, case_id, session_id, actor, target_user_id, target_role
    FROM activity
    WHERE workspace_id = {ws:String} AND occurred_at > fromUnixTimestamp64Micro({since:Int64}, 'UTC')
      AND type IN {types:Array(String)}
),
shown AS (
    SELECT kind, subject, count() AS asked,
        argMax((title, cluster, case_id, session_id, target_user_id, target_role), (occurred_at, position, fact_index))
            AS last
    FROM activity
    WHERE workspace_id = {ws:String} AND type IN {openers:Array(String)}
      AND (kind, subject) IN (SELECT kind, subject FROM done)
    GROUP BY kind, subject
),
entries AS (
    SELECT
        event_id, toUnixTimestamp64Micro(occurred_at) AS at, type, done.subject AS subject, done.kind AS kind, asked,
        last.1 AS title,
        if(asked = 0, done.cluster, last.2) AS cluster,
        if(asked = 0, done.case_id, last.3) AS case_id,
        if(asked = 0, done.session_id, last.4) AS session_id,
        actor,
        if(asked = 0, done.target_user_id, last.5) AS target_user_id,
        if(asked = 0, done.target_role, last.6) AS target_role
    FROM done LEFT JOIN shown ON done.kind = shown.kind AND done.subject = shown.subject
)
"""
_COUNTS = "$DONE SELECT type, count() FROM entries WHERE $SEES GROUP BY type".replace("$DONE", _DONE)
# ClickHouse cannot compute the order of entries with equal times, so the query fetches all entries of the last time
# (WITH TIES). Usually that is one; 1000 bounds a flood.
_RECENT = """$DONE
SELECT * FROM (
    SELECT event_id, at, type, if(asked = 0, '', subject), kind, title, cluster, case_id, session_id, actor
    FROM entries WHERE $SEES ORDER BY at DESC LIMIT {most:UInt32} WITH TIES
) LIMIT 1000
""".replace("$DONE", _DONE)
_OPENERS = sorted(
    name for name, rule in EVENT_RULES.items()
    if rule.effect == "open" and rule.kind in {EVENT_RULES[counted].kind for counted in ACTIVITY_COUNTERS}
)

async def fetch_activity(client: HistoryClient, reader: Reader, window: int, clock: int) -> dict[str, Any]:
    """Returns what was done within `window` before `clock`, in the form of `Answers.activity`. Both are microseconds.

    Raises what HistoryClient.query raises.
    """
    parameters = {"since": clock - window, "types": sorted(ACTIVITY_COUNTERS), "openers": _OPENERS}
    counts, recent = await client.query_all(
        reader, (_COUNTS, parameters), (_RECENT, parameters | {"most": MAX_RECENT}))
    totals = dict.fromkeys(ACTIVITY_COUNTERS.values(), 0)
    for event_type, count in counts:
        totals[ACTIVITY_COUNTERS[event_type]] += count
    entries = sorted(
        (_entry(reader.workspace_id, row) for row in recent), key=lambda row: (row.at, row.id), reverse=True)
    return {"window": serializers.window_name(window), **totals,
            "recent": [serializers.activity_entry(row) for row in entries[:MAX_RECENT]]}


def _entry(ws: str, row: Row) -> ActivityRow:
    """Returns the row as the view has it. Entries with equal times are ordered by their key, a digest of the event."""
    event, at, event_type, subject, kind, title, cluster, case, session, by = row
    item = item_id(ws, kind, subject) if subject else ""
    source, name = parse_event_name(event)
    return ActivityRow(
        ws=ws, id=activity_key(event_digest(ws, source, name)).decode(), type=event_type, at=at, item=item,
        kind=kind, title=title, cluster=cluster, case_id=case, session_id=session, by=by,
    )
