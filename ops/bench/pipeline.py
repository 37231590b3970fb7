"""Bench: CPU per event of ingest and fold, beside a bare aiokafka loop and a naive Faust table agent, on one broker.

Each candidate is a process of its own that is up and idle before its events are produced; its CPU from then until the
last event is done is what counts. `ingest + fold` minus `fold` at the packs that ingest makes is ingest.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from ops.bench.baselines import NAIVE_TOPIC, cpu_seconds
from ops.bench.load import SOURCE, packs, produce, source_events
from schemas.settings import Settings
from schemas.topics import LOG

__all__ = ["main"]

PARTITIONS = 4
TIMEOUT = 180.0


async def run_worker(bootstrap: str, source_records: int, log_records: int) -> None:
    """The child: a whole worker. Says `ready`, works until as many records are done, prints `cpu wall`."""
    from streams import topics
    from streams.app import build

    settings = Settings(kafka=bootstrap, log_partitions=PARTITIONS, source_partitions=PARTITIONS, _env_file=None)
    await topics.ensure(settings)
    worker = build(settings)
    await worker.start()
    while not worker.ready:  # noqa: ASYNC110 - a bench may poll
        await asyncio.sleep(0.05)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    cpu, wall = cpu_seconds(), time.perf_counter()

    async def done() -> bool:
        if sum(worker.intake.done.values()) < source_records:
            return False
        if log_records:
            return sum(worker.shards.done.values()) >= log_records
        ends = await worker._fold_group.ends(shard.tp for shard in worker.shards.owned.values())
        return bool(ends) and all(worker.shards.done.get(tp, 0) >= end for tp, end in ends.items())

    while not await done():
        if worker.alarm.reason:
            sys.exit(worker.alarm.reason)
        await asyncio.sleep(0.05)
    sys.stdout.write(f"{cpu_seconds() - cpu} {time.perf_counter() - wall}\n")
    sys.stdout.flush()
    os._exit(0)


async def measure(module: str, args: list[str], feed: Callable[[], Awaitable[object]] | None) -> tuple[float, float]:
    """Starts a child, feeds it once it is ready, returns its (CPU seconds, wall seconds)."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *args, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    try:
        async with asyncio.timeout(TIMEOUT):
            if feed is not None:
                while (line := await child.stdout.readline()) and line != b"ready\n":
                    pass
                await feed()
            out, err = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
    try:
        cpu, wall = out.split()[-2:]
        return float(cpu), float(wall)
    except ValueError:
        raise SystemExit(f"{module} {args} gave no figures: {err.decode()[-2000:]}") from None


async def _fresh(bootstrap: str, names: list[str]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names])
    finally:
        await admin.close()


async def bench(bootstrap_for: Callable[[], Awaitable[str]], events: int) -> list[tuple[str, float, float]]:
    """(name, CPU µs an event, events a second) of each candidate, baselines first."""
    found = []

    def add(name: str, result: tuple[float, float], count: int = events) -> None:
        found.append((name, result[0] / count * 1e6, count / result[1]))

    broker = await bootstrap_for()
    await _fresh(broker, [NAIVE_TOPIC, "bench.bare", "bench.naive"])
    await produce(broker, NAIVE_TOPIC, source_events(events))
    baselines = "ops.bench.baselines"
    add("bare aiokafka getmany→send", await measure(baselines, ["bare", broker, NAIVE_TOPIC, "bench.bare", str(events)],
                                                   None))
    few = events // 4  # the naive agent is slow; its cost an event does not depend on how many
    with tempfile.TemporaryDirectory() as scratch:
        args = ["naive", broker, NAIVE_TOPIC, "bench.naive", str(few), str(PARTITIONS), scratch]
        add("naive Faust table agent", await measure(baselines, args, None), few)
    for size in (1, 20, 500):
        count = events // 4 if size == 1 else events
        broker = await bootstrap_for()
        records = list(packs(count, size, PARTITIONS, time.time_ns() // 1000))
        add(f"fold, packs of {size}", await measure(
            "ops.bench.pipeline", ["--child", broker, "0", str(len(records))],
            lambda broker=broker, records=records: produce(broker, LOG, records)), count)
    broker = await bootstrap_for()
    add("ingest + fold", await measure(
        "ops.bench.pipeline", ["--child", broker, str(events), "0"],
        lambda: produce(broker, SOURCE, source_events(events))))
    return found


def table(found: list[tuple[str, float, float]]) -> str:
    """The results as a Markdown table, with ratios to the baselines."""
    by_name = {name: cpu for name, cpu, _ in found}
    bare, naive = by_name["bare aiokafka getmany→send"], by_name["naive Faust table agent"]
    lines = ["| | CPU µs/event | events/s | × bare | better than naive |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {name} | {cpu:.1f} | {rate:,.0f} | {cpu / bare:.2f} | {naive / cpu:.1f}× |" for name, cpu, rate in found
    ]
    return "\n".join(lines)


async def _run(events: int, kafka: str | None) -> None:
    from ops.broker import EmbeddedBroker

    running: list[EmbeddedBroker] = []

    async def fresh() -> str:
        """A broker of its own for every candidate: nothing of another one's is left in it."""
        if kafka is not None:
            return kafka
        for old in running:
            await old.stop()
        running[:] = [EmbeddedBroker(Path(tempfile.mkdtemp(prefix="attn-bench-")))]
        await running[0].start()
        return running[0].bootstrap

    try:
        sys.stdout.write(table(await bench(fresh, events)) + "\n")
    finally:
        for broker in running:
            await broker.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ops.bench pipeline", description=__doc__)
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--child", nargs=3, metavar=("BOOTSTRAP", "SOURCES", "PACKS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        asyncio.run(run_worker(given.child[0], int(given.child[1]), int(given.child[2])))
    else:
        asyncio.run(_run(given.events, None))


if __name__ == "__main__":
    main()
