"""Bench: latency and CPU of a user's write, compared with one record through the broker.

`attn worker` and `attn edge` run as an operator starts them, with a filled inbox. The bench measures

- the latency of a dismiss, one at a time, from the request to the response. The write is then durable, folded, and
  shown by the edge. Baseline, in turns: a bare aiokafka produce -> consume of one record;
- the writes per second of one edge with many concurrent users, and the CPU of edge and worker per write.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import jwt
import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from bench.harness import brokers as grounds
from bench.harness.brokers import Ground
from bench.harness.subprocesses import environment
from bench.harness.workload import SOURCE, produce, source_events
from ops.embedded.stack import readiness
from ops.process.ports import free_port
from ops.process.supervisor import role_command

__all__ = ["PARTITIONS", "SECRET", "Line", "cpu", "main", "quantile", "role"]

SECRET = "a secret for the bench, long enough for an HMAC"
PARTITIONS = 4
_SECONDS = 120.0
_TURN = 50  # measurements of one kind in each turn
_BARE = "bench.bare"


class Line:
    """A keep-alive connection with one request at a time. HTTP client libraries use more CPU than the edge."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, user: str) -> None:
        self._reader, self._writer = reader, writer
        claims = {"sub": user, "workspace_id": "ws_0", "role": "OWNER", "exp": int(time.time()) + 86_400}
        self._token = jwt.encode(claims, SECRET, "HS256")

    @classmethod
    async def open(cls, port: int, user: str) -> Line:
        return cls(*await asyncio.open_connection("127.0.0.1", port), user)

    async def ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        """Sends a request and returns the body of the response. Raises SystemExit unless the status is 200 or 201."""
        self._writer.write((
            f"{method} {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {self._token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body)
        head = await self._reader.readuntil(b"\r\n\r\n")
        size = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length:"))
        answer = await self._reader.readexactly(size)
        if head.split(b" ", 2)[1] not in (b"200", b"201"):
            raise SystemExit(f"{method} {path}: {head.decode()}{answer.decode()}")
        return answer

    def close(self) -> None:
        self._writer.close()


class Bare:
    """The baseline: sends one record at a time to its own topic, and reads it."""

    def __init__(self, out: AIOKafkaProducer, back: AIOKafkaConsumer) -> None:
        self._out, self._back = out, back

    async def round(self) -> None:
        await self._out.send(_BARE, b"x" * 300, partition=0)
        await self._back.getone()


@asynccontextmanager
async def _bare(ground: Ground, broker: str) -> AsyncIterator[Bare]:
    await grounds.make(ground, broker, [_BARE], 1)
    async with (
        AIOKafkaProducer(bootstrap_servers=broker, acks="all", enable_idempotence=True, linger_ms=0) as out,
        AIOKafkaConsumer(bootstrap_servers=broker, enable_auto_commit=False, fetch_max_wait_ms=100) as back,
    ):
        back.assign([partition := TopicPartition(_BARE, 0)])
        back.seek(partition, 0)
        yield Bare(out, back)


@asynccontextmanager
async def role(name: str, port_setting: str, settings: dict[str, object]) -> AsyncIterator[tuple[psutil.Process, int]]:
    """Runs a role during the block. Yields its process and port once it is ready."""
    port = free_port()
    child = await asyncio.create_subprocess_exec(
        *role_command(name), env=environment(**settings, **{port_setting: port}, log_level="ERROR"))
    try:
        async with asyncio.timeout(_SECONDS):
            while not (await asyncio.to_thread(readiness, f"http://127.0.0.1:{port}"))[0]:
                if child.returncode is not None:
                    raise SystemExit(f"attn {name} ended with code {child.returncode}")
                await asyncio.sleep(0.05)
        yield psutil.Process(child.pid), port
    finally:
        if child.returncode is None:
            child.terminate()
            await child.wait()


async def _items(port: int, expected: int) -> list[str]:
    """Waits until the workspace has `expected` open items. Returns their ids."""
    line = await Line.open(port, "ann")
    try:
        async with asyncio.timeout(_SECONDS):
            while json.loads(await line.ask("GET", "/org/me/inbox"))["counts"]["total"] < expected:
                await asyncio.sleep(0.1)
        ids, after = [], ""
        while True:
            page = json.loads(await line.ask("GET", f"/org/me/inbox?limit=500{after}"))
            ids += [item["id"] for item in page["items"]]
            if "next" not in page:
                return ids
            after = f"&next={page['next']}"
    finally:
        line.close()


async def _alone(port: int, bare: Bare, items: Sequence[str], count: int) -> tuple[list[float], list[float]]:
    """Measures dismisses and baseline rounds in turns. Returns the seconds of each."""
    line = await Line.open(port, "ann")
    writes: list[float] = []
    rounds: list[float] = []
    try:
        for number in range(count):
            begun = time.perf_counter()
            await line.ask("POST", f"/org/me/inbox/{items[number % len(items)]}/dismiss")
            writes.append(time.perf_counter() - begun)
            if number % _TURN == _TURN - 1:
                for _ in range(_TURN):
                    begun = time.perf_counter()
                    await bare.round()
                    rounds.append(time.perf_counter() - begun)
    finally:
        line.close()
    return writes[_TURN:], rounds[_TURN:]  # without the first turn, the warm-up


async def _together(port: int, items: Sequence[str], people: int, count: int) -> float:
    """Returns the seconds in which `people` users dismiss and restore `count` items in total. Each user has a
    connection."""
    lines = [await Line.open(port, f"user_{number}") for number in range(people)]

    async def work(line: Line, number: int) -> None:
        for step in range(count // people):
            item = items[(number + step // 2 * people) % len(items)]
            await line.ask("DELETE" if step % 2 else "POST", f"/org/me/inbox/{item}/dismiss")

    begun = time.perf_counter()
    await asyncio.gather(*(work(line, number) for number, line in enumerate(lines)))
    seconds = time.perf_counter() - begun
    for line in lines:
        line.close()
    return seconds


def cpu(process: psutil.Process) -> float:
    used = process.cpu_times()
    return used.user + used.system


def quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def latency(writes: Sequence[float], rounds: Sequence[float]) -> str:
    """Returns a Markdown table in milliseconds. Ratios compare with the same quantile of the baseline."""
    lines = [f"| ms, {len(writes)} of each, in turns | p50 | p90 | p99 |", f"|{' --- |' * 4}"]
    shares = (0.5, 0.9, 0.99)
    base = [quantile(rounds, share) for share in shares]
    mine = [quantile(writes, share) for share in shares]
    lines.append("| bare aiokafka produce → consume | " + " | ".join(f"{each * 1e3:.1f}" for each in base) + " |")
    lines.append("| dismiss, request → answer | " + " | ".join(f"{each * 1e3:.1f}" for each in mine) + " |")
    lines.append("| × bare | " + " | ".join(f"{a / b:.2f}" for a, b in zip(mine, base, strict=True)) + " |")
    return "\n".join(lines)


async def _run(given: argparse.Namespace) -> None:
    async with AsyncExitStack() as stack:
        ground = await stack.enter_async_context(grounds.ground(given.kafka, given.replication))
        broker = await ground.fresh()
        settings: dict[str, object] = {
            "kafka": broker, "replication": ground.replication, "log_partitions": PARTITIONS,
            "source_partitions": 1, "jwt_secret": SECRET, "write_rate": 1e6, "write_burst": 1_000_000}
        worker, _ = await stack.enter_async_context(role("worker", "metrics_port", settings))
        edge, port = await stack.enter_async_context(role("edge", "port", settings))
        # Each subject is opened once. Every sixteenth item is in the workspace ws_0, which the bench writes to.
        await produce(broker, SOURCE, source_events(given.items * 16, subjects=given.items * 16))
        items = await _items(port, given.items)
        bare = await stack.enter_async_context(_bare(ground, broker))
        sys.stdout.write(latency(*await _alone(port, bare, items, given.writes)) + "\n\n")
        lines = ["| concurrent users | writes/s | edge, CPU µs/write | worker, CPU µs/write |", f"|{' --- |' * 4}"]
        for people in given.people:
            count = max(people * 2, given.writes * 4) // people * people
            before = cpu(edge), cpu(worker)
            seconds = await _together(port, items, people, count)
            used = cpu(edge) - before[0], cpu(worker) - before[1]
            lines.append(f"| {people} | {count / seconds:,.0f} | {used[0] / count * 1e6:.0f} "
                         f"| {used[1] / count * 1e6:.0f} |")
        sys.stdout.write("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench writes", description=__doc__)
    parser.add_argument("--writes", type=int, default=2000, help="dismisses of the single client")
    parser.add_argument("--items", type=int, default=1000, help="open items of the workspace")
    parser.add_argument("--people", type=int, nargs="+", default=[1, 16, 128], help="numbers of concurrent users")
    grounds.add_options(parser)
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
