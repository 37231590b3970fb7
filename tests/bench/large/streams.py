"""Streams of many workspaces, or of one hot workspace, on a running edge. Part of `bench large`.

The bench writes changed rows into `attn.views` as a worker does: a batch of rows that ends with its position. A title
holds the time of the write, so a reader knows how old a frame is.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import Counter
from typing import Any

import httpx
from aiokafka import AIOKafkaProducer

from bench.large.fill import HOT, Shape
from bench.large.memory import PARTITIONS, position_row
from bench.large.readers import Readers, token
from bench.large.rows import BEGIN, workspace_name
from bench.large.running_edge import RunningEdge
from schemas.log import Data
from schemas.topics import VIEWS, partition_of
from schemas.views import ItemRow, MarkRow, encode_row, position_key
from streams.core.domain.keys import item_id, mark_key

__all__ = ["Streams"]

_AT_ONCE = 50  # connections that are opened together
_PER_PROCESS = 9_800  # readers
_FIRST_POSITION = 200_000_000  # above those of the filled topic
_HOT_CHANGES = 40
_STALLED = 5  # readers that never read
_BEHIND = 50  # changes that readers missed who resume
_PROCESSES = 2


class Streams:
    def __init__(self, edge: RunningEdge, bootstrap: str, shape: Shape) -> None:
        self._edge, self._bootstrap, self._shape = edge, bootstrap, shape
        # Above the positions of an earlier run on the same data.
        self._position = _FIRST_POSITION + int(time.time())
        self._random = random.Random(3)

    async def measure(self, streams: int, changes: int) -> str:
        """Opens the streams, a few in each workspace, and times changes. Returns the results as text."""
        specs = [(workspace_name(number % self._shape.workspaces), number) for number in range(streams)]
        before = self._edge.used()
        async with Readers(self._edge.port, specs, -(-streams // _PER_PROCESS)) as readers:
            begun = time.monotonic()
            await readers.all("connect", at_once=_AT_ONCE, resume=False)
            used = self._edge.used()
            text = (f"\n{streams:,} streams: open after {time.monotonic() - begun:.1f} s, "
                    f"{(used.cpu - before.cpu) / streams * 1e3:.2f} ms of CPU each with the indexes of their "
                    f"workspaces, {(used.rss - before.rss) / streams / 1e3:.1f} KB each with these, now "
                    f"{used.rss / 1e6:,.0f} MB")
            chosen = [self._random.choice(specs)[0] for _ in range(changes)]
            before, own = self._edge.used(), readers.cpu()
            async with AIOKafkaProducer(bootstrap_servers=self._bootstrap, acks="all") as producer:
                for at, name in enumerate(chosen):
                    await self._write(producer, name, at)
                    await asyncio.sleep(0.005)
                ages = await readers.frames_of(Counter(chosen))
            text += (f"\n{changes:,} changes at about 200/s: {self._told(ages, before.cpu)}; "
                     f"CPU of the clients {readers.cpu() - own:.1f} s")
        return text

    async def measure_hot(self, items: int, readers: int, personal: bool) -> str:
        """Measures the hot workspace. `personal`: each reader has dismissed an item, hence a window of its own."""
        kind = "each with a window of its own" if personal else "who share a window"
        lines = [f"\nhot workspace, {items:,} open items, {readers:,} readers {kind}:"]
        specs = [(HOT, number) for number in range(readers)]
        async with AIOKafkaProducer(bootstrap_servers=self._bootstrap, acks="all") as producer:
            if personal:
                await self._dismiss(producer, readers)
            lines.append(await self._requests("first page of 100, first request", "/org/me/inbox?limit=100", 1))
            lines.append(await self._requests("first page of 100", "/org/me/inbox?limit=100"))
            lines.append(await self._requests("page of one, mostly the counts", "/org/me/inbox?limit=1"))
            async with Readers(self._edge.port, specs, _PROCESSES) as crowd:
                lines += await self._hot_streams(crowd, producer, readers)
        return "\n".join(lines)

    async def _hot_streams(self, crowd: Readers, producer: AIOKafkaProducer, readers: int) -> list[str]:
        before, begun = self._edge.used(), time.monotonic()
        await crowd.all("connect", at_once=_AT_ONCE, resume=False)
        used = self._edge.used()
        lines = [self._spent("all connect, 100 at once, and get a snapshot", before, begun)
                 + f" ({(used.rss - before.rss) / readers / 1e3:.1f} KB each)"]
        lines.append(await self._changes("change", crowd, producer, readers))
        await crowd.first("stall", name=HOT, readers=_STALLED)
        before = self._edge.used()
        lines.append(await self._changes(f"change, {_STALLED} more readers never read", crowd, producer, readers)
                     + f"; memory {(self._edge.rss() - before.rss) / 1e6:+,.0f} MB")
        await crowd.all("close")
        for at in range(_BEHIND):
            await self._write(producer, HOT, 1000 + at)
        await asyncio.sleep(2)
        begun, before = time.monotonic(), self._edge.used()
        await crowd.all("connect", at_once=100_000, resume=True)
        opened = self._spent(f"all resume at once, {_BEHIND} changes behind: first bytes", before, begun)
        ages = await crowd.frames(_BEHIND)
        assert len(ages) == _BEHIND * readers, (len(ages), sorted(ages)[:5], sorted(ages)[-5:])
        lines += [opened, self._spent("  until all have all frames", before, begun)]
        await crowd.all("close")
        before, begun = self._edge.used(), time.monotonic()
        await crowd.all("connect", at_once=100_000, resume=False)
        lines.append(self._spent("all connect at once and get a snapshot", before, begun))
        lines.append(await self._restart(crowd))
        return lines

    async def _restart(self, crowd: Readers) -> str:
        """Kills the edge and starts it again. All readers connect at once when it is ready."""
        await self._edge.restart()
        ready = await self._edge.wait_ready()
        await crowd.all("lose")
        before, begun = self._edge.used(), time.monotonic()
        answers = await crowd.all("connect", at_once=100_000, resume=True)
        waits = sorted(at for answer in answers for at in answer["open"])
        return (f"- edge killed and ready again after {ready:.1f} s; then "
                + self._spent("all reconnect at once with their cursors", before, begun)[2:]
                + f"; first bytes p50 {statistics.median(waits):.1f} s, last {waits[-1]:.1f} s")

    async def _changes(self, what: str, crowd: Readers, producer: AIOKafkaProducer, readers: int) -> str:
        before, own, ages, lasts = self._edge.used(), crowd.cpu(), [], []
        for at in range(_HOT_CHANGES):
            await self._write(producer, HOT, at)
            some = await crowd.frames(1)
            ages += some
            lasts.append(max(some))
            await asyncio.sleep(0.1)
        used = (self._edge.cpu() - before.cpu) / _HOT_CHANGES
        cuts = statistics.quantiles(ages, n=100)
        return (f"- {what} → frame of each reader: p50 {cuts[49]:.0f} ms, p99 {cuts[98]:.0f} ms, last reader p50 "
                f"{statistics.median(lasts):.0f} ms, max {max(lasts):.0f} ms; {used * 1e3:.1f} ms of CPU per change, "
                f"{used / readers * 1e6:.1f} µs per frame (clients {(crowd.cpu() - own) / _HOT_CHANGES * 1e3:.0f} ms)")

    async def _dismiss(self, producer: AIOKafkaProducer, readers: int) -> None:
        """Gives each reader a mark on an item of its own."""
        partition = partition_of(HOT, PARTITIONS)
        for first in range(0, readers, 200):
            rows: list[tuple[bytes, Any]] = []
            for number in range(first, min(first + 200, readers)):
                item = item_id(HOT, "message", str(number))
                rows.append((mark_key(item, f"reader_{number}"), MarkRow(HOT, item, f"reader_{number}", 0, None, 1)))
            await self._append(producer, partition, rows)

    def _spent(self, what: str, before: Any, begun: float) -> str:
        used = self._edge.used()
        return (f"- {what}: {time.monotonic() - begun:.1f} s, {used.cpu - before.cpu:.1f} s of CPU, "
                f"memory {(used.rss - before.rss) / 1e6:+,.0f} MB")

    def _told(self, ages: list[float], cpu: float) -> str:
        cuts = statistics.quantiles(ages, n=100)
        return (f"write → frame p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms; "
                f"{(self._edge.cpu() - cpu) / len(ages) * 1e6:.0f} µs of CPU per frame")

    async def _write(self, producer: AIOKafkaProducer, name: str, number: int) -> None:
        """Writes a new item, the most urgent one of its workspace, as one batch."""
        row = ItemRow(
            id=f"ibx_{self._position + 1:032x}", ws=name, kind="message", source_id=str(self._position + 1),
            state="unread", rev=self._position, band=0, blocking=True, priority="urgent", created_at=BEGIN,
            due_at=BEGIN - number, data=Data(title=f"at={time.monotonic_ns()};", body_md="x" * 200))
        await self._append(producer, partition_of(name, PARTITIONS), [(b"i:" + row.id.encode(), row)])

    async def _append(self, producer: AIOKafkaProducer, partition: int, rows: list[tuple[bytes, Any]]) -> None:
        self._position += 1
        batch = producer.create_batch()
        for key, row in (*rows, (position_key(partition), position_row(self._position))):
            batch.append(key=key, value=encode_row(row), timestamp=None)
        await (await producer.send_batch(batch, VIEWS, partition=partition))

    async def _requests(self, text: str, path: str, times: int = 30) -> str:
        headers = {"authorization": f"Bearer {token(HOT, 0)}"}
        base = f"http://127.0.0.1:{self._edge.port}"
        async with httpx.AsyncClient(base_url=base, timeout=60, trust_env=False) as client:
            cpu, waits = self._edge.cpu(), []
            for _ in range(times):
                begun = time.perf_counter()
                (await client.get(path, headers=headers)).raise_for_status()
                waits.append((time.perf_counter() - begun) * 1e3)
        used = (self._edge.cpu() - cpu) / times * 1e3
        return f"- {text}: p50 {statistics.median(waits):.1f} ms, {used:.1f} ms of CPU"
