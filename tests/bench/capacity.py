"""Bench: the CPU that attn uses under load beside what the model of `attn capacity` predicts, and its unit costs.

`attn worker` and `attn edge` run as an operator starts them, on an Apache Kafka node. A producer sends events at a rate
to workspaces of skewed sizes; streams of skewed workspaces are open. For each load the CPU of each process is measured
for some seconds, and the model predicts it from the unit costs. Then the costs that the loads imply are printed.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import re
import sys
import tempfile
import time
from bisect import bisect
from collections.abc import Sequence
from contextlib import AsyncExitStack
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import jwt
import orjson
import psutil
import uvloop
from aiokafka import AIOKafkaProducer

from bench.harness.workload import SOURCE
from bench.writes import SECRET, cpu, quantile, role
from ops.cli.capacity.simulation.queues import Result, Setup, simulate
from ops.cli.capacity.skew import zipf
from ops.cli.capacity.unit_costs import UnitCosts, load_costs
from ops.kafka import Cluster
from schemas.scalars import format_timestamp

__all__ = ["main"]

PARTITIONS = 8
_WORKSPACES = 200
_SKEW = 0.8
_STAMP = re.compile(rb"at=(\d+);")
_TYPES = ("escalation.opened", "escalation.updated", "escalation.resolved")
_SUBJECTS = 20  # of a workspace: each is opened, updated and resolved, again and again
_WARM_UP = 2.0
_TICK = 0.002
_FIRST = (500, 15.0)


class Case(NamedTuple):
    rate: int
    workers: int


class Measured(NamedTuple):
    """Events per second that were sent, cores of each process, milliseconds from sending to frame, bytes on disk per
    event by topic."""

    case: Case
    rate: float
    workers: list[float]
    edge: float
    broker: float
    ages: list[float]
    frames: float
    disk: dict[str, float]


class _Reader(asyncio.Protocol):
    """Reads the feed of a workspace, and notes the age of each frame."""

    def __init__(self, workspace: int, number: int, load: Load) -> None:
        claims = {"sub": f"u{number}", "workspace_id": f"ws_{workspace}", "role": "MEMBER",
                  "exp": int(time.time()) + 3600}
        self._token = jwt.encode(claims, SECRET, "HS256")
        self._load, self._rest = load, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(  # type: ignore[attr-defined]
            f"GET /org/me/feed HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {self._token}\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        now, end, data = time.time_ns(), 0, self._rest + data
        for found in _STAMP.finditer(data):
            end = found.end()
            self._load.frames += 1
            self._load.ages.append((now - int(found[1])) / 1e6)
        self._rest = data[max(end, len(data) - 40):]  # a timestamp may be split between two chunks


class Load:
    """Sends events to workspaces by their shares, and collects the ages of frames."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self.frames, self.ages = 0, list[float]()
        self.shares = [share for _, share in zipf(_WORKSPACES, _SKEW).groups]
        self._cumulative, self._random = list(accumulate(self.shares)), random.Random(1)
        self._producer, self._numbers, self.sent = producer, [0] * _WORKSPACES, 0

    def _event(self) -> tuple[bytes, bytes]:
        workspace = min(_WORKSPACES - 1, bisect(self._cumulative, self._random.random()))
        number, self._numbers[workspace] = self._numbers[workspace], self._numbers[workspace] + 1
        self.sent += 1
        name = f"ws_{workspace}"
        return name.encode(), orjson.dumps({
            "specversion": "1.0", "id": f"c{workspace}-{number}", "source": "/bench",
            "type": _TYPES[number // _SUBJECTS % 3], "subject": f"esc_{workspace}_{number % _SUBJECTS}",
            "time": format_timestamp(time.time_ns() // 1000), "workspaceid": name, "data": {
                "title": f"at={time.time_ns()};", "priority": "high", "cluster": f"cluster-{workspace % 7}",
                "stack": "web", "sender": {"type": "agent", "id": "ag_1", "name": "Daniel"},
                "payload": {"note": "x" * 120}}})

    async def send(self, rate: int, seconds: float) -> None:
        begun, sent = time.perf_counter(), 0
        waiting: list[asyncio.Future[object]] = []
        while (passed := time.perf_counter() - begun) < seconds:
            while sent < passed * rate:
                key, value = self._event()
                waiting.append(await self._producer.send(SOURCE, value, key))
                sent += 1
            if len(waiting) > 1000:
                await asyncio.gather(*waiting)
                waiting.clear()
            await asyncio.sleep(_TICK)
        await asyncio.gather(*waiting)


def _disk(root: Path) -> dict[str, int]:
    """Bytes of the segments of each topic."""
    found: dict[str, int] = {}
    for path in root.rglob("*.log"):
        topic = path.parent.name.rpartition("-")[0]
        found[topic] = found.get(topic, 0) + path.stat().st_size
    return found


async def _streams(port: int, streams: int, load: Load) -> None:
    """Opens streams in proportion to the shares of the workspaces, at least none of the smallest."""
    loop, number = asyncio.get_running_loop(), 0
    for workspace, share in enumerate(load.shares):
        for _ in range(round(share * streams)):
            number += 1
            await loop.create_connection(
                lambda w=workspace, n=number: _Reader(w, n, load), "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.sleep(1)


async def measure(cases: Sequence[Case], streams: int, seconds: float) -> list[Measured]:
    found = []
    async with AsyncExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="attn-bench-")))
        cluster = await stack.enter_async_context(Cluster(root, brokers=1))
        broker, brokers = cluster.bootstrap, psutil.Process().children(recursive=True)
        settings: dict[str, object] = {
            "kafka": broker, "log_partitions": PARTITIONS, "source_partitions": PARTITIONS, "jwt_secret": SECRET}
        workers = [(await stack.enter_async_context(role("worker", "metrics_port", settings)))[0]]
        edge, port = await stack.enter_async_context(role("edge", "port", settings))
        producer = await stack.enter_async_context(AIOKafkaProducer(
            bootstrap_servers=broker, acks="all", enable_idempotence=True, linger_ms=0))
        load = Load(producer)
        await _streams(port, streams, load)
        await load.send(*_FIRST)  # the JVM of the broker compiles
        for case in cases:
            while len(workers) < case.workers:
                more = {**settings, "instance": str(len(workers) + 1)}
                workers.append((await stack.enter_async_context(role("worker", "metrics_port", more)))[0])
            await load.send(case.rate, _WARM_UP)
            load.ages.clear()
            load.sent = 0
            processes = [*workers, edge, *brokers]
            before, disk, frames, begun = [cpu(each) for each in processes], _disk(root), load.frames, time.time()
            await load.send(case.rate, seconds)
            passed = time.time() - begun
            used = [(cpu(each) - start) / passed for each, start in zip(processes, before, strict=True)]
            await asyncio.sleep(0.5)
            count = load.sent
            grown = {topic: (size - disk.get(topic, 0)) / count for topic, size in _disk(root).items()}
            found.append(Measured(
                case, count / passed, used[:len(workers)], used[len(workers)], sum(used[len(workers) + 1:]),
                list(load.ages), (load.frames - frames) / passed,
                {topic: size for topic, size in grown.items() if size > 1}))
    return found


