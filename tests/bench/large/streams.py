"""Streams of many workspaces, or of one hot workspace, on a running edge. Part of `bench large`.

The bench writes changed rows into `attn.views` as a worker does: a batch of rows that ends with its position. A title
holds the time of the write, so a reader knows how old a frame is.
"""

from __future__ import annotations

import asyncio
import random
import re
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import httpx
import jwt
from aiokafka import AIOKafkaProducer

from bench.large.fill import HOT, Shape
from bench.large.memory import PARTITIONS
from bench.large.rows import BEGIN, workspace_name
from bench.large.running_edge import SECRET, RunningEdge
from schemas.log import Data
from schemas.topics import VIEWS, partition_of
from schemas.views import ItemRow, PositionRow, encode_row, position_key

__all__ = ["Streams"]

_STAMP = re.compile(rb"at=(\d+);")
_ID = re.compile(rb"\nid: (\d+)")
_SECONDS = 120.0
_AT_ONCE = 50  # connections that are opened together
# Connections from one source address: fewer than ephemeral ports, also with those that were just closed.
_PER_ADDRESS = 15_000
_FIRST_POSITION = 200_000_000  # above those of the filled topic


@dataclass
class _Crowd:
    """Counts of all readers. `ages`: milliseconds from the write of a row to its frame, of every frame."""

    open: int = 0
    frames: int = 0
    lost: int = 0
    ages: list[float] = field(default_factory=list)
    readers: list[_Reader] = field(default_factory=list)

    async def until(self, name: str, number: int) -> None:
        async with asyncio.timeout(_SECONDS):
            while getattr(self, name) < number:
                await asyncio.sleep(0.005)


class _Reader(asyncio.Protocol):
    """One stream. `cursor`: the last id that it received."""

    def __init__(self, request: bytes, crowd: _Crowd, resumes: bool) -> None:
        self._request, self._crowd, self._begun = request, crowd, resumes
        self._rest = b""
        self.cursor = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        self.transport.write(self._request)
        if self._begun:
            self._crowd.open += 1

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        if not self._begun:
            if b"event: snapshot" not in data:
                self._rest = data[-200:]
                return
            self._begun = True
            self._crowd.open += 1
        end, now = 0, time.monotonic_ns()
        if ids := _ID.findall(data):
            self.cursor = ids[-1]
        for found in _STAMP.finditer(data):
            end = found.end()
            self._crowd.frames += 1
            self._crowd.ages.append((now - int(found[1])) / 1e6)
        self._rest = data[max(end, len(data) - 40):]

    def connection_lost(self, error: Exception | None) -> None:
        self._crowd.lost += 1


