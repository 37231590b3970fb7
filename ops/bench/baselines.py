"""What the pipeline is measured against: one process each, so that its CPU is its own.

`bare`: aiokafka getmany → send, the least Python can do for an event. `naive`: a stock Faust agent that writes a table
row and sends one record for every event, which is how one would begin.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from typing import Any

import orjson

__all__ = ["NAIVE_TOPIC", "bare", "cpu_seconds", "naive"]

NAIVE_TOPIC = "bench.events"


def cpu_seconds() -> float:
    """CPU of this process so far, its threads included."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def bare(bootstrap: str, source: str, target: str, events: int) -> tuple[float, float]:
    """Consumes `events` records and sends each on. Returns (CPU seconds, wall seconds)."""
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

    consumer = AIOKafkaConsumer(source, bootstrap_servers=bootstrap, auto_offset_reset="earliest",
                                enable_auto_commit=False)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, linger_ms=5)
    await consumer.start()
    await producer.start()
    try:
        await consumer.getmany(timeout_ms=1)
        cpu, wall, seen = cpu_seconds(), time.perf_counter(), 0
        while seen < events:
            acks = []
            for records in (await consumer.getmany(timeout_ms=500, max_records=1000)).values():
                acks += [await producer.send(target, record.value, key=record.key) for record in records]
                seen += len(records)
            await asyncio.gather(*acks)
        return cpu_seconds() - cpu, time.perf_counter() - wall
    finally:
        await consumer.stop()
        await producer.stop()


def naive(bootstrap: str, source: str, target: str, events: int, partitions: int, datadir: str) -> None:
    """Runs a stock Faust worker until it has seen `events`; prints `cpu wall` and ends the process."""
    import os

    import faust

    app = faust.App(
        f"bench-naive-{target}", broker=f"kafka://{bootstrap}", store="memory://", topic_partitions=partitions,
        web_enabled=False, topic_disable_leader=True, consumer_auto_offset_reset="earliest", datadir=datadir,
        stream_recovery_delay=0.0,
    )
    table = app.Table(f"table-{target}", default=dict, partitions=partitions)
    source_topic = app.topic(source, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw",
                             partitions=partitions)
    target_topic = app.topic(target, value_serializer="raw", partitions=partitions)
    begun: list[float] = []
    seen = 0

    async def fold(stream: Any) -> None:
        nonlocal seen
        async for value in stream:
            if not begun:
                begun.extend((cpu_seconds(), time.perf_counter()))
            event = orjson.loads(value)
            row = dict(table[event["subject"]])
            row.update(event["data"], time=event["time"], id=event["id"])
            table[event["subject"]] = row
            await target_topic.send(value=orjson.dumps(row))
            seen += 1
            if seen == events:
                # Past Faust, which takes over stdout, and at once: its shutdown is not what is measured.
                os.write(1, f"\n{cpu_seconds() - begun[0]} {time.perf_counter() - begun[1]}\n".encode())
                os._exit(0)

    app.agent(source_topic, name="naive")(fold)
    app.finalize()
    worker = faust.Worker(app, loglevel="ERROR")
    worker.execute_from_commandline()


if __name__ == "__main__":
    role, *rest = sys.argv[1:]
    if role == "bare":
        bootstrap, source, target, events = rest
        cpu, wall = asyncio.run(bare(bootstrap, source, target, int(events)))
        sys.stdout.write(f"{cpu} {wall}\n")
    else:
        bootstrap, source, target, events, partitions, datadir = rest
        naive(bootstrap, source, target, int(events), int(partitions), datadir)
