"""Bench: time and CPU of a worker to load its rows, compared with a raw consumer of the same partitions.

A worker folds generated escalations until attn.views has about `--rows` records. Then three candidates run in turns,
each in its own process: a bare aiokafka consumer reads the partitions to their ends and counts bytes; a worker loads
its assigned partitions until it can fold; `attn worker` runs from its start to the first 200 of /readyz. Finally a
stock Faust table recovers some of the same records, for comparison.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence

import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from bench.harness import brokers as grounds
from bench.harness.brokers import Ground
from bench.harness.subprocesses import Figures, environment, measure
from bench.harness.workload import packs, produce
from bench.recovery.methods import STOCK
from ops.embedded.stack import readiness
from ops.process.ports import free_port
from ops.process.supervisor import role_command
from schemas.scalars import MINUTE
from schemas.topics import LOG, VIEWS

__all__ = ["main"]

PACK = 20  # events of a pack, as ingest packs a steady stream
FRESH = 0.75  # share of events that open an item; this share of the records is not replaced by later ones
SECONDS = 900.0
RAW, LOAD, PROCESS, TABLE = (
    "raw aiokafka consume", "attn, partitions assigned → folding", "`attn worker`, start → ready", "stock Faust table",
)
WAYS = "bench.recovery.methods"


class Bench:
    """The topic, which is filled once, and the measurements on it."""

    def __init__(self, ground: Ground, broker: str, partitions: int) -> None:
        self.partitions = partitions
        self._ground = ground
        self._broker = broker

    def _settings(self, **more: object) -> dict[str, str]:
        return environment(kafka=self._broker, replication=self._ground.replication, log_partitions=self.partitions,
                           source_partitions=1, **more)

    async def fill(self, rows: int) -> None:
        """Lets a worker write the rows: items, most of them with a timer, and the other rows of the fold."""
        events, now = int(rows / (1 + 1 / PACK)), time.time_ns() // 1000
        records = packs(events, PACK, self.partitions, now, subjects=int(events * FRESH),
                        begin=now - MINUTE, step_us=max(1, MINUTE // events))
        await measure("bench.harness.workers", "fold", "log", env=self._settings(),
                      feed=lambda: produce(self._broker, LOG, records), seconds=SECONDS)

    async def size(self) -> int:
        """Returns the number of records in attn.views."""
        partitions = [TopicPartition(VIEWS, number) for number in range(self.partitions)]
        async with AIOKafkaConsumer(bootstrap_servers=self._broker, enable_auto_commit=False) as consumer:
            begins, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        return sum(ends[partition] - begins[partition] for partition in partitions)

    async def raw(self, topic: str = VIEWS) -> Figures:
        return await measure(WAYS, "raw", self._broker, topic, self.partitions, seconds=SECONDS)

    async def load(self) -> Figures:
        return await measure("bench.harness.workers", "load", env=self._settings(), seconds=SECONDS)

    async def process(self) -> Figures:
        """Starts `attn worker` as an operator does. Measures until it is ready."""
        port, begun = free_port(), time.perf_counter()
        child = await asyncio.create_subprocess_exec(
            *role_command("worker"), env=self._settings(metrics_port=port, log_level="ERROR"))
        try:
            async with asyncio.timeout(SECONDS):
                while not (await asyncio.to_thread(readiness, f"http://127.0.0.1:{port}"))[0]:
                    if child.returncode is not None:
                        raise SystemExit(f"attn worker ended with code {child.returncode}")
                    await asyncio.sleep(0.05)
            wall, used = time.perf_counter() - begun, psutil.Process(child.pid)
            times = used.cpu_times()
            return Figures(times.user + times.system, wall, used.memory_info().rss / (1 << 20))
        finally:
            if child.returncode is None:
                child.terminate()
                await child.wait()

    async def table(self, rows: int) -> tuple[Figures, Figures]:
        """Copies some records to the changelog of a stock Faust table. Measures a raw consumer of it, and Faust."""
        await grounds.make(self._ground, self._broker, [STOCK, f"{STOCK}.source"], self.partitions)
        await self._copy(rows // self.partitions)
        with tempfile.TemporaryDirectory() as scratch:
            return await self.raw(STOCK), await measure(
                WAYS, "table", self._broker, STOCK, self.partitions, scratch, seconds=SECONDS)

    async def _copy(self, each: int) -> None:
        """Copies the first `each` records of each partition of attn.views."""
        async with (
            AIOKafkaConsumer(VIEWS, bootstrap_servers=self._broker, auto_offset_reset="earliest",
                             enable_auto_commit=False) as consumer,
            AIOKafkaProducer(bootstrap_servers=self._broker, acks="all", linger_ms=5) as producer,
        ):
            for partition in consumer.assignment():
                left = each
                while left:
                    for records in (await consumer.getmany(partition, timeout_ms=500, max_records=left)).values():
                        left -= len(records)
                        for record in records:
                            await producer.send(STOCK, record.value, record.key, partition.partition)
            await producer.flush()


def _median(rounds: Sequence[Figures]) -> Figures:
    return Figures(*map(statistics.median, zip(*rounds, strict=True)))


def table(rows: int, results: dict[str, list[Figures]], few: int, stock: tuple[Figures, Figures]) -> str:
    """Returns the results as a Markdown table. Ratios compare with the raw consumer of the same records."""
    lines = ["| | CPU µs/row | s per 1M rows | × raw, CPU | × raw, time | MB |", f"|{' --- |' * 6}"]
    raw = _median(results[RAW])
    entries = [(name, rows, _median(each), raw) for name, each in results.items()]
    entries.append((f"{TABLE}, {few:,} rows", few, stock[1], stock[0]))
    lines += [
        f"| {name} | {mine.cpu / count * 1e6:.1f} | {mine.wall / count * 1e6:.1f} | {mine.cpu / base.cpu:.2f} "
        f"| {mine.wall / base.wall:.2f} | {mine.megabytes:,.0f} |" for name, count, mine, base in entries
    ]
    return "\n".join(lines)


async def _run(given: argparse.Namespace) -> None:
    async with grounds.ground(given.kafka, given.replication) as ground:
        bench = Bench(ground, await ground.fresh(), given.partitions)
        await bench.fill(given.rows)
        rows = await bench.size()
        sys.stdout.write(f"{rows:,} records in {given.partitions} partitions of {VIEWS}\n")
        ways = {RAW: bench.raw, LOAD: bench.load, PROCESS: bench.process}
        results: dict[str, list[Figures]] = {name: [] for name in ways}
        for _ in range(given.rounds):
            for name, way in ways.items():
                results[name].append(await way())
        few = min(rows, given.stock_rows) // given.partitions * given.partitions
        sys.stdout.write(table(rows, results, few, await bench.table(few)) + "\n")


def main() -> None:
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # hides warnings about new topics without a leader
    parser = argparse.ArgumentParser(prog="python -m bench recovery", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="approximate number of records in attn.views")
    parser.add_argument("--partitions", type=int, default=4, help="partitions of attn.views, all of one worker")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each candidate; the figures are medians")
    parser.add_argument("--stock-rows", type=int, default=50_000, help="rows for the stock Faust table")
    grounds.add_options(parser)
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
