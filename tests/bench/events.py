"""Bench: CPU and rate of `POST /events`, compared with a Kafka producer that sends the same events to the same broker.

`attn edge` runs as an operator starts it. Each candidate sends all events of one workspace from its own process, in
turns with the others. Candidates: an aiokafka producer with some events in flight, the same producer with all events in
flight, and an HTTP client that posts one event or one batch per request on some connections. The CPU of an HTTP
candidate is that of its client and of the edge. No worker runs meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from statistics import median
from typing import NamedTuple

import orjson
import psutil
from aiokafka import AIOKafkaProducer

from bench.harness import brokers as grounds
from bench.harness.subprocesses import Figures, Meter, measure, run
from bench.harness.workload import SOURCE, source_events
from bench.writes import SECRET, Line, cpu, role

__all__ = ["main"]

_WORKSPACE = "ws_0"
_WARM_UP = 200  # events before the measurement: they open connections and fetch metadata


def _events(count: int) -> list[bytes]:
    """Returns the events of the other benches, with one workspace for all."""
    def placed(value: bytes) -> bytes:
        return orjson.dumps(orjson.loads(value) | {"workspaceid": _WORKSPACE})

    return [placed(value) for _, value in source_events(count)]


async def _each(lines: int, values: Sequence[bytes], work: Callable[[int, bytes], Awaitable[None]]) -> None:
    """Calls `work(line, value)` for all values, with `lines` calls at a time."""
    left = iter(values)

    async def line(number: int) -> None:
        for value in left:
            await work(number, value)

    await asyncio.gather(*(line(number) for number in range(lines)))


async def _produce(broker: str, count: int, lines: int) -> None:
    """Sends with an idempotent producer. `lines`: events in flight at a time; 0: all."""
    values = _events(_WARM_UP + count)
    linger = 0 if lines else 5
    async with AIOKafkaProducer(
            bootstrap_servers=broker, acks="all", enable_idempotence=True, linger_ms=linger) as producer:

        async def send(some: Sequence[bytes]) -> None:
            if lines:
                await _each(lines, some, lambda _, value: producer.send_and_wait(SOURCE, value, b"ws_0"))
            else:
                await asyncio.gather(*[await producer.send(SOURCE, value, b"ws_0") for value in some])

        await send(values[:_WARM_UP])
        meter = Meter()
        await send(values[_WARM_UP:])
        meter.tell()


async def _post(port: int, key: str, count: int, lines: int, size: int) -> None:
    """Posts `size` events per request on `lines` connections. Raises SystemExit for an answer other than 202."""
    values = _events(_WARM_UP + count)
    mode = "" if size == 1 else "-batch"
    head = (f"POST /events HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/cloudevents{mode}+json\r\nContent-Length: ")

    def requests(some: Sequence[bytes]) -> list[bytes]:
        bodies = some if size == 1 else [
            b"[" + b",".join(some[begin:begin + size]) + b"]" for begin in range(0, len(some), size)]
        return [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]

    streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(lines)]

    async def ask(number: int, request: bytes) -> None:
        reader, writer = streams[number]
        writer.write(request)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in answer.lower().split(b"\r\n")
                      if line.startswith(b"content-length:"))
        body = await reader.readexactly(length)
        if answer.split(b" ", 2)[1] != b"202" or orjson.loads(body)["rejected"]:
            raise SystemExit(f"POST /events: {answer.decode()}{body.decode()}")

    warm_up, measured = requests(values[:_WARM_UP]), requests(values[_WARM_UP:])
    await _each(lines, warm_up, ask)
    meter = Meter()
    await _each(lines, measured, ask)
    meter.tell()


class Used(NamedTuple):
    """CPU seconds of the client and of the edge, and wall seconds."""

    client: float
    edge: float
    wall: float


async def _measured(edge: psutil.Process, *args: object) -> Used:
    before = cpu(edge)
    client: Figures = await measure("bench.events", *args)
    return Used(client.cpu, cpu(edge) - before, client.wall)


async def _key(port: int) -> str:
    """Creates a key of the workspace and returns its text. Needs a running worker."""
    line = await Line.open(port, "ann")
    try:
        body = orjson.dumps({"name": "bench", "topics": [SOURCE]})
        secret: str = orjson.loads(await line.ask("POST", "/org/me/keys", body))["secret"]
        return secret
    finally:
        line.close()


def _row(name: str, count: int, runs: Sequence[Used], base: Sequence[Used]) -> str:
    def micro(value: Callable[[Used], float]) -> float:
        return median(value(each) for each in runs) / count * 1e6

    def total(each: Used) -> float:
        return each.client + each.edge

    times_cpu = median(map(total, runs)) / median(map(total, base))
    times_wall = median(each.wall for each in runs) / median(each.wall for each in base)
    return (f"| {name} | {micro(lambda each: each.client):.0f} | {micro(lambda each: each.edge):.0f} "
            f"| {1e6 / micro(lambda each: each.wall):,.0f} | {times_cpu:.2f} | {times_wall:.2f} |")


async def _run(given: argparse.Namespace) -> None:
    async with AsyncExitStack() as stack:
        ground = await stack.enter_async_context(grounds.ground(given.kafka, given.replication))
        broker = await ground.fresh()
        settings: dict[str, object] = {
            "kafka": broker, "replication": ground.replication, "log_partitions": 1, "source_partitions": 1,
            "jwt_secret": SECRET, "event_rate": 1e9, "event_burst": 1_000_000_000}
        async with AsyncExitStack() as working:
            await working.enter_async_context(role("worker", "metrics_port", settings))
            edge, port = await stack.enter_async_context(role("edge", "port", settings))
            key = await _key(port)
        candidates = _candidates(given, broker, port, key)
        runs: dict[str, list[Used]] = {candidate.name: [] for candidate in candidates}
        for _ in range(given.runs):
            for candidate in candidates:
                used = await _measured(edge, *candidate.args)
                # A producer does not use the edge.
                runs[candidate.name].append(used if candidate.base else used._replace(edge=0.0))
        sys.stdout.write(
            f"| | client, CPU µs/event | edge, CPU µs/event | events/s | × CPU | × time |\n|{' --- |' * 6}\n")
        for candidate in candidates:
            sys.stdout.write(_row(
                candidate.name, given.events, runs[candidate.name], runs[candidate.base or candidate.name]) + "\n")


class Candidate(NamedTuple):
    """One way to send events. `base`: name of the producer that the ratios compare with; "" for a producer."""

    name: str
    base: str
    args: tuple[object, ...]


def _candidates(given: argparse.Namespace, broker: str, port: int, key: str) -> list[Candidate]:
    count, lines = given.events, given.connections
    waits, flies = f"producer, {lines} events at once", "producer, all in flight"
    return [
        Candidate(waits, "", ("produce", broker, count, lines)),
        Candidate(f"one event per request, {lines} connections", waits, ("post", port, key, count, lines, 1)),
        Candidate(flies, "", ("produce", broker, count, 0)),
        *(Candidate(f"{size} events per request, {lines} connections", flies, ("post", port, key, count, lines, size))
          for size in given.batch)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench events", description=__doc__)
    parser.add_argument("--events", type=int, default=10_000, help="events that each candidate sends")
    parser.add_argument("--connections", type=int, default=8, help="HTTP connections, and events in flight")
    parser.add_argument("--batch", type=int, nargs="+", default=[20, 500], help="events per batched request")
    parser.add_argument("--runs", type=int, default=3, help="turns of each candidate; the figures are medians")
    grounds.add_options(parser)
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    kind, *rest = sys.argv[1:]
    if kind == "produce":
        run(_produce(rest[0], *map(int, rest[1:])))
    elif kind == "post":
        run(_post(int(rest[0]), rest[1], *map(int, rest[2:])))
