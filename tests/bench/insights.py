"""Queries with and without the schema of the history: `python -m bench insights [--rows N]`.

The queries of edges (insights, activity of 30 days, history of a case) run on the tables of attn, and on a table with
the same rows but without sort order, sums or projections. Both must give the same result. The engine (chdb) runs in
this process. The data: 16 workspaces, 90 days; half of the facts close an item; a case has 40 facts.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from api.history.activity import fetch_activity
from api.history.case_history import fetch_events
from api.history.insights import fetch_insights, render_insights, steps_of
from api.readmodel.readers import Reader
from api.readmodel.workspace import Workspace
from bench.harness.subprocesses import cpu_seconds
from schemas.scalars import DAY
from schemas.settings import Settings
from streams.core.domain.visibility import CAN_SEE_SQL
from streams.history.clickhouse import client, migrate

RUNS = 5
CHUNK = 500_000
SPAN = 90 * DAY
NOW = 1_779_278_400_000_000  # 2026-05-20T12:00:00Z
READER = Reader("ws_03", "user_1", frozenset({"OWNER"}))

_FILL = """
INSERT INTO attn.activity (
    workspace_id, occurred_at, accepted_at, event_id, type, subject, item_id, kind, priority, title, cluster, stack,
    case_id, session_id, actor, resolved_action, seconds_open, target_role, opened, log_partition, position
)
WITH intDiv(number, 2) AS pair, number % 2 = 1 AS closes, pair % 6 AS what,
    fromUnixTimestamp64Micro({start:Int64} + toInt64(number * {apart:Float64}), 'UTC') AS at
SELECT
    concat('ws_', leftPad(toString(pair % 16), 2, '0')), at, at, concat('/pipelines/deploy evt-', hex(number)),
    [['waitpoint.created', 'run.failed', 'session.waiting', 'plan.proposed', 'action.requested', 'message.posted'],
     ['waitpoint.approved', 'run.recovered', 'session.completed', 'plan.approved', 'action.confirmed',
      'message.withdrawn']][closes + 1][what + 1],
    concat('wp_', hex(pair)), concat('ibx_', leftPad(lower(hex(pair)), 32, '0')),
    ['waitpoint', 'failed_run', 'session_waiting', 'plan_approval', 'pending_action', 'message'][what + 1],
    ['low', 'normal', 'high', 'urgent'][pair % 4 + 1], concat('Review production deploy ', toString(pair % 1000)),
    concat('prod-', toString(cityHash64(pair) % 60)), concat('web-', toString(pair % 20)),
    concat('case_', toString(intDiv(pair, 320)), '_', toString(pair % 16)), concat('ses_', toString(pair % 9000)),
    if(closes, concat('user_', toString(cityHash64(pair) % 200)), ''), if(closes, 'approved', ''),
    if(closes, cityHash64(pair) % 7200 * 1.5, NULL), ['OWNER', 'ADMIN', ''][intDiv(pair, 16) % 3 + 1], NOT closes,
    pair % 8, number
