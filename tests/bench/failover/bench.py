"""Bench: how long readers see nothing new after one fault, and where that time goes.

Kafka, workers and edges run as processes under the supervisor of `attn up`, as in `tests/chaos`, without history and
delivery. Each partition gets 5 events a second; readers on both edges follow them. One fault at a time, each after the
last one is over. For each fault the timeline is printed: process gone, restarted, partitions assigned, fenced, first
batch of each partition, first frame.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from itertools import pairwise
from pathlib import Path

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.client import AIOKafkaClient
from support.edge.edges_nginx import JS_MODULE, NGINX, running
from support.model import Reader

from bench.failover.marks import Mark, marks_of, silence, table
from chaos.environment.edge_client import EdgeClient
from chaos.environment.stack import Stack
from chaos.workload.feed_readers import Follower
from chaos.workload.load import BEAT, beating
from chaos.workload.producers import Beats
from ops.kafka import missing
from schemas.topics import FACTS, LOG, VIEWS
from schemas.views import position_key

__all__ = ["main"]

PARTITIONS = 6
_BEATS = 5.0  # events a second in each partition
_CALM = 1.0  # the longest time without news before the next fault
_GIVE_UP = 90.0
_GONE = 15.0  # seconds until a worker that does not come back is started again, for the next fault
_ELECTIONS = 12.0  # seconds after which a killed broker is started again
_AFTER = 4.0  # seconds of calm that count to a fault: a handover back happens within them


class LoggedStack(Stack):
    """A stack that also keeps each line of its parts with the time at which it came (monotonic seconds)."""

    def __init__(self, home: Path, brokers: int, workers: int, edges: int) -> None:
        super().__init__(home, brokers, workers, edges, PARTITIONS)
        self._first = [name for name in self._first if name.startswith(("worker", "edge"))]
        self.lines: list[tuple[float, str, str]] = []

    async def ready(self, seconds: float) -> None:
        await super().ready(min(seconds, _GIVE_UP))

    def _echo(self, name: str, line: str) -> None:
        self.lines.append((time.monotonic(), name, line))
        super()._echo(name, line)


class Arrivals:
    """When records came, by topic and partition (monotonic seconds): source events, the log, facts, positions."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self.seen: dict[TopicPartition, list[float]] = {}

    async def run(self) -> None:
        async with AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap, enable_auto_commit=False, auto_offset_reset="latest",
            fetch_max_wait_ms=100, metadata_max_age_ms=1000,
        ) as consumer:
            topics = (BEAT, LOG, FACTS, VIEWS)
            await consumer._client.set_topics(topics)
            consumer.assign([TopicPartition(topic, number) for topic in topics
                             for number in consumer.partitions_for_topic(topic) or ()])
            async for record in consumer:
                if record.topic != VIEWS or record.key == position_key(record.partition):
                    self.seen.setdefault(TopicPartition(record.topic, record.partition), []).append(time.monotonic())