class Streams:
    def __init__(self, edge: RunningEdge, bootstrap: str, shape: Shape) -> None:
        self._edge, self._bootstrap, self._shape = edge, bootstrap, shape
        self._position = _FIRST_POSITION
        self._random = random.Random(3)
        self._connected = 0  # connections so far

    async def measure(self, streams: int, changes: int) -> str:
        """Opens the streams, a few in each workspace, and times changes. Returns the results as text."""
        names = [workspace_name(number % self._shape.workspaces) for number in range(streams)]
        crowd = _Crowd()
        cpu, rss, begun = self._edge.cpu(), self._edge.rss(), time.monotonic()
        await self._connect(crowd, names)
        seconds, opened = time.monotonic() - begun, self._edge.cpu() - cpu
        text = (f"\n{streams:,} streams: open after {seconds:.1f} s, {opened / streams * 1e3:.2f} ms of CPU each with "
                f"the indexes of their workspaces, memory + {(self._edge.rss() - rss) / 1e6:,.0f} MB, "
                f"now {self._edge.rss() / 1e6:,.0f} MB")
        cpu = self._edge.cpu()
        chosen = [self._random.choice(names) for _ in range(changes)]
        counts = {name: names.count(name) for name in set(chosen)}
        async with AIOKafkaProducer(bootstrap_servers=self._bootstrap, acks="all") as producer:
            for at, name in enumerate(chosen):
                await self._write(producer, name, at)
                await asyncio.sleep(0.005)
            await crowd.until("frames", sum(counts[name] for name in chosen))
        text += f"\n{changes:,} changes at about 200/s: {self._told(crowd, cpu)}"
        self._disconnect(crowd)
        return text

    async def measure_hot(self, items: int, readers: int) -> str:
        crowd, names = _Crowd(), [HOT] * readers
        lines = [f"\nhot workspace, {items:,} open items, {readers:,} readers:"]
        lines.append(await self._first_request("first page of 100, first request", "/org/me/inbox?limit=100"))
        lines.append(await self._requests("first page of 100", "/org/me/inbox?limit=100"))
        lines.append(await self._requests("page of one, mostly the counts", "/org/me/inbox?limit=1"))
        cpu, rss, begun = self._edge.cpu(), self._edge.rss(), time.monotonic()
        await self._connect(crowd, names)
        lines.append(self._spent("all readers connect, 50 at once, and get a snapshot", cpu, rss, begun))
        cpu, rss, lasts = self._edge.cpu(), self._edge.rss(), []
        async with AIOKafkaProducer(bootstrap_servers=self._bootstrap, acks="all") as producer:
            for at in range(20):
                crowd.ages.clear()
                await self._write(producer, HOT, at)
                await crowd.until("frames", (at + 1) * readers)
                lasts.append(max(crowd.ages))
            used = (self._edge.cpu() - cpu) / 20 / readers * 1e6
            lines.append(f"- change → last frame: p50 {statistics.median(lasts):.0f} ms, max {max(lasts):.0f} ms; "
                         f"{used:.1f} µs of CPU per frame")
            cursors = [reader.cursor for reader in crowd.readers]
            self._disconnect(crowd)
            await crowd.until("lost", readers)
            for at in range(50):
                await self._write(producer, HOT, 100 + at)
        await asyncio.sleep(1)
        crowd = _Crowd()
        cpu, rss, begun = self._edge.cpu(), self._edge.rss(), time.monotonic()
        await self._connect(crowd, names, cursors, at_once=readers)
        await crowd.until("frames", 50 * readers)
        lines.append(self._spent("all readers resume at once, 50 changes behind", cpu, rss, begun))
        self._disconnect(crowd)
        await crowd.until("lost", readers)
        crowd = _Crowd()
        cpu, rss, begun = self._edge.cpu(), self._edge.rss(), time.monotonic()
        await self._connect(crowd, names, at_once=readers)
        lines.append(self._spent("all readers connect at once and get a snapshot", cpu, rss, begun))
        self._disconnect(crowd)
        return "\n".join(lines)

    def _spent(self, what: str, cpu: float, rss: int, begun: float) -> str:
        return (f"- {what}: {time.monotonic() - begun:.1f} s, {self._edge.cpu() - cpu:.1f} s of CPU, "
                f"memory {(self._edge.rss() - rss) / 1e6:+,.0f} MB")

    def _told(self, crowd: _Crowd, cpu: float) -> str:
        cuts = statistics.quantiles(crowd.ages, n=100)
        return (f"write → frame p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms; "
                f"{(self._edge.cpu() - cpu) / crowd.frames * 1e6:.0f} µs of CPU per frame")

    async def _write(self, producer: AIOKafkaProducer, name: str, number: int) -> None:
        """Writes a new item, the most urgent one of its workspace, as one batch."""
        self._position += 1
        partition = partition_of(name, PARTITIONS)
        row = ItemRow(
            id=f"ibx_{self._position:032x}", ws=name, kind="message", source_id=str(self._position), state="unread",
            rev=self._position, band=0, blocking=True, priority="urgent", created_at=BEGIN, due_at=BEGIN - number,
            data=Data(title=f"at={time.monotonic_ns()};", body_md="x" * 200))
        batch = producer.create_batch()
        for key, value in ((b"i:" + row.id.encode(), encode_row(row)),
                           (position_key(partition), encode_row(PositionRow(self._position, BEGIN)))):
            batch.append(key=key, value=value, timestamp=None)
        await (await producer.send_batch(batch, VIEWS, partition=partition))

    async def _connect(
        self, crowd: _Crowd, names: list[str], cursors: Iterable[bytes] = (), at_once: int = _AT_ONCE
    ) -> None:
        loop, behind = asyncio.get_running_loop(), list(cursors)
        opening = []
        for number, name in enumerate(names):
            cursor = behind[number] if behind else b""
            request = _request(name, number, cursor)
            address = f"127.0.0.{2 + self._connected // _PER_ADDRESS}"
            self._connected += 1
            factory = partial(_Reader, request, crowd, bool(cursor))
            opening.append(loop.create_connection(factory, "127.0.0.1", self._edge.port, local_addr=(address, 0)))
            if len(opening) == at_once or number == len(names) - 1:
                crowd.readers += [reader for _, reader in await asyncio.gather(*opening)]
                opening.clear()
                await crowd.until("open", number + 1)
        if not behind:  # snapshots have the items that earlier runs wrote into kept data
            crowd.frames = 0
            crowd.ages.clear()

    @staticmethod
    def _disconnect(crowd: _Crowd) -> None:
        for reader in crowd.readers:
            assert reader.transport is not None
            reader.transport.abort()

    async def _first_request(self, text: str, path: str) -> str:
        return await self._requests(text, path, 1)

    async def _requests(self, text: str, path: str, times: int = 30) -> str:
        headers = {"authorization": f"Bearer {_token(HOT, 0)}"}
        base = f"http://127.0.0.1:{self._edge.port}"
        async with httpx.AsyncClient(base_url=base, timeout=60, trust_env=False) as client:
            cpu, waits = self._edge.cpu(), []
            for _ in range(times):
                begun = time.perf_counter()
                (await client.get(path, headers=headers)).raise_for_status()
                waits.append((time.perf_counter() - begun) * 1e3)
        used = (self._edge.cpu() - cpu) / times * 1e3
        return f"- {text}: p50 {statistics.median(waits):.1f} ms, {used:.1f} ms of CPU"


def _token(name: str, number: int) -> str:
    claims = {"sub": f"reader_{number}", "workspace_id": name, "role": "MEMBER", "exp": int(time.time()) + 7200}
    return jwt.encode(claims, SECRET, "HS256")


def _request(name: str, number: int, cursor: bytes) -> bytes:
    resume = b"last-event-id: %b\r\n" % cursor if cursor else b""
    return (b"GET /org/me/feed?limit=100 HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer %b\r\n%b\r\n"
            % (_token(name, number).encode(), resume))
