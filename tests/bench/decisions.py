"""Bench: latency and CPU of a decision, compared with a dismiss.

`attn worker` and `attn edge` run as an operator starts them. First one client measures in turns: the time from the
request of a dismiss to its response, from the request of a decision to its response, and from the same request to the
record on the topic `decisions`. Then many users write concurrently: first dismisses, then decisions. Compare ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition

from bench.harness import brokers as grounds
from bench.harness.workload import produce
from bench.writes import PARTITIONS, SECRET, Line, cpu, quantile, role
from schemas.scalars import format_timestamp
from schemas.topics import DECISIONS
from streams.runtime.clock import now_us

__all__ = ["main"]

_SECONDS = 300.0
_TURN = 25  # measurements of one kind in each turn
_WS = "ws_0"


class Asked(NamedTuple):
    """An item with a question. `answer`: the body of the request that decides it."""

    id: str
    digest: str

    @property
    def path(self) -> str:
        return f"/api/v1/inbox/{self.id}/decision"

    @property
    def answer(self) -> bytes:
        return json.dumps({"option": "approve", "digest": self.digest}).encode()


class Records:
    """Arrival times of the records of decisions. `at`: decision id -> `time.perf_counter`."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}
        self._changed = asyncio.Event()

    async def follow(self, consumer: AIOKafkaConsumer) -> None:
        async for record in consumer:
            self.at[json.loads(record.value)["data"]["decision"]] = time.perf_counter()
            self._changed.set()

    async def wait(self, decision: str) -> float:
        async with asyncio.timeout(_SECONDS):
            while decision not in self.at:
                self._changed.clear()
                await self._changed.wait()
        return self.at[decision]


