"""Bench: how long an event takes from its source topic through attn.log, attn.facts and attn.views to a reader's frame.

`attn worker` and `attn edge` run as an operator starts them, and beside them, on the same broker, a relay of three bare
aiokafka hops (`bench.latency.relay`). They take turns at each rate. Times are those of the records themselves; the
moment of sending and the arrival are taken in this process, which sends for both and reads from both.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import jwt
import psutil
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from bench.harness import brokers as grounds
from bench.harness.brokers import Ground
from bench.harness.workload import SOURCE, source_events
from bench.latency.relay import TOPICS as RELAY
from bench.latency.report import Turn, costs, table
from bench.latency.times import attn_hops, number_of, offsets, records_since, relay_hops
from bench.writes import SECRET, cpu, role
from schemas.settings import Settings
from schemas.topics import FACTS, LOG, VIEWS
from streams.kafka import doorbell

__all__ = ["main"]

PARTITIONS = 4
_WORKSPACES = 16  # of `source_events`
_SUBJECTS = 160
_FIRST_RATE = 200
_WARM_UP = 1.0  # seconds of each turn that do not count
_QUIET = 1.0  # seconds without an arrival after which everything has arrived
_LIMIT = 60.0
_FRAME = re.compile(rb"id: (\d+)\nevent: (added|changed|removed)\n")
_FRAME_BYTES = 64  # an id and an event's name are shorter
_CURSOR_BITS = 12  # of a cursor: the number of the frame within its position


class Reader(asyncio.Protocol):
    """Reads one feed: the position and the arrival of each frame."""

    def __init__(self, workspace: str, load: Load) -> None:
        self._workspace, self._load = workspace, load
        self._rest = b""
        self.ready = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        claims = {"sub": "ann", "workspace_id": self._workspace, "role": "OWNER", "exp": int(time.time()) + 3600}
        token = jwt.encode(claims, SECRET, "HS256")
        transport.write(  # type: ignore[attr-defined]
            f"GET /org/me/feed HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        now, end, data = time.time(), 0, self._rest + data
        if not self.ready.done() and b"event: snapshot" in data:
            self.ready.set_result(None)
        for found in _FRAME.finditer(data):
            end = found.end()
            self._load.frames[self._workspace].append((int(found[1]) >> _CURSOR_BITS, now))
            self._load.last = now
        self._rest = data[max(end, len(data) - _FRAME_BYTES):]


class Load:
    """Sends events at a rate, and notes what arrives."""

    def __init__(self, producer: AIOKafkaProducer, total: int) -> None:
        # An event is as old as its turn allows: nothing becomes overdue, and no event is of the future.
        begin = time.time_ns() // 1000 - 60_000_000
        self.events = {topic: enumerate(source_events(total, _SUBJECTS, begin, step_us=100))
                       for topic in (SOURCE, RELAY[0])}
        self.frames: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self.arrived: dict[int, float] = {}  # at the end of the relay
        self.last = 0.0
        self._producer = producer

    async def send(self, topic: str, rate: int, seconds: float) -> tuple[int, list[float]]:
        """Returns the number of the first event, and when each was sent."""
        first, sent, acknowledged = -1, [], []
        begun = time.perf_counter()
        for count, (number, (key, value)) in enumerate(itertools.islice(self.events[topic], int(rate * seconds))):
            if (early := begun + count / rate - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            first = number if first < 0 else first
            sent.append(time.time())
            acknowledged.append(await self._producer.send(topic, value, key))
        await asyncio.gather(*acknowledged)
        return first, sent

    async def quiet(self) -> None:
        """Returns once nothing has arrived for a second."""
        begun = time.time()
        while time.time() - max(self.last, begun) < _QUIET:
            if time.time() - begun > _LIMIT:
                raise SystemExit(f"events still arrive {_LIMIT:.0f} s after the last was sent: the rate is too high")
            await asyncio.sleep(0.05)

    async def read_relay(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            for records in (await consumer.getmany(timeout_ms=500)).values():
                self.last = time.time()
                for record in records:
                    self.arrived[number_of(record.value)] = self.last


@asynccontextmanager
async def _relay(broker: str) -> AsyncIterator[psutil.Process]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.latency.relay", broker, str(PARTITIONS),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    try:
        async with asyncio.timeout(_LIMIT):
            if await child.stdout.readline() != b"ready\n":
                raise SystemExit("the relay did not start")
        yield psutil.Process(child.pid)
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


class Run:
    """Everything that runs during a run; `turn` measures one candidate at one rate."""

    def __init__(
        self, broker: str, load: Load, consumer: AIOKafkaConsumer, processes: dict[str, list[psutil.Process]],
    ) -> None:
        self._broker, self._load, self._consumer, self._processes = broker, load, consumer, processes

    @contextmanager
    def _without_relay(self) -> Iterator[None]:
        """Stops the relay and its reader: on the embedded broker, idle bare consumers take more than a core."""
        relay, partitions = self._processes["relay"], self._consumer.assignment()
        self._consumer.pause(*partitions)
        for process in relay:
            process.suspend()
        try:
            yield
        finally:
            for process in relay:
                process.resume()
            self._consumer.resume(*partitions)

    def _cpu(self) -> dict[str, float]:
        return {name: sum(map(cpu, processes)) for name, processes in self._processes.items()}

    async def turn(self, candidate: str, rate: int, seconds: float) -> Turn:
        attn = candidate == "attn"
        topics = (LOG, FACTS, VIEWS) if attn else RELAY[1:]
        self._load.frames.clear()
        begins, before = await offsets(self._broker, topics, PARTITIONS), self._cpu()
        with self._without_relay() if attn else nullcontext():
            first, sent = await self._load.send(SOURCE if attn else RELAY[0], rate, seconds + _WARM_UP)
            await self._load.quiet()
        used = {name: after - before[name] for name, after in self._cpu().items()}
        records = await records_since(self._broker, begins)
        hops = (attn_hops(sent, first, records, self._load.frames, PARTITIONS) if attn
                else relay_hops(sent, first, records, topics, self._load.arrived))
        return Turn(candidate, rate, hops[int(rate * _WARM_UP):], len(sent), used)


async def _feeds(port: int, load: Load) -> None:
    loop = asyncio.get_running_loop()
    for number in range(_WORKSPACES):
        _, reader = await loop.create_connection(
            lambda number=number: Reader(f"ws_{number}", load), "127.0.0.1", port)  # type: ignore[misc]
        await asyncio.wait_for(reader.ready, _LIMIT)


@asynccontextmanager
async def _run(ground: Ground, total: int, embedded: bool) -> AsyncIterator[Run]:
    broker = await ground.fresh()
    brokers = psutil.Process().children(recursive=True)
    await grounds.make(ground, broker, RELAY, PARTITIONS)
    settings: dict[str, object] = {
        "kafka": broker, "replication": ground.replication, "log_partitions": PARTITIONS,
        "source_partitions": PARTITIONS, "jwt_secret": SECRET}
    async with AsyncExitStack() as stack:
        if embedded:  # as `attn up` does: writes of attn wake the worker and the edge
            home = Path(stack.enter_context(TemporaryDirectory(prefix="attn-bench-")))
            settings["data_dir"] = home
            doorbell.make_directory(doorbell.directory(Settings(_env_file=None, data_dir=home)), wanted=True)
        worker, _ = await stack.enter_async_context(role("worker", "metrics_port", settings))
        edge, port = await stack.enter_async_context(role("edge", "port", settings))
        relay = await stack.enter_async_context(_relay(broker))
        producer = await stack.enter_async_context(AIOKafkaProducer(
            bootstrap_servers=broker, acks="all", enable_idempotence=True, linger_ms=0))
        consumer = await stack.enter_async_context(AIOKafkaConsumer(bootstrap_servers=broker, enable_auto_commit=False))
        consumer.assign([TopicPartition(RELAY[-1], number) for number in range(PARTITIONS)])
        await consumer.seek_to_end()
        load = Load(producer, total)
        reading = asyncio.create_task(load.read_relay(consumer))
        stack.callback(reading.cancel)
        await _feeds(port, load)
        yield Run(broker, load, consumer, {"worker": [worker], "edge": [edge], "relay": [relay], "broker": brokers})


def _turns(given: argparse.Namespace) -> Iterator[tuple[int, str]]:
    for rate in given.rates:
        for _ in range(given.turns):
            yield rate, "attn"
            yield rate, "relay"


async def _measure(given: argparse.Namespace) -> None:
    total = sum(int(rate * (given.seconds + _WARM_UP)) for rate, _ in [*_turns(given), (_FIRST_RATE, "attn")])
    async with grounds.ground(given.kafka, given.replication) as ground, _run(
            ground, total + 1, given.kafka == grounds.EMBEDDED) as run:
        for candidate in ("attn", "relay"):  # the broker is new: its first seconds would be the first candidate's
            await run.turn(candidate, _FIRST_RATE, given.seconds)
        turns = [await run.turn(candidate, rate, given.seconds) for rate, candidate in _turns(given)]
    sys.stdout.write(f"{table(turns)}\n\n{costs(turns)}\n")


def main() -> None:
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # of new topics, whose leaders come a moment later
    parser = argparse.ArgumentParser(prog="python -m bench latency", description=__doc__)
    parser.add_argument("--rates", type=int, nargs="+", default=[20, 200, 1000, 5000], help="events per second")
    parser.add_argument("--seconds", type=float, default=8, help="length of a turn, without 1 s of warm-up")
    parser.add_argument("--turns", type=int, default=2, help="turns of each candidate at each rate")
    grounds.add_options(parser)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_measure(parser.parse_args()))


if __name__ == "__main__":
    main()
