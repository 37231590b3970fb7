"""Queries and inserts of the history's writer, and the repair of hourly tables after a crash. Blocking, for one thread.

All methods may raise ClickHouseUnavailable; `insert` may also raise RowsRefused.
"""

from __future__ import annotations

import itertools
import operator
import time
from array import array
from collections.abc import Collection, Sequence
from typing import Any

from schemas.facts import Fact
from streams.history.clickhouse.client import ClickHouseUnavailable, translate_errors
from streams.history.clickhouse.columns import COLUMNS, MIN_POSITION_JUMP, FactPosition

__all__ = ["INSERT_SETTINGS", "SUMS", "ActivityRepository"]

# Hourly tables. ClickHouse fills each from the inserts into `activity`, through materialized view `<table>_mv`. In the
# order in which _ACTIVITY_BY_HOUR counts their facts.
SUMS = ("activity_hourly", "items_hourly")

# A workspace and an hour: the second at which it begins.
Hour = tuple[str, int]

_MAX_WAIT = 60.0  # seconds; for running inserts of an earlier writer
_MAX_HOURS = 1000  # hours repaired in one statement

INSERT_SETTINGS = {
    # ClickHouse responds once the rows are in the base table and in the tables of its views.
    "async_insert": 0,
    "wait_end_of_query": 1,
    "materialized_views_ignore_errors": 0,
    # A retry with the same token inserts nothing twice, and completes views that failed.
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    # A batch may have rows of any number of months.
    "max_partitions_per_insert_block": 0,
}

# Projection `stretches` answers the first two. The jump is a literal in its expression, and in the query: a query
# parameter would be a cast, which the projection does not match.
_LAST = "SELECT max((position, fact_index)), count() FROM $activity WHERE log_partition = {p:UInt16}"

_STRETCHES = """
SELECT min(position), max(position),
       max(accepted_at) > subtractSeconds(max(max(accepted_at)) OVER (), {seconds:UInt64})
FROM $activity WHERE log_partition = {p:UInt16}
GROUP BY intDiv(position, $jump) ORDER BY 1
""".replace("$jump", str(MIN_POSITION_JUMP))

_EVENTS = """
SELECT position, fact_index, event_id FROM $activity
WHERE log_partition = {p:UInt16} AND workspace_id IN {workspaces:Array(String)}
  AND position BETWEEN {low:UInt64} AND {high:UInt64}
"""

_KNOWN = """
SELECT DISTINCT workspace_id, event_id FROM $activity
WHERE log_partition = {p:UInt16} AND workspace_id IN {workspaces:Array(String)}
  AND (workspace_id, event_id) IN {events:Array(Tuple(String, String))}
"""

# A broker that crashes loses its last seconds, and the view may lose more of them than the facts. So the fold may have
# forgotten events of the last ten minutes of the log's clock before a jump. The digest is that of columns.digest.
_DIGESTS = """
SELECT DISTINCT CRC32(concat(workspace_id, '\\n', event_id)) AS digest FROM $activity
WHERE log_partition = {p:UInt16} AND position <= {high:UInt64} AND accepted_at >= (
    SELECT max(accepted_at) - INTERVAL 10 MINUTE FROM $activity
    WHERE log_partition = {p:UInt16} AND position <= {high:UInt64}
)
ORDER BY digest
"""

_INSERTS = """
SELECT count() FROM system.processes
WHERE query_kind = 'Insert' AND elapsed >= {age:Float64} AND position(query, {table:String}) > 0
"""

