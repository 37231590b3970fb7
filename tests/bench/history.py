"""CPU of the history per row, compared with a bare insert: `python -m bench history [--rows N] [--batch N]`.

Four variants insert the same rows into the same kind of table, in batches of the same size, in turns on one engine:

    plain     column insert of clickhouse-connect from columns that exist already, into one table
    bare      the same insert, with the hourly sums that ClickHouse computes from every insert
    writer    from the bytes of the records: decode, deduplicate, build columns, and insert as the history does
    history   the whole process, from Kafka to ClickHouse and to the committed offsets

All variants use the same settings and get each batch right before their turn. Ratios compare variants of one turn; the
figures are medians of the turns. The engine (chdb) runs in this process, so every variant contains its CPU. The last
lines of the output show the mean CPU of the steps of the writer.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aiokafka import AIOKafkaProducer
from rich.console import Console
from rich.table import Table

from bench.harness.subprocesses import cpu_seconds
from ops.embedded.broker import EmbeddedBroker
from schemas.facts import Fact, encode_fact
from schemas.settings import Settings
from schemas.topics import FACTS, partition_of
from streams.history import metrics
from streams.history.clickhouse import client, migrate
from streams.history.clickhouse.columns import COLUMNS, columns
from streams.history.clickhouse.repository import INSERT_SETTINGS, ActivityRepository
from streams.history.main import run
from streams.history.writer import PendingBatch, Writer
from streams.kafka import topics

ROUNDS = 10
PARTITIONS = 4
_BEGIN = 1_750_000_000_000_000
_TYPES = (
    ("waitpoint.created", "waitpoint"), ("waitpoint.approved", "waitpoint"), ("run.failed", "failed_run"),
    ("run.recovered", "failed_run"), ("session.completed", "session_waiting"), ("plan.approved", "plan_approval"),
)


def facts(count: int, start: int = 0) -> Iterator[Fact]:
    """Yields realistic facts of about 500 bytes: 16 workspaces and 6 types; half of them close an item."""
    for number in range(start, start + count):
        kind = _TYPES[number % len(_TYPES)]
        closes = number % 2 == 1
        yield Fact(
            ws=f"ws_{number % 16:02}", pos=number, index=0, event_id=f"/pipelines/deploy evt-{number:012x}",
            time=_BEGIN + number * 40_000, at=_BEGIN + number * 40_000 + 1500, type=kind[0],
            subject=f"wp_tok_{number // 2:010x}", item=f"ibx_{number // 2:026x}", kind=kind[1],
            priority=("low", "normal", "high", "urgent")[number % 4], title=f"Review production deploy {number % 1000}",
            cluster=f"prod-us-east-{number % 8}", stack=f"web-{number % 20}", case_id=f"case_{number % 5000}",
            session_id=f"ses_{number % 9000}", actor=f"user_{number % 200}" if closes else None,
            resolved_action="approved" if closes else None, seconds_open=number % 7200 * 1.5 if closes else None,
            target_role=("OWNER", "ADMIN", None)[number % 3],
        )


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Returns the CPU and wall seconds of `work()`."""
    cpu, wall = cpu_seconds(), time.perf_counter()
    work()
    return cpu_seconds() - cpu, time.perf_counter() - wall


def connect(settings: Settings, databases: Sequence[str] = ("attn",), real: Any = client.connect) -> Any:
    """Returns an engine without merges. ClickHouse merges parts at any time, and the cost is the same for each variant.
    """
    engine = real(settings)
    for database in databases:
        migrate.apply(engine, database)
    engine.command("SYSTEM STOP MERGES")  # of all existing tables
    return engine


