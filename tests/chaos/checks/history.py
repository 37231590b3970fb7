"""Queries the history in a process of its own: `python -m chaos.checks.history DIRECTORY` (of chdb)."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import clickhouse_connect

from schemas.facts import Fact, Outcome

__all__ = ["ask", "differences"]

_HOUR = 3_600_000_000
_SHOWN = 5
_QUERIES = {
    "events": "SELECT workspace_id, event_id, type FROM attn.activity",
    "hours": "SELECT workspace_id, toUnixTimestamp64Second(hour), type, kind, sum(facts), sum(closed) "
             "FROM attn.activity_hourly GROUP BY ALL",
}


async def ask(data_dir: Path) -> dict[str, list[list[Any]]]:
    """Returns the rows of `activity` and the sums of `activity_hourly`. No other process may use the directory."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "chaos.checks.history", str(data_dir / "clickhouse"),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )
    output, complaint = await child.communicate()
    if child.returncode:
        raise RuntimeError(f"the history cannot be queried: {complaint.decode()[-2000:]}")
    return dict(json.loads(output.splitlines()[-1]))


def differences(found: dict[str, list[list[Any]]], facts: Iterable[Fact | Outcome]) -> list[str]:
    """Returns missing, repeated and miscounted facts. `facts`: those of one fold of the log."""
    wanted = [fact for fact in facts if isinstance(fact, Fact) and not fact.derived]
    rows, events = Counter(map(tuple, found["events"])), Counter((one.ws, one.event_id, one.type) for one in wanted)
    hours: Counter[tuple[Any, ...]] = Counter()
    for one in wanted:
        key = (one.ws, one.time // _HOUR * 3600, one.type, one.kind or "")
        hours[(*key, "facts")] += 1
        hours[(*key, "closed")] += one.seconds_open is not None
    summed: Counter[tuple[Any, ...]] = Counter()
    for ws, hour, kind_of_event, kind, count, closed in found["hours"]:
        summed[(ws, hour, kind_of_event, kind, "facts")] += count
        summed[(ws, hour, kind_of_event, kind, "closed")] += closed
    return [*_compare("activity", rows, events), *_compare("activity_hourly", summed, hours)]


def _compare(table: str, found: Counter[Any], wanted: Counter[Any]) -> list[str]:
    keys = sorted(key for key in found.keys() | wanted.keys() if found[key] != wanted[key])
    lines = [f"history {table} {key}: {found[key]}, the facts have {wanted[key]}" for key in keys[:_SHOWN]]
    return [*lines, *([f"history {table}: {len(keys)} differ in total"] if len(keys) > _SHOWN else [])]


def main() -> None:
    client = clickhouse_connect.get_client(interface="chdb", path=sys.argv[1])
    answers = {name: [list(row) for row in client.query(sql).result_rows] for name, sql in _QUERIES.items()}
    client.close()
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