def predict(case: Case, streams: int, costs: UnitCosts) -> Result:
    return simulate(Setup(
        zipf(_WORKSPACES, _SKEW), case.rate, streams, PARTITIONS, case.workers, 1, burst=1.0, seconds=10), costs)


def _broker(case: Case, costs: UnitCosts) -> float:
    cycles = min(case.rate, case.workers * 1000 / costs.worker_cycle_ms)
    return (case.rate * costs.broker_event_us + cycles * costs.broker_cycle_us) / 1e6


def table(found: Sequence[Measured], streams: int, costs: UnitCosts) -> str:
    """Events per second that were sent, cores of each process, predicted and measured, as a Markdown table."""
    lines = ["| events/s, workers | | predicted | measured | predicted / measured |", f"|{' --- |' * 5}"]
    for one in found:
        result = predict(one.case, streams, costs)
        pairs = [("worker, busiest: cores", max(result.workers), max(one.workers)),
                 ("workers: cores", sum(result.workers), sum(one.workers)), ("edge: cores", result.edges[0], one.edge),
                 ("broker: cores", _broker(one.case, costs), one.broker),
                 ("p50, ms", result.delay(0.5) * 1e3, quantile(one.ages, 0.5)),
                 ("p99, ms", result.delay(0.99) * 1e3, quantile(one.ages, 0.99))]
        for name, predicted, measured in pairs:
            lines.append(f"| {one.case.rate:,}, {one.case.workers} | {name} | {predicted:.3g} | {measured:.3g} | "
                         f"{predicted / measured:.2f} |")
    return "\n".join(lines)


def main() -> None:
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    parser = argparse.ArgumentParser(prog="python -m bench capacity", description=__doc__)
    parser.add_argument("--cases", nargs="+", default=["1:1", "100:1", "1000:1", "3000:1", "3000:2"],
                        metavar="RATE:WORKERS", help="loads, with no fewer workers than the load before")
    parser.add_argument("--streams", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=10)
    given = parser.parse_args()
    cases = [Case(*map(int, case.split(":"))) for case in given.cases]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(measure(cases, given.streams, given.seconds))
    sys.stdout.write(table(found, given.streams, load_costs()) + "\n\n")
    for one in found:
        sys.stdout.write(f"{one._replace(ages=[])}\n")


if __name__ == "__main__":
    main()