class Bench:
    """One engine with a table for each variant."""

    def __init__(self, directory: Path, rows: int, batch: int) -> None:
        self.rows, self.batch = rows, batch
        self.client = connect(Settings(data_dir=directory, _env_file=None), ("bare", "writer"))
        self.client.command("CREATE TABLE bare.plain AS bare.activity")
        self.client.command("SYSTEM STOP MERGES bare.plain")
        self.writer = Writer(ActivityRepository(self.client, "writer", local=True), days=30)
        self.writer.open([0])
        self.types = self.client.create_insert_context("bare.activity", column_names=COLUMNS).column_types
        self.steps: dict[str, float] = {}  # step of the writer -> CPU seconds
        self._round = 0

    def turn(self) -> dict[str, tuple[float, float]]:
        """Runs each variant that needs no broker once. Returns their CPU and wall seconds."""
        starts = range(self._round * self.rows, (self._round + 1) * self.rows, self.batch)
        batches = [list(facts(self.batch, start)) for start in starts]
        self._round += 1
        gc.collect()
        gc.freeze()
        ways: list[tuple[str, Callable[[list[Fact]], tuple[float, float]]]] = [
            ("plain", lambda batch: self._insert("bare.plain", batch)),
            ("bare", lambda batch: self._insert("bare.activity", batch)),
            ("writer", self._write),
        ]
        first = self._round % len(ways)  # the order changes, so that no variant always follows the same other one
        used = {}
        for name, way in ways[first:] + ways[:first]:
            measured = [way(batch) for batch in batches]
            used[name] = sum(cpu for cpu, _ in measured), sum(wall for _, wall in measured)
        return used

    def _insert(self, table: str, batch: list[Fact]) -> tuple[float, float]:
        data = columns(batch, [0] * len(batch))
        return timed(lambda: self.client.insert(
            table, data, column_names=COLUMNS, column_types=self.types, column_oriented=True,
            settings=INSERT_SETTINGS | {"insert_deduplication_token": uuid.uuid4().hex},
        ))

    def _write(self, batch: list[Fact]) -> tuple[float, float]:
        records = [SimpleNamespace(value=encode_fact(fact), offset=fact.pos, timestamp=0) for fact in batch]
        return timed(lambda: self._written(records))

    def _written(self, records: Sequence[Any]) -> None:
        batch, begun = PendingBatch(), cpu_seconds()
        batch.add(0, records)
        decoded = cpu_seconds()
        plan = self.writer.plan(batch)
        admitted = cpu_seconds()
        self.writer.write(plan)
        ended = cpu_seconds()
        for name, spent in (("decode", decoded - begun), ("admit", admitted - decoded), ("insert", ended - admitted)):
            self.steps[name] = self.steps.get(name, 0.0) + spent

    def close(self) -> None:
        self.client.close()


async def whole(directory: Path, rows: int, batch: int) -> tuple[float, float]:
    """Returns CPU and wall seconds of `attn history` for `rows` rows that are in the topic, without start and stop."""
    broker = EmbeddedBroker(directory)
    await broker.start()
    try:
        settings = Settings(
            kafka=broker.bootstrap, data_dir=directory, log_partitions=PARTITIONS, history_batch_rows=batch,
            _env_file=None,
        )
        await topics.ensure_topics(settings)
        async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap, linger_ms=5) as producer:
            await _send(producer, facts(rows + batch))
        client.connect = connect
        before, stop = _rows(), asyncio.Event()
        running = asyncio.create_task(run(settings, stop))
        await _reach(before + 1)
        first, cpu, wall = _rows() - before, cpu_seconds(), time.perf_counter()
        await _reach(before + rows + batch)
        share = rows / (rows + batch - first)
        used = (cpu_seconds() - cpu) * share, (time.perf_counter() - wall) * share
        stop.set()
        await running
        return used
    finally:
        await broker.stop()


def _rows() -> float:
    (metric,) = metrics.ROWS.collect()
    return next(sample.value for sample in metric.samples if sample.name.endswith("_total"))


async def _reach(rows: float) -> None:
    async with asyncio.timeout(300):
        while _rows() < rows:
            await asyncio.sleep(0.02)


async def _send(producer: AIOKafkaProducer, sent: Iterator[Fact]) -> None:
    for fact in sent:
        await producer.send(FACTS, encode_fact(fact), partition=partition_of(fact.ws, PARTITIONS))
    await producer.flush()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench history", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=50_000, help="rows of a turn")
    parser.add_argument("--batch", type=int, default=5000, help="rows of an insert")
    given = parser.parse_args()
    rows = max(1, given.rows // given.batch) * given.batch
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory), rows, given.batch)
        bench.turn()  # warm-up: column types and caches
        bench.steps.clear()
        turns = [bench.turn() for _ in range(ROUNDS)]
        bench.close()
    with tempfile.TemporaryDirectory() as directory:
        history = asyncio.run(whole(Path(directory), rows, given.batch))
    _show([turn | {"history": history} for turn in turns], bench.steps, rows, given.batch)


def _show(
    turns: Sequence[dict[str, tuple[float, float]]], steps: dict[str, float], rows: int, batch: int
) -> None:
    table = Table(title=f"{rows} rows in batches of {batch}; medians of {ROUNDS} turns, `history` one turn")
    for name in ("", "CPU µs/row", "rows/s", "CPU of bare / this", "time of bare / this"):
        table.add_column(name, justify="right")
    median = statistics.median
    for name in turns[0]:
        table.add_row(
            name, f"{median(turn[name][0] for turn in turns) / rows * 1e6:.1f}",
            f"{rows / median(turn[name][1] for turn in turns):,.0f}",
            *(f"{median(turn['bare'][part] / turn[name][part] for turn in turns):.2f}" for part in (0, 1)),
        )
    for name, seconds in steps.items():
        table.add_row(f"writer: {name}", f"{seconds / rows / len(turns) * 1e6:.1f}", "", "", "")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
