"""Bench: how long a worker takes to have its rows back, beside a raw consume of the same partitions.

A worker folds made-up escalations until attn.views has about as many records as asked for. Then, each in a process of
its own and by turns: a bare aiokafka consumer reads the partitions to their ends and counts bytes; a worker gets the
partitions and works until it can fold; `attn worker` is timed from its start to the first /readyz that says so. At last
a stock Faust table recovers some of the same records, for the scale.
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

PACK = 20  # events: what ingest makes of a steady stream
FRESH = 0.75  # of the events open an item, the others change one: that much of the topic is still the row of its key
SECONDS = 900.0
RAW, LOAD, PROCESS, TABLE = (
    "raw aiokafka consume", "attn, partitions assigned → folding", "`attn worker`, start → ready", "stock Faust table",
)
WAYS = "bench.recovery.methods"


class Bench:
    """The topic that is filled once, and what is measured on it."""

    def __init__(self, ground: Ground, broker: str, partitions: int) -> None:
        self.partitions = partitions
        self._ground = ground
        self._broker = broker

    def _settings(self, **more: object) -> dict[str, str]:
        return environment(kafka=self._broker, replication=self._ground.replication, log_partitions=self.partitions,
                           source_partitions=1, **more)

    async def fill(self, rows: int) -> None:
        """A worker's own rows: items, most of them with a wake-up to come, and what the fold keeps beside them."""
        events, now = int(rows / (1 + 1 / PACK)), time.time_ns() // 1000
        records = packs(events, PACK, self.partitions, now, subjects=int(events * FRESH),
                        begin=now - MINUTE, step_us=max(1, MINUTE // events))
        await measure("bench.harness.workers", "fold", "log", env=self._settings(),
                      feed=lambda: produce(self._broker, LOG, records), seconds=SECONDS)

    async def size(self) -> int:
        """Records in attn.views."""
        places = [TopicPartition(VIEWS, number) for number in range(self.partitions)]
        async with AIOKafkaConsumer(bootstrap_servers=self._broker, enable_auto_commit=False) as consumer:
            begins, ends = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
        return sum(ends[place] - begins[place] for place in places)

    async def raw(self, topic: str = VIEWS) -> Figures:
        return await measure(WAYS, "raw", self._broker, topic, self.partitions, seconds=SECONDS)

    async def load(self) -> Figures:
        return await measure("bench.harness.workers", "load", env=self._settings(), seconds=SECONDS)

    async def process(self) -> Figures:
        """The command as an operator starts it."""
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
        """Some of the records as the changelog of a stock table: raw consume of them, and Faust."""
        await grounds.make(self._ground, self._broker, [STOCK, f"{STOCK}.source"], self.partitions)
        await self._copy(rows // self.partitions)
        with tempfile.TemporaryDirectory() as scratch:
            return await self.raw(STOCK), await measure(
                WAYS, "table", self._broker, STOCK, self.partitions, scratch, seconds=SECONDS)

    async def _copy(self, each: int) -> None:
        """The first records of each partition of attn.views."""
        async with (
            AIOKafkaConsumer(VIEWS, bootstrap_servers=self._broker, auto_offset_reset="earliest",
                             enable_auto_commit=False) as consumer,
            AIOKafkaProducer(bootstrap_servers=self._broker, acks="all", linger_ms=5) as producer,
        ):
            for place in consumer.assignment():
                left = each
                while left:
                    for records in (await consumer.getmany(place, timeout_ms=500, max_records=left)).values():
                        left -= len(records)
                        for record in records:
                            await producer.send(STOCK, record.value, record.key, place.partition)
            await producer.flush()


def _median(found: Sequence[Figures]) -> Figures:
    return Figures(*map(statistics.median, zip(*found, strict=True)))


def table(rows: int, found: dict[str, list[Figures]], few: int, stock: tuple[Figures, Figures]) -> str:
    """The results as a Markdown table; ratios are to the raw consume of the same records."""
    lines = ["| | CPU µs/row | s per 1M rows | × raw, CPU | × raw, time | MB |", f"|{' --- |' * 6}"]
    raw = _median(found[RAW])
    told = [(name, rows, _median(each), raw) for name, each in found.items()]
    told.append((f"{TABLE}, {few:,} rows", few, stock[1], stock[0]))
    lines += [
        f"| {name} | {mine.cpu / count * 1e6:.1f} | {mine.wall / count * 1e6:.1f} | {mine.cpu / base.cpu:.2f} "
        f"| {mine.wall / base.wall:.2f} | {mine.megabytes:,.0f} |" for name, count, mine, base in told
    ]
    return "\n".join(lines)


async def _run(given: argparse.Namespace) -> None:
    async with grounds.ground(given.kafka, given.replication) as ground:
        bench = Bench(ground, await ground.fresh(), given.partitions)
        await bench.fill(given.rows)
        rows = await bench.size()
        sys.stdout.write(f"{rows:,} records in {given.partitions} partitions of {VIEWS}\n")
        ways = {RAW: bench.raw, LOAD: bench.load, PROCESS: bench.process}
        found: dict[str, list[Figures]] = {name: [] for name in ways}
        for _ in range(given.rounds):
            for name, way in ways.items():
                found[name].append(await way())
        few = min(rows, given.stock_rows) // given.partitions * given.partitions
        sys.stdout.write(table(rows, found, few, await bench.table(few)) + "\n")


def main() -> None:
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # of new topics, whose leaders come a moment later
    parser = argparse.ArgumentParser(prog="python -m bench recovery", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="records of attn.views, about")
    parser.add_argument("--partitions", type=int, default=4, help="partitions they are in; one worker has them all")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured; medians are shown")
    parser.add_argument("--stock-rows", type=int, default=50_000, help="rows for the stock Faust table")
    grounds.add_options(parser)
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
