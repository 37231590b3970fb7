"""`python -m bench edge`: memory and CPU of an edge per row, compared with a plain dict of the same bytes.

A file has a million random rows as a fold writes them, in workspaces of different sizes. Each variant reads the file in
its own process, which has the memory and CPU of this variant only. The dict is the lower bound. With `--broker`, an
edge also loads the rows from a broker, and the bench measures the time until the edge is ready.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
from rich.console import Console
from rich.table import Table

from api.edge.initial_state import BatchAssembler, InitialState
from api.readmodel.indexes import FAMILIES
from api.readmodel.replica import Replica
from bench.edge import cold_start as edge_start
from schemas.log import Data, Sender
from schemas.scalars import SECOND, parse_timestamp
from schemas.topics import partition_of
from schemas.views import (
    ActivityRow,
    DraftEditor,
    DraftRow,
    ItemRow,
    MarkRow,
    PositionRow,
    PreferencesRow,
    Row,
    SeenRow,
    encode_row,
    position_key,
)
from streams.core.domain.keys import (
    activity_key,
    draft_key,
    item_id,
    item_key,
    mark_key,
    preferences_key,
    seen_key,
)

__all__ = ["PARTITIONS", "main", "records"]

PARTITIONS = 8
_BATCH = 200  # rows of a batch, which ends with a position row
_BEGIN = parse_timestamp("2026-05-20T08:00:00Z")
_KINDS = ("waitpoint", "escalation", "failed_run", "message", "session_waiting", "plan_approval", "pending_action")
_ROLES = ("OWNER", "ADMIN", "MANAGER", "MEMBER", "VIEWER")
_PRIORITIES = ("normal", "normal", "normal", "low", "high", "urgent")
_MADE = {"item": 62, "mark": 8, "draft": 5, "activity": 8, "preferences": 2, "seen": 15}

_Record = tuple[int, bytes, bytes]


class Rows:
    """Random rows from a fixed seed. A few workspaces are large, most are small."""

    def __init__(self, count: int) -> None:
        self._random = random.Random(7)
        self._count = count
        self._workspaces = max(1, count // 1000)

    def __iter__(self) -> Iterator[tuple[str, bytes, Row]]:
        names, weights = tuple(_MADE), tuple(_MADE.values())
        for number in range(self._count):
            ws = f"ws_{int(self._workspaces * self._random.random() ** 3)}"
            yield (ws, *getattr(self, f"_{self._random.choices(names, weights)[0]}")(ws, number))

    def _user(self) -> str:
        return f"user_{self._random.randrange(200)}"

    def _item(self, ws: str, number: int) -> tuple[bytes, Row]:
        pick, at = self._random.choice, _BEGIN + number * SECOND // 10
        kind, case = pick(_KINDS), f"case_{number // 3}"
        user, role = pick(((None, None), (None, pick(_ROLES)), (self._user(), None)))
        row = ItemRow(
            id=item_id(ws, kind, str(number)), ws=ws, kind=kind, source_id=f"{kind}_{number}", rev=number,
            state=pick(("unread", "read", "resolved", "resolved", "resolved")), priority=pick(_PRIORITIES),
            blocking=pick((True, False)), target_user_id=user, target_role=role, created_at=at, due_at=at + SECOND,
            updated_at=at, wake=at + SECOND, periods=[at], base=(at, f"{number:024x}"), touched=at, group=None,
            data=Data(
                title=f"{kind} {number} needs a decision on the roll-out", body_md="What happened, in a few words." * 4,
                cluster=f"prod-{self._random.randrange(12)}", stack="web", case_id=case, case_title=f"Case {case}",
                sender=Sender("agent", "ag_1", "Daniel"), payload=msgspec.Raw(b'{"step":3,"status":"In Progress"}')))
        return item_key(row.id), row

    def _mark(self, ws: str, number: int) -> tuple[bytes, Row]:
        item, user = item_id(ws, "message", str(number)), self._user()
        return mark_key(item, user), MarkRow(ws, item, user, 0, None, number)

    def _draft(self, ws: str, number: int) -> tuple[bytes, Row]:
        editors = [DraftEditor("user", self._user(), "Ann", _BEGIN), DraftEditor("ai", "ag_1", "Daniel", _BEGIN)]
        return draft_key(ws, str(number)), DraftRow(
            ws=ws, draft_id=str(number), rev=number, title=f"Draft {number}", owner=self._user(), touched_at=_BEGIN,
            ai_at=_BEGIN, editors=editors, touched=_BEGIN)

    def _activity(self, ws: str, number: int) -> tuple[bytes, Row]:
        return activity_key(number.to_bytes(16, "big")), ActivityRow(
            ws=ws, id=str(number), type="plan.approved", at=_BEGIN + number, item=item_id(ws, "plan", str(number)),
            kind="plan_approval", target_user_id=self._user(), title=f"Plan {number}", by=self._user(), rev=number)

    def _preferences(self, ws: str, number: int) -> tuple[bytes, Row]:
        user = f"user_{number}"
        return preferences_key(ws, user), PreferencesRow(ws, user, [], [], number)

    def _seen(self, ws: str, number: int) -> tuple[bytes, Row]:
        return seen_key(0, number), SeenRow("A" * 320, _BEGIN)


def records(count: int) -> Iterator[_Record]:
    """Yields partition, key and value of each record. Every batch ends with its position row."""
    waiting = [0] * PARTITIONS
    for number, (ws, key, row) in enumerate(Rows(count)):
        partition = partition_of(ws, PARTITIONS)
        yield partition, key, encode_row(row)
        waiting[partition] += 1
        if waiting[partition] == _BATCH or number >= count - 1:
            waiting[partition] = 0
            yield partition, position_key(partition), encode_row(PositionRow(next=number + 1, clock=_BEGIN))
    for partition in range(PARTITIONS):
        yield partition, position_key(partition), encode_row(PositionRow(next=count + 1, clock=_BEGIN))


def _write(path: Path, count: int) -> None:
    with path.open("wb") as file:
        for partition, key, value in records(count):
            file.write(b"%d %d %d\n" % (partition, len(key), len(value)) + key + value)


def _read(path: Path) -> Iterator[_Record]:
    with path.open("rb", 1 << 20) as file:
        while head := file.readline():
            partition, key, value = map(int, head.split())
            yield partition, file.read(key), file.read(value)


def _as_dict(path: Path) -> dict[bytes, bytes]:
    return {key: value for _, key, value in _read(path)}


def _loaded(path: Path) -> Replica:
    """Loads the rows as an edge does. They are old: the edge keeps no batches for feeds that resume."""
    loading, assemblers = InitialState(1 << 20, 2), [BatchAssembler(number) for number in range(PARTITIONS)]
    for partition, key, value in _read(path):
        batch = assemblers[partition].add(key, value, 1)
        if batch is not None:
            loading.add(batch)
    loading.advance_horizon(2)
    state, _ = loading.finish()
    replica = Replica(PARTITIONS)
    for partition in list(state):
        replica.load(partition, *state.pop(partition))
    return replica


def _asked(path: Path, families: tuple[str, ...], share: float = 1.0) -> Replica:
    """Loads the rows and builds the indexes of a random share of the workspaces, as first requests do."""
    replica, chance = _loaded(path), random.Random(1)
    for name in list(replica._workspaces):
        if chance.random() < share:
            space = replica.workspace(name)
            for family in families:
                space.ensure_family(family)
    return replica


VARIANTS: dict[str, Callable[[Path], Any]] = {
    "plain dict of all rows": _as_dict,
    "edge, no workspace requested": _loaded,
    "edge, every tenth workspace requested": lambda path: _asked(path, (), 0.1),
    "edge, all workspaces requested": lambda path: _asked(path, ()),
    "edge, all, with every filter, list and case": lambda path: _asked(path, tuple(FAMILIES)),
}


def _measure(variant: str, path: Path) -> None:
    """Loads one variant in this process, and prints its CPU seconds, memory in bytes, and rows as JSON."""
    gc.freeze()
    gc.disable()  # `--broker` measures garbage collection as it runs in a real edge
    before, begun = psutil.Process().memory_info().rss, time.process_time()
    held = VARIANTS[variant](path)
    cpu = time.process_time() - begun
    gc.collect()
    weight = psutil.Process().memory_info().rss - before
    print(json.dumps({"cpu": cpu, "rss": weight, "rows": len(held) if isinstance(held, dict) else held.row_count()}))


def _run(variant: str, path: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.edge.bench", "--child", variant, "--file", str(path)]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    return dict(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench edge", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--broker", action="store_true", help="also measure an edge that loads the rows from a broker")
    parser.add_argument("--kafka", default="", help="address of the broker; default: an embedded one")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        _measure(given.child, given.file)
        return
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "rows"
        _write(path, given.rows)
        table = Table(title=f"{given.rows:,} rows, {path.stat().st_size / given.rows:.0f} bytes each")
        for name in ("variant", "rows", "bytes/row", "× dict", "CPU µs/row"):
            table.add_column(name, justify="left" if name == "variant" else "right")
        floor = 0.0
        for variant in VARIANTS:
            used = _run(variant, path)
            floor = floor or used["rss"]
            table.add_row(variant, f"{used['rows']:,}", f"{used['rss'] / given.rows:.0f}",
                          f"{used['rss'] / floor:.2f}", f"{used['cpu'] / given.rows * 1e6:.1f}")
        console.print(table)
        if given.broker:
            console.print(asyncio.run(edge_start.measure(_read(path), PARTITIONS, given.kafka, Path(scratch))))


if __name__ == "__main__":
    main()