FROM numbers({first:UInt64}, {count:UInt64})
"""
# Replacements that make a query use the table without hourly sums.
_RAW = {
    "sum(hourly.opened)": "countIf(opened)", "sum(hourly.closed)": "count(seconds_open)",
    "sum(hourly.open_change)": "toInt64(countIf(opened)) - toInt64(count(seconds_open))",
    "quantilesTDigestMerge(0.5, 0.9, 0.99)(seconds_open_state)": "quantilesTDigest(0.5, 0.9, 0.99)(seconds_open)",
    "FROM items_hourly AS hourly": "FROM raw.activity", "FROM activity": "FROM raw.activity",
}

Question = Callable[[Any], Awaitable[Any]]


class Tables:
    """Replaces the HistoryClient of an edge. `raw`: queries the table without the schema."""

    def __init__(self, engine: Any, raw: bool) -> None:
        self._engine, self._raw = engine, raw

    async def query(self, sql: str, reader: Reader, **parameters: Any) -> Sequence[Any]:
        given = parameters | {"ws": reader.workspace_id, "user": reader.user, "roles": sorted(reader.roles)}
        sql = sql.replace("$SEES", CAN_SEE_SQL)
        if self._raw:
            for ours, theirs in _RAW.items():
                sql = sql.replace(ours, theirs)
        # Without the condition cache of ClickHouse, which would make repeated runs of the bench faster.
        result = self._engine.query(sql, given, settings={"optimize_read_in_order": 0, "use_query_condition_cache": 0})
        return result.result_rows  # type: ignore[no-any-return]

    async def query_all(self, reader: Reader, *questions: tuple[str, dict[str, Any]]) -> list[Sequence[Any]]:
        return [await self.query(sql, reader, **given) for sql, given in questions]


def questions(rows: int) -> dict[str, Question]:
    """Returns the queries by name. Their periods end at the time of the last row."""
    def insight(days: int) -> Question:
        steps = steps_of(days * DAY, NOW)

        async def asked(client: Any) -> Any:
            return render_insights(await fetch_insights(client, READER, steps), steps)
        return asked

    case = f"case_{rows // 1280}_3"  # in the middle of the period
    return {
        "insights of 24 h": insight(1), "insights of 7 d": insight(7), "insights of 90 d": insight(90),
        "activity of 30 d": lambda client: fetch_activity(client, READER, 30 * DAY, NOW),
        "a page of a case": lambda client: fetch_events(
            client, READER, case, 20, None, Workspace(READER.workspace_id, {})),
    }


def fill(engine: Any, rows: int) -> None:
    engine.command("USE attn")
    apart = SPAN / rows
    for first in range(0, rows, CHUNK):
        engine.command(_FILL, parameters={
            "start": NOW - SPAN, "apart": apart, "first": first, "count": min(CHUNK, rows - first)})
    engine.command("CREATE DATABASE raw")
    engine.command("CREATE TABLE raw.activity ENGINE = MergeTree ORDER BY tuple() AS "
                   "SELECT *, hour FROM attn.activity ORDER BY position")  # in the order of insertion
    for table in ("attn.activity", "attn.items_hourly", "raw.activity"):
        engine.command(f"OPTIMIZE TABLE {table} FINAL")


def measure(question: Question, archive: Tables) -> tuple[float, float, Any]:
    """Returns the median CPU and wall seconds, and the answer."""
    answer = asyncio.run(question(archive))  # type: ignore[arg-type]
    runs = []
    for _ in range(RUNS):
        cpu, wall = cpu_seconds(), time.perf_counter()
        asyncio.run(question(archive))  # type: ignore[arg-type]
        runs.append((cpu_seconds() - cpu, time.perf_counter() - wall))
    return statistics.median(cpu for cpu, _ in runs), statistics.median(wall for _, wall in runs), answer


def same(one: Any, other: Any) -> bool:
    """Returns whether two answers are equal. Quantiles may differ by 5 %: they are estimates."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return abs(one - other) <= 0.05 * max(abs(one), abs(other), 60.0)
    return bool(one == other)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench insights", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    rows = max(10_000, parser.parse_args().rows)
    table = Table(title=f"{rows:,} rows, 16 workspaces, 90 days; medians of {RUNS} runs, milliseconds")
    for name in ("", "CPU", "wall", "raw: CPU", "raw: wall", "raw / attn, CPU"):
        table.add_column(name, justify="right")
    with tempfile.TemporaryDirectory() as directory:
        engine = client.connect(Settings(data_dir=Path(directory), _env_file=None))
        migrate.apply(engine, "attn")
        fill(engine, rows)
        for name, question in questions(rows).items():
            cpu, wall, answer = measure(question, Tables(engine, raw=False))
            raw_cpu, raw_wall, raw = measure(question, Tables(engine, raw=True))
            if not answer or not same(answer, raw):
                raise SystemExit(f"{name}: the answers from the two tables differ")
            table.add_row(name, *(f"{seconds * 1e3:,.0f}" for seconds in (cpu, wall, raw_cpu, raw_wall)),
                          f"{raw_cpu / cpu:.1f}")
        engine.close()
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
