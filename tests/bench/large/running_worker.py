"""`attn worker` as a process of its own: memory, load, and events afterwards. Part of `bench large`."""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from bench.harness.subprocesses import environment
from bench.harness.workload import SOURCE, source_events
from bench.large.memory import PARTITIONS
from ops.embedded.stack import readiness
from ops.kafka import Cluster
from ops.process.ports import free_port
from ops.process.supervisor import role_command
from schemas.facts import Fact, decode_fact
from schemas.topics import FACTS

__all__ = ["WorkerFigures", "measure_worker", "weigh_empty_worker"]

_SECONDS = 300.0
_EVENTS, _PER_SECOND = 5_000, 500


class WorkerFigures(NamedTuple):
    """Seconds and CPU from the start until the worker is ready, bytes of resident memory then, CPU µs per event
    afterwards, and milliseconds from each event to its fact."""

    seconds: float
    cpu: float
    rss: int
    cpu_per_event: float
    delays: list[float]

    def summary(self) -> str:
        cuts = statistics.quantiles(self.delays, n=100)
        return (f"ready after {self.seconds:.1f} s, {self.cpu:.1f} s of CPU, {self.rss / 1e6:,.0f} MB; then "
                f"{len(self.delays):,} events at {_PER_SECOND}/s: {self.cpu_per_event:.0f} µs of CPU each, "
                f"source → fact p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms, max {max(self.delays):.1f} ms")


async def weigh_empty_worker() -> WorkerFigures:
    """Returns what a worker uses on a broker without rows."""
    with tempfile.TemporaryDirectory(prefix="attn-bench-") as scratch:
        async with Cluster(Path(scratch) / "kafka", 1) as kafka:
            return await measure_worker(kafka.bootstrap)


async def measure_worker(bootstrap: str) -> WorkerFigures:
    port, begun = free_port(), time.monotonic()
    child = await asyncio.create_subprocess_exec(*role_command("worker"), env=environment(
        kafka=bootstrap, log_partitions=PARTITIONS, source_partitions=1, metrics_port=port,
        log_level=os.environ.get("BENCH_LOG", "ERROR")))
    try:
        async with asyncio.timeout(_SECONDS):
            while not (await asyncio.to_thread(readiness, f"http://127.0.0.1:{port}"))[0]:
                if child.returncode is not None:
                    raise SystemExit(f"attn worker ended with code {child.returncode}")
                await asyncio.sleep(0.05)
            seconds, process = time.monotonic() - begun, psutil.Process(child.pid)
            cpu, rss = _cpu(process), int(process.memory_info().rss)
            await _events(bootstrap, 200)  # the first events import modules and derive types
            before = _cpu(process)
            delays = await _events(bootstrap, _EVENTS)
            return WorkerFigures(seconds, cpu, rss, (_cpu(process) - before) / _EVENTS * 1e6, delays)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def _events(bootstrap: str, number: int) -> list[float]:
    """Sends events, and waits for their facts. Returns the milliseconds from each event to its fact."""
    now, sent, delays = time.time_ns() // 1000, dict[str, float](), list[float]()
    async with (
        AIOKafkaConsumer(FACTS, bootstrap_servers=bootstrap, auto_offset_reset="latest",
                         enable_auto_commit=False) as consumer,
        AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer,
    ):
        await consumer.seek_to_end()

        async def send() -> None:
            begun = time.monotonic()
            events = source_events(number, subjects=number, begin=now, step_us=1_000_000 // _PER_SECOND)
            for at, (key, value) in enumerate(events):
                value = value.replace(b'"id":"e', b'"id":"%d-e' % now).replace(b'"subject":"', b'"subject":"%d' % now)
                sent[f"{now}-e{at}"] = time.time() * 1e3
                await producer.send(SOURCE, value, key)
                await asyncio.sleep(max(0.0, begun + (at + 1) / _PER_SECOND - time.monotonic()))

        sending = asyncio.create_task(send())
        while len(delays) < number:
            for records in (await consumer.getmany(timeout_ms=500)).values():
                for record in records:
                    fact = decode_fact(record.value)
                    if isinstance(fact, Fact) and (at := sent.pop(fact.event_id.rsplit(" ", 1)[-1], None)) is not None:
                        delays.append(record.timestamp - at)
        await sending
    return delays