@asynccontextmanager
async def _records(broker: str) -> AsyncIterator[Records]:
    async with AIOKafkaConsumer(bootstrap_servers=broker, enable_auto_commit=False, fetch_max_wait_ms=100) as consumer:
        partitions = [TopicPartition(DECISIONS, number) for number in range(PARTITIONS)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        records = Records()
        task = asyncio.create_task(records.follow(consumer))
        try:
            yield records
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _events(count: int) -> list[tuple[bytes | int, bytes]]:
    return [(_WS.encode(), json.dumps({
        "specversion": "1.0", "id": f"ask-{number}", "source": "/bench", "type": "waitpoint.created",
        "subject": f"wp_{number}", "time": format_timestamp(now_us()), "workspaceid": _WS,
        "data": {"title": f"Deploy {number}", "ask": {"action": {
            "name": "deploy", "args": {"service": "checkout", "version": f"2.{number}"}, "risk": "low"}}},
    }).encode()) for number in range(count)]


async def _items(port: int, expected: int) -> list[Asked]:
    """Waits until the inbox has `expected` items. Returns all of them."""
    line = await Line.open(port, "ann")
    try:
        async with asyncio.timeout(_SECONDS):
            while json.loads(await line.ask("GET", "/org/me/inbox"))["counts"]["total"] < expected:
                await asyncio.sleep(0.1)
        items: list[Asked] = []
        after = ""
        while True:
            page = json.loads(await line.ask("GET", f"/org/me/inbox?limit=500{after}"))
            items += [Asked(item["id"], item["digest"]) for item in page["items"]]
            if "next" not in page:
                return items
            after = f"&next={page['next']}"
    finally:
        line.close()


class Times(NamedTuple):
    """Seconds of each dismiss, of each decision, and from the request of each decision to its record."""

    dismisses: list[float]
    decisions: list[float]
    records: list[float]


async def _alone(port: int, records: Records, items: Sequence[Asked], count: int) -> Times:
    line, times = await Line.open(port, "ann"), Times([], [], [])
    try:
        for number in range(count):
            begun = time.perf_counter()
            await line.ask("POST", f"/org/me/inbox/{items[-1 - number % 100].id}/dismiss")
            times.dismisses.append(time.perf_counter() - begun)
            if number % _TURN == _TURN - 1:
                for item in items[number + 1 - _TURN:number + 1]:
                    begun = time.perf_counter()
                    answer = json.loads(await line.ask("POST", item.path, item.answer))
                    times.decisions.append(time.perf_counter() - begun)
                    times.records.append(await records.wait(answer["decision"]["id"]) - begun)
    finally:
        line.close()
    return Times(*(each[_TURN:] for each in times))  # without the first turn, the warm-up


async def _together(port: int, items: Sequence[Asked], people: int, decide: bool) -> float:
    """Returns the seconds in which `people` users dismiss or decide all items. Each user has a connection."""
    lines = [await Line.open(port, f"user_{number}") for number in range(people)]

    async def work(line: Line, mine: Sequence[Asked]) -> None:
        for item in mine:
            if decide:
                await line.ask("POST", item.path, item.answer)
            else:
                await line.ask("POST", f"/org/me/inbox/{item.id}/dismiss")

    begun = time.perf_counter()
    await asyncio.gather(*(work(line, items[number::people]) for number, line in enumerate(lines)))
    seconds = time.perf_counter() - begun
    for line in lines:
        line.close()
    return seconds


def latency(times: Times) -> str:
    """Returns a Markdown table in milliseconds. Ratios compare with the same quantile of dismisses."""
    shares = (0.5, 0.9, 0.99)
    base = [quantile(times.dismisses, share) for share in shares]
    lines = [f"| ms, {len(times.decisions)} of each, in turns | p50 | p90 | p99 |", f"|{' --- |' * 4}"]
    for name, values in (("dismiss, request → answer", times.dismisses),
                         ("decision, request → answer", times.decisions),
                         ("decision, request → record on `decisions`", times.records)):
        mine = [quantile(values, share) for share in shares]
        cells = [f"{value * 1e3:.1f} (×{value / of:.2f})" for value, of in zip(mine, base, strict=True)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


async def _run(given: argparse.Namespace) -> None:
    async with AsyncExitStack() as stack:
        ground = await stack.enter_async_context(grounds.ground(given.kafka, given.replication))
        broker = await ground.fresh()
        settings: dict[str, object] = {
            "kafka": broker, "replication": ground.replication, "log_partitions": PARTITIONS, "source_partitions": 1,
            "jwt_secret": SECRET, "write_rate": 1e6, "write_burst": 1_000_000}
        worker, _ = await stack.enter_async_context(role("worker", "metrics_port", settings))
        edge, port = await stack.enter_async_context(role("edge", "port", settings))
        total = given.decisions + given.together * len(given.people) + 100
        await produce(broker, "waitpoints", _events(total))
        items = await _items(port, total)
        records = await stack.enter_async_context(_records(broker))
        sys.stdout.write(latency(await _alone(port, records, items, given.decisions)) + "\n\n")
        lines = ["| concurrent users | request | per second | × dismiss | edge, CPU µs | worker, CPU µs |",
                 f"|{' --- |' * 6}"]
        left = items[given.decisions:-100]
        for people in given.people:
            portion, left = left[:given.together], left[given.together:]
            dismisses = 0.0
            for decide in (False, True):
                before = cpu(edge), cpu(worker)
                seconds = await _together(port, portion, people, decide)
                used = [(after - start) / len(portion) * 1e6 for start, after in
                        zip(before, (cpu(edge), cpu(worker)), strict=True)]
                rate = len(portion) / seconds
                dismisses = dismisses or rate
                lines.append(f"| {people} | {'decision' if decide else 'dismiss'} | {rate:,.0f} "
                             f"| {rate / dismisses:.2f} | {used[0]:.0f} | {used[1]:.0f} |")
        sys.stdout.write("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench decisions", description=__doc__)
    parser.add_argument("--decisions", type=int, default=1000, help="decisions of the single client")
    parser.add_argument("--together", type=int, default=1280, help="decisions of each number of concurrent users")
    parser.add_argument("--people", type=int, nargs="+", default=[16, 128], help="numbers of concurrent users")
    grounds.add_options(parser)
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