# An insert that was running when its writer crashed had rows that were accepted lately: within a day at the most. The
# query returns the hours of these rows.
_RECENT_HOURS = """
SELECT DISTINCT workspace_id, toUnixTimestamp64Second(hour) FROM $activity AS activity
INNER JOIN (
    SELECT log_partition, max(accepted_at) - INTERVAL 1 DAY AS since FROM $activity
    WHERE log_partition IN {partitions:Array(UInt16)} GROUP BY log_partition
) AS clocks ON activity.log_partition = clocks.log_partition
WHERE activity.accepted_at >= since AND activity.accepted_at >= (
    SELECT min(newest) - INTERVAL 1 DAY FROM (
        SELECT max(accepted_at) AS newest FROM $activity
        WHERE log_partition IN {partitions:Array(UInt16)} GROUP BY log_partition
    )
)
"""
# Facts by hour, and how many of them each table of SUMS counts.
_ACTIVITY_BY_HOUR = """
SELECT workspace_id, toUnixTimestamp64Second(hour), count(), countIf(item_id != '') FROM $activity
WHERE workspace_id IN {workspaces:Array(String)}
  AND occurred_at >= fromUnixTimestamp64Second({low:Int64}, 'UTC')
  AND occurred_at < fromUnixTimestamp64Second({end:Int64}, 'UTC')
GROUP BY workspace_id, hour
"""
_SUMS_BY_HOUR = """
SELECT workspace_id, toUnixTimestamp64Second(hour), sum(facts) FROM $sums
WHERE workspace_id IN {workspaces:Array(String)}
  AND hour >= fromUnixTimestamp64Second({low:Int64}, 'UTC') AND hour < fromUnixTimestamp64Second({end:Int64}, 'UTC')
GROUP BY workspace_id, hour
"""
_VIEW = "SELECT as_select FROM system.tables WHERE database = {db:String} AND name = {name:String}"
_DELETE_HOURS = """
DELETE FROM $sums WHERE (workspace_id, toUnixTimestamp64Second(hour)) IN {hours:Array(Tuple(String, Int64))}
"""
_REBUILD_HOURS = """
INSERT INTO $sums SELECT * FROM ($view)
WHERE (workspace_id, toUnixTimestamp64Second(hour)) IN {hours:Array(Tuple(String, Int64))}
"""


