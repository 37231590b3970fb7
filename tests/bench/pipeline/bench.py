"""Bench: CPU per event of ingest and fold, compared with bare loops, a naive Faust table agent and Quix Streams.

Each candidate has its own process, which is idle before its events are produced. The bench measures its CPU from then
until the last event is processed. The cost of ingest is `ingest + fold` minus `fold` with packs of the same size.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import logging
import sys
import tempfile
import time
from collections.abc import AsyncIterator

from bench.harness import brokers as grounds
from bench.harness.brokers import Ground
from bench.harness.subprocesses import Figures, environment, measure
from bench.harness.workload import SOURCE, packs, produce, source_events
from bench.pipeline.baselines import EVENTS
from schemas.topics import LOG

__all__ = ["main"]

PARTITIONS = 4
BARE, NAIVE = "bare aiokafka getmany→send", "naive Faust table agent"

Result = tuple[str, Figures, int]  # candidate, its figures, number of events


async def baselines(ground: Ground, events: int) -> AsyncIterator[Result]:
    """Yields the results of the baselines. They share one broker; each writes to its own topic."""
    broker = await ground.fresh()
    await grounds.make(ground, broker, [EVENTS, *(f"bench.{name}" for name in ("bare", "unsafe", "naive"))], PARTITIONS)
    await produce(broker, EVENTS, source_events(events))
    module, few = "bench.pipeline.baselines", events // 4  # fewer for slow candidates: the cost per event is the same
    yield f"{BARE}, acks=1", await measure(module, "bare", broker, "bench.unsafe", events, "1"), events
    yield BARE, await measure(module, "bare", broker, "bench.bare", events, "all"), events
    with tempfile.TemporaryDirectory() as scratch:
        yield NAIVE, await measure(
            module, "naive", broker, "bench.naive", few, PARTITIONS, ground.replication, scratch), few
        if importlib.util.find_spec("quixstreams"):
            for guarantee in ("at-least-once", "exactly-once"):
                yield f"Quix Streams, RocksDB, {guarantee}", await measure(
                    module, "quix", broker, f"bench.{guarantee}", events, ground.replication,
                    f"{scratch}/{guarantee}", guarantee), events


async def attn(ground: Ground, events: int) -> AsyncIterator[Result]:
    """Yields the results of workers of attn, each on an empty broker."""
    for size in (1, 20, 500):
        broker, count = await ground.fresh(), events // 4 if size == 1 else events
        records = list(packs(count, size, PARTITIONS, time.time_ns() // 1000))
        yield f"fold, packs of {size}", await measure(
            "bench.harness.workers", "fold", "log", env=_settings(ground, broker),
            feed=lambda broker=broker, records=records: produce(broker, LOG, records)), count
    broker = await ground.fresh()
    yield "ingest + fold", await measure(
        "bench.harness.workers", "fold", "sources", env=_settings(ground, broker),
        feed=lambda: produce(broker, SOURCE, source_events(events))), events


def _settings(ground: Ground, broker: str) -> dict[str, str]:
    return environment(
        kafka=broker, replication=ground.replication, log_partitions=PARTITIONS, source_partitions=PARTITIONS)


def table(results: list[Result]) -> str:
    """Returns the results as a Markdown table, with ratios to the baselines."""
    costs = {name: figures.cpu / count * 1e6 for name, figures, count in results}
    lines = ["| | CPU µs/event | events/s | × bare | better than naive |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {name} | {costs[name]:.1f} | {count / figures.wall:,.0f} | {costs[name] / costs[BARE]:.2f} "
        f"| {costs[NAIVE] / costs[name]:.1f}× |" for name, figures, count in results
    ]
    return "\n".join(lines)


async def _run(events: int, kafka: str, replication: int) -> None:
    async with grounds.ground(kafka, replication) as ground:
        results = [result async for result in baselines(ground, events)]
        results += [result async for result in attn(ground, events)]
    sys.stdout.write(table(results) + "\n")


def main() -> None:
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # hides warnings about new topics without a leader
    parser = argparse.ArgumentParser(prog="python -m bench pipeline", description=__doc__)
    parser.add_argument("--events", type=int, default=60_000)
    grounds.add_options(parser)
    given = parser.parse_args()
    asyncio.run(_run(given.events, given.kafka, given.replication))


if __name__ == "__main__":
    main()