class Bench:
    """One stack, its load and its readers."""

    def __init__(self, stack: LoggedStack) -> None:
        self.stack = stack
        self.arrivals = Arrivals(stack.kafka.bootstrap)
        self.beats = Beats(stack.settings, beating(PARTITIONS), _BEATS)
        self.readers: list[Follower] = []
        self.faults: dict[str, Callable[[int], Awaitable[str]]] = {
            "worker": self._kill_worker, "gone": self._remove_worker, "restart": self._restart_worker,
            "edge": self._kill_edge, "leader": self._kill_leader,
        }
        self._restarted: list[Mark] = []

    def read(self, urls: Sequence[str]) -> None:
        """Creates readers that connect to these addresses in turn."""
        edge = EdgeClient(self.stack.urls[0], self.stack.data_dir)
        workspaces = beating(PARTITIONS)
        self.readers = [
            Follower(edge, urls, ws, Reader("pulse", "VIEWER"), 500, first=number)
            for number, ws in enumerate([*workspaces, *workspaces[::-1]])]

    async def calm(self) -> None:
        """Returns when every reader has had news without a pause of a second for 4 s."""
        since = began = time.monotonic()
        while time.monotonic() - since < _AFTER:
            now = time.monotonic()
            if any(not one.seen or now - one.seen[-1] > _CALM for one in self.readers):
                since = now
            if now - began > _GIVE_UP:
                silent = [one.name for one in self.readers if not one.seen or now - one.seen[-1] > _CALM]
                raise SystemExit(f"no news for {_GIVE_UP:.0f} s: {silent}; logs in {self.stack.home}")
            for one in self.readers:
                if one.wrong:
                    raise SystemExit(one.wrong)
            await asyncio.sleep(0.05)

    async def fault(self, kind: str, number: int) -> float:
        """Injects one fault, prints its timeline, and returns the silence of the reader worst off, in seconds."""
        await self.stack.ready(_GIVE_UP)
        await self.calm()
        begun = time.monotonic()
        pids = {name: part.pid for name, part in self.stack.parts.items()}
        restarts = asyncio.create_task(self._restarts(pids, begun))
        target = await self.faults[kind](number)
        await asyncio.sleep(0.5)
        await self.calm()
        ended = time.monotonic()
        restarts.cancel()
        await asyncio.sleep(begun + _GONE + 1.0 - time.monotonic() if kind == "gone" else 0.0)
        marks = [*marks_of(self.stack.lines, begun, ended), *self._restarted, *self._news(begun, ended)]
        worst = max(silence(one.seen, begun, ended) for one in self.readers)
        print(f"{kind} {number} ({target}): silence {worst:.2f} s", flush=True)
        print(table(sorted(marks, key=lambda mark: mark.at)), flush=True)
        return worst

    def _news(self, begun: float, ended: float) -> list[Mark]:
        """When batches and frames came again after a pause of more than four beats."""
        marks = [mark for tp, seen in self.arrivals.seen.items()
                 if (mark := _first(f"{tp.topic}/{tp.partition}", "record", seen, begun, ended))]
        readers = [mark for one in self.readers if (mark := _first("readers", "frame", one.seen, begun, ended))]
        return [*marks, *sorted(readers, key=lambda mark: mark.at)[-1:]]

    async def _restarts(self, pids: dict[str, int | None], begun: float) -> None:
        self._restarted = []
        while True:
            for name, pid in pids.items():
                current = self.stack.parts[name].pid
                if current != pid:
                    what = "process gone" if current is None else f"process started, pid {current}"
                    self._restarted.append(Mark(time.monotonic() - begun, name, what))
                    pids[name] = current
            await asyncio.sleep(0.01)

    async def _kill_worker(self, number: int) -> str:
        names = self.stack.running("worker")
        self.stack.signal(name := names[number % len(names)], signal.SIGKILL)
        return name

    async def _remove_worker(self, number: int) -> str:
        """A worker that does not come back until the bench ends: the group's session has to expire."""
        names = self.stack.running("worker")
        name = names[number % len(names)]
        keeping = self.stack._keeping.pop(name)
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping
        self.stack.signal(name, signal.SIGKILL)
        asyncio.get_running_loop().call_later(_GONE, self.stack.add, name)
        return f"{name}, for {_GONE:.0f} s"

    async def _restart_worker(self, number: int) -> str:
        names = self.stack.running("worker")
        self.stack.signal(name := names[number % len(names)], signal.SIGTERM)
        return name

    async def _kill_edge(self, number: int) -> str:
        names = self.stack.running("edge")
        self.stack.signal(name := names[number % len(names)], signal.SIGKILL)
        return name

    async def _kill_leader(self, number: int) -> str:
        kafka = self.stack.kafka
        node = await kafka.leader_of(VIEWS, number % PARTITIONS)
        assert node is not None
        controller = self.stack.controller() is node
        node.kill()
        killed = time.monotonic()
        await self._elections(node.number, killed)
        await asyncio.sleep(killed + _ELECTIONS - time.monotonic())
        await node.spawn()
        await kafka.wait_ready(120.0)
        while not await self.stack.in_sync():
            await asyncio.sleep(0.3)
        return f"broker {node.number}{', the controller' if controller else ''}, started again after {_ELECTIONS:.0f} s"


    async def _elections(self, dead: int, killed: float) -> None:
        """Notes when the brokers have elected a new leader for the first and for the last partition. This share of the
        silence is that of Kafka."""
        others = ",".join(node.address for node in self.stack.kafka.nodes if node.number != dead)
        client = AIOKafkaClient(bootstrap_servers=others)
        await client.bootstrap()
        try:
            waiting: list[int] = []  # partitions without a live leader, at each request
            while not waiting or (waiting[-1] and time.monotonic() - killed < _ELECTIONS):
                found = await client.fetch_all_metadata()
                waiting.append(sum(
                    found.leader_for_partition(TopicPartition(topic, number)) in (dead, -1, None)
                    for topic in found.topics() for number in found.partitions_for_topic(topic) or ()))
                if waiting[-1] < waiting[0] == waiting[-2]:
                    self._restarted.append(Mark(time.monotonic() - killed, "brokers", "first new leader"))
                await asyncio.sleep(0.05)
            self._restarted.append(
                Mark(time.monotonic() - killed, "brokers", f"{waiting[-1]} partitions have no leader"))
        finally:
            await client.close()