class ActivityRepository:
    """Tables in `database`. `client` is of clickhouse-connect. `local` (chdb): no other process can insert. `expires`:
    `activity` has a TTL, so an hour may have fewer facts there than in an hourly table."""

    def __init__(self, client: Any, database: str, local: bool = False, expires: bool = False) -> None:
        self._client = client
        self._database = database
        self._activity = f"`{database}`.activity"
        self._local = local
        self._is_incomplete = operator.gt if expires else operator.ne
        self._types: list[Any] | None = None

    def close(self) -> None:
        """Closes the client."""
        self._client.close()

    def insert(self, data: Sequence[Sequence[Any]], token: str) -> None:
        """Inserts the columns as one block. Raises RowsRefused if a value does not fit its column.

        Even after an error that ClickHouse itself reports the rows may be in `activity`: its views run afterwards, and
        one of them may have failed.
        """
        types = self._column_types()
        with translate_errors(rows=True):
            context = self._client.create_insert_context(
                self._activity, column_names=COLUMNS, column_types=types, column_oriented=True, data=data,
                settings=INSERT_SETTINGS | {"insert_deduplication_token": token},
            )
            context.block_row_count = len(data[0])
            try:
                self._client.data_insert(context)
            except Exception:
                # Over HTTP a value that can't be encoded aborts the request; the context has the actual error.
                if context.insert_exception is not None:
                    raise context.insert_exception from None
                raise

    def max_position(self, partition: int) -> FactPosition | None:
        """Returns the highest position of the partition, or None without rows."""
        (highest, count), = self._query(_LAST, p=partition)
        return tuple(highest) if count else None

    def stored_at(self, partition: int, facts: Collection[Fact]) -> set[tuple[int, int, str]]:
        """Returns position, index, and event id of the rows at the positions of these facts, and of rows in between."""
        workspaces, positions = sorted({fact.ws for fact in facts}), [fact.pos for fact in facts]
        return set(self._query(
            _EVENTS, p=partition, workspaces=workspaces, low=min(positions), high=max(positions),
        ))

    def stored_events(self, partition: int, events: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        """Returns the events (workspace, event id) that have a row."""
        if not events:
            return set()
        workspaces = sorted({workspace for workspace, _ in events})
        return set(self._query(_KNOWN, p=partition, workspaces=workspaces, events=sorted(events)))

    def jumps(self, partition: int, days: float) -> list[int]:
        """Returns the positions after which the partition's positions jumped, of the last `days` of the log's clock."""
        stretches = self._query(_STRETCHES, p=partition, seconds=int(days * 86400))
        return [
            high for (_, high, recent), (low, _, _) in itertools.pairwise(stretches)
            if recent and low - high >= MIN_POSITION_JUMP
        ]

    def digests(self, partition: int, high: int) -> array[int]:
        """Returns the sorted digests of the events that the fold may have forgotten in a truncation at `high`."""
        return array("I", [digest for digest, in self._query(_DIGESTS, p=partition, high=high)])

    def wait_for_running_inserts(self) -> None:
        """Waits up to 60 s until the inserts that run now have ended: a crashed writer may have left them."""
        started = time.monotonic()
        while not self._local:
            (running,), = self._query(_INSERTS, age=time.monotonic() - started, table=self._activity)
            if not running:
                return
            if time.monotonic() - started > _MAX_WAIT:
                raise ClickHouseUnavailable(f"inserts of another writer still run after {_MAX_WAIT:g} s")
            time.sleep(0.05)

    def repair_hourly_tables(self, partitions: Collection[int]) -> int:
        """Rebuilds the hours of these partitions that are incomplete in a table of SUMS. Returns their number.

        An insert writes `activity` first and the hourly tables afterwards; a crash in between leaves them incomplete. A
        workspace has one partition and a partition one writer, so no other insert changes these hours meanwhile. If
        the repair is interrupted, the next start repeats it.
        """
        hours = self._query(_RECENT_HOURS, partitions=sorted(partitions))
        repaired: set[Hour] = set()
        for sums, incomplete in zip(SUMS, self._incomplete(hours), strict=True):
            for start in range(0, len(incomplete), _MAX_HOURS):
                self._rebuild_hours(sums, incomplete[start:start + _MAX_HOURS])
            repaired.update(incomplete)
        return len(repaired)

    def _incomplete(self, hours: Sequence[Hour]) -> list[list[Hour]]:
        """Returns, for each table of SUMS, the hours whose number of facts differs from that in `activity`."""
        if not hours:
            return [[] for _ in SUMS]
        span = {
            "workspaces": sorted({workspace for workspace, _ in hours}),
            "low": min(hour for _, hour in hours), "end": max(hour for _, hour in hours) + 3600,
        }
        rows = {(workspace, hour): counts for workspace, hour, *counts in self._query(_ACTIVITY_BY_HOUR, **span)}
        incomplete = []
        expired = (0,) * len(SUMS)  # of hours whose rows have expired since _RECENT_HOURS
        for number, sums in enumerate(SUMS):
            sql = _SUMS_BY_HOUR.replace("$sums", self._table(sums))
            summed = {(workspace, hour): count for workspace, hour, count in self._query(sql, **span)}
            incomplete.append([
                hour for hour in hours
                if self._is_incomplete(rows.get(hour, expired)[number], summed.get(hour, 0))
            ])
        return incomplete

    def _rebuild_hours(self, sums: str, hours: Sequence[Hour]) -> None:
        (view,), = self._query(_VIEW, db=self._database, name=f"{sums}_mv")
        self._command(_DELETE_HOURS.replace("$sums", self._table(sums)), {"lightweight_deletes_sync": 2}, hours=hours)
        # Without deduplication: an earlier repair may have inserted the same rows.
        not_deduplicated = {"insert_deduplicate": 0, "wait_end_of_query": 1}
        rebuild = _REBUILD_HOURS.replace("$sums", self._table(sums)).replace("$view", view)
        self._command(rebuild, not_deduplicated, hours=hours)

    def _table(self, name: str) -> str:
        return f"`{self._database}`.{name}"

    def _column_types(self) -> list[Any]:
        if self._types is None:
            with translate_errors():
                context = self._client.create_insert_context(self._activity, column_names=COLUMNS)
            self._types = list(context.column_types)
        return self._types

    def _fill(self, sql: str) -> str:
        return sql.replace("$activity", self._activity)

    def _query(self, sql: str, **parameters: Any) -> list[Any]:
        with translate_errors():
            return list(self._client.query(self._fill(sql), parameters=parameters).result_rows)

    def _command(self, sql: str, settings: dict[str, Any], **parameters: Any) -> None:
        with translate_errors():
            self._client.command(self._fill(sql), parameters=parameters, settings=settings)
