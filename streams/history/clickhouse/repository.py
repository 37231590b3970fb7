"""What the writer asks of ClickHouse. Blocking, for one thread. All may raise Unavailable, `insert` also Refused."""

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

# Tables that ClickHouse makes of every insert into `activity`, by a view named like each; in the order in which
# _ACTIVITY_BY_HOUR counts what belongs into them.
SUMS = ("activity_hourly", "items_hourly")

# A workspace and the second its hour begins with.
Hour = tuple[str, int]

_PATIENCE = 60.0  # seconds for inserts of a writer before us to end
_KEYS = 1000  # hours made again in one statement

INSERT_SETTINGS = {
    # The answer means that it is there, in the base table and in what views make of it.
    "async_insert": 0,
    "wait_end_of_query": 1,
    "materialized_views_ignore_errors": 0,
    # The same batch sent again with its token changes nothing, and completes what a view did not get.
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    # Should a batch touch many months, it is as welcome.
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

# A broker that dies loses its last seconds, and the view may lose more of them than the facts: what was told within ten
# minutes of the log's clock before a jump, the fold may have forgotten. The digest is that of columns.digest.
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

# An insert under way when its writer died was of rows accepted lately; a day is ample. The hours that these are of:
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
# How many facts the hours of these workspaces and times have, and how many of them each of SUMS counts.
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
_FORGET_HOURS = """
DELETE FROM $sums WHERE (workspace_id, toUnixTimestamp64Second(hour)) IN {hours:Array(Tuple(String, Int64))}
"""
_MAKE_HOURS = """
INSERT INTO $sums SELECT * FROM ($view)
WHERE (workspace_id, toUnixTimestamp64Second(hour)) IN {hours:Array(Tuple(String, Int64))}
"""


class ActivityRepository:
    """`client`: clickhouse-connect's. `local`: nobody else can have inserts under way (chdb). `expires`: rows leave
    `activity` with time, so hours with fewer facts there than in a sum are as they should be."""

    def __init__(self, client: Any, database: str, local: bool = False, expires: bool = False) -> None:
        self._client = client
        self._database = database
        self._activity = f"`{database}`.activity"
        self._local = local
        self._differ = operator.gt if expires else operator.ne
        self._types: list[Any] | None = None

    def close(self) -> None:
        self._client.close()

    def insert(self, data: Sequence[Sequence[Any]], token: str) -> None:
        """Insert the columns as one block. Refused: a value does not fit. After any failure that ClickHouse answered
        the rows may be in `activity` all the same: what a view makes of them comes after, and may be what failed."""
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
                # Over HTTP the value that can't be written shows as a request that broke off.
                if context.insert_exception is not None:
                    raise context.insert_exception from None
                raise

    def max_position(self, partition: int) -> FactPosition | None:
        """The highest place of the partition."""
        (found, count), = self._query(_LAST, p=partition)
        return tuple(found) if count else None

    def stored_at(self, partition: int, facts: Collection[Fact]) -> set[tuple[int, int, str]]:
        """Position, index and event id of the rows at the positions of these facts, and of others in between."""
        workspaces, positions = sorted({fact.ws for fact in facts}), [fact.pos for fact in facts]
        return set(self._query(
            _EVENTS, p=partition, workspaces=workspaces, low=min(positions), high=max(positions),
        ))

    def stored_events(self, partition: int, events: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        """Which of these events (workspace, event id) have a row."""
        if not events:
            return set()
        workspaces = sorted({workspace for workspace, _ in events})
        return set(self._query(_KNOWN, p=partition, workspaces=workspaces, events=sorted(events)))

    def jumps(self, partition: int, days: float) -> list[int]:
        """Positions after which the partition's positions jumped, within that many days of the log's clock."""
        stretches = self._query(_STRETCHES, p=partition, seconds=int(days * 86400))
        return [
            high for (_, high, recent), (low, _, _) in itertools.pairwise(stretches)
            if recent and low - high >= MIN_POSITION_JUMP
        ]

    def digests(self, partition: int, high: int) -> array[int]:
        """Sorted digests of the events that a fold which fell back after position `high` may have forgotten."""
        return array("I", [digest for digest, in self._query(_DIGESTS, p=partition, high=high)])

    def wait_for_running_inserts(self) -> None:
        """Wait until the inserts that run now have ended: they may be of a writer that is gone."""
        begun = time.monotonic()
        while not self._local:
            (running,), = self._query(_INSERTS, age=time.monotonic() - begun, table=self._activity)
            if not running:
                return
            if time.monotonic() - begun > _PATIENCE:
                raise ClickHouseUnavailable("inserts of another writer do not end")
            time.sleep(0.05)

    def repair_hourly_tables(self, partitions: Collection[int]) -> int:
        """Make the hours again whose rows of these partitions a crash kept from a table of SUMS: how many.

        An insert writes the table first and what views make of it then. A workspace has one partition and a partition
        one writer, so nobody else adds to these hours meanwhile; when this is cut short, the next start does it again.
        """
        hours = self._query(_RECENT_HOURS, partitions=sorted(partitions))
        made = set()
        for sums, incomplete in zip(SUMS, self._incomplete(hours), strict=True):
            for start in range(0, len(incomplete), _KEYS):
                self._make_again(sums, incomplete[start:start + _KEYS])
            made.update(incomplete)
        return len(made)

    def _incomplete(self, hours: Sequence[Hour]) -> list[list[Hour]]:
        """Which of these hours have other numbers of facts in each table of SUMS."""
        if not hours:
            return [[] for _ in SUMS]
        span = {
            "workspaces": sorted({workspace for workspace, _ in hours}),
            "low": min(hour for _, hour in hours), "end": max(hour for _, hour in hours) + 3600,
        }
        rows = {(workspace, hour): counts for workspace, hour, *counts in self._query(_ACTIVITY_BY_HOUR, **span)}
        found, none = [], (0,) * len(SUMS)  # none: rows that expired since they were asked for their hours
        for number, sums in enumerate(SUMS):
            sql = _SUMS_BY_HOUR.replace("$sums", self._table(sums))
            told = {(workspace, hour): count for workspace, hour, count in self._query(sql, **span)}
            found.append([hour for hour in hours if self._differ(rows.get(hour, none)[number], told.get(hour, 0))])
        return found

    def _make_again(self, sums: str, hours: Sequence[Hour]) -> None:
        (view,), = self._query(_VIEW, db=self._database, name=f"{sums}_mv")
        self._command(_FORGET_HOURS.replace("$sums", self._table(sums)), {"lightweight_deletes_sync": 2}, hours=hours)
        # Not deduplicated: the same hour may have been made again before.
        once = {"insert_deduplicate": 0, "wait_end_of_query": 1}
        make = _MAKE_HOURS.replace("$sums", self._table(sums)).replace("$view", view)
        self._command(make, once, hours=hours)

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