def _first(who: str, what: str, seen: list[float], begun: float, ended: float) -> Mark | None:
    """The end of the longest pause, if it is one."""
    gap, at = max(((later - earlier, later) for earlier, later in pairwise(seen) if begun <= later <= ended),
                  default=(0.0, begun))
    return Mark(at - begun, who, f"first {what} after {gap:.2f} s") if gap > 4 / _BEATS else None


async def _run(asked: argparse.Namespace, home: Path) -> None:
    found: dict[str, list[float]] = {}
    async with AsyncExitStack() as left:
        stack = await left.enter_async_context(LoggedStack(home, asked.brokers, asked.workers, asked.edges))
        bench = Bench(stack)
        urls = stack.urls
        if asked.nginx:
            ports = [stack.ports[name] for name in stack.running("edge")]
            urls = [f"http://127.0.0.1:{await left.enter_async_context(running(home, (ports[0], ports[1])))}"]
        bench.read(urls)
        stop = asyncio.Event()
        tasks = [asyncio.create_task(one.run()) for one in bench.readers]
        tasks += [asyncio.create_task(bench.arrivals.run()), asyncio.create_task(bench.beats.run(stop))]
        try:
            for kind in asked.faults.split(","):
                for number in range(asked.count):
                    found.setdefault(kind, []).append(await bench.fault(kind, number))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    for kind, values in found.items():
        print(f"| {kind} | {len(values)} | {statistics.median(values):.2f} | {max(values):.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench failover", description="silence of readers after one fault at a time")
    parser.add_argument("--faults", default="worker", help="worker, gone, restart, edge, leader; comma-separated")
    parser.add_argument("--count", type=int, default=4, help="faults of each kind")
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--edges", type=int, default=2)
    parser.add_argument("--nginx", action="store_true", help="readers connect by nginx, as ops/deploy configures it")
    parser.add_argument("--home", type=Path, help="keep state and logs there")
    asked = parser.parse_args(sys.argv[1:])
    if asked.nginx and (not (NGINX.exists() and JS_MODULE.exists()) or asked.edges != 2):
        raise SystemExit("--nginx needs nginx with njs, and two edges")
    if why := missing():
        raise SystemExit(f"this bench needs Apache Kafka: {why}")
    logging.basicConfig(level=logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    home = asked.home or Path(tempfile.mkdtemp(prefix="attn-failover-"))
    home.mkdir(parents=True, exist_ok=True)
    asyncio.run(_run(asked, home))
    print(f"logs: {home}, load {os.getloadavg()[0]:.1f}")
