"""`python -m bench feed`: CPU of a delivered frame, memory of an idle stream, and CPU of a page in a large inbox.

Each server runs in its own process, which has the CPU and memory of this server only. The readers run in the process of
the bench. Compare ratios: machines are noisy.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jwt
import uvloop
from rich.console import Console
from rich.table import Table

from api.live.frames import FrameEncoder
from api.readmodel.pages import PageRenderer, PageRequest
from api.readmodel.readers import Reader
from api.readmodel.replica import Replica
from api.readmodel.window import Window
from bench.feed import centrifugo
from bench.feed.servers import SECRET, VARIANTS
from schemas.log import Data
from schemas.views import ItemRow, PositionRow, encode_row

__all__ = ["main"]

_STAMP = re.compile(rb"at=(\d+);")
_FRAME_BYTES = 100  # bytes of the body of an item; its frame then has about 600


class _Reader(asyncio.Protocol):
    """Counts frames, and records the age of each at its arrival in milliseconds."""

    def __init__(self, request: bytes, bench: _Readers) -> None:
        self._request, self._bench = request, bench
        self._begun = False
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if not self._begun and (b"event: snapshot" in data or b'{"connect":' in data):
            self._begun = True
            self._bench.open += 1
        now, end, data = time.monotonic_ns(), 0, self._rest + data
        for stamp in _STAMP.finditer(data):
            end = stamp.end()
            self._bench.frames += 1
            if self._bench.timing:
                self._bench.ages.append((now - int(stamp[1])) / 1e6)
        self._rest = data[max(end, len(data) - 40):]  # a timestamp may be split between two chunks


@dataclass
class _Readers:
    open: int = 0
    frames: int = 0
    timing: bool = False
    ages: list[float] = field(default_factory=list)
    transports: list[asyncio.BaseTransport] = field(default_factory=list)

    async def connect(self, variant: str, port: int, connections: int, workspaces: int) -> None:
        for number in range(connections):
            workspace = number % workspaces
            request = (centrifugo.request(workspace, number, SECRET) if variant == "centrifugo" else (
                f"GET /org/me/feed HTTP/1.1\r\nhost: bench\r\nx-workspace: {workspace}\r\n"
                f"authorization: Bearer {_token(workspace, number)}\r\n\r\n")).encode()
            transport, _ = await asyncio.get_running_loop().create_connection(
                lambda request=request: _Reader(request, self), "127.0.0.1", port)  # type: ignore[misc]
            self.transports.append(transport)
            if number % 50 == 49:
                await self.until("open", number + 1)
        await self.until("open", connections)

    async def until(self, what: str, number: int) -> None:
        async with asyncio.timeout(120):
            while getattr(self, what) < number:
                await asyncio.sleep(0.005)


def _token(workspace: int, user: int) -> str:
    claims = {"sub": f"u{user}", "workspace_id": f"w{workspace}", "role": "MEMBER", "exp": int(time.time()) + 3600}
    return jwt.encode(claims, SECRET, "HS256")


class Server:
    """One variant of the server in its own process, and its readers in this process."""

    def __init__(self, variant: str, process: asyncio.subprocess.Process) -> None:
        self.variant, self._process = variant, process
        self.readers = _Readers()
        self.kb = 0.0
        self.costs: dict[int, list[float]] = {1: [], 8: []}

    async def ask(self, **what: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what).encode() + b"\n")
        return await self.answer()

    async def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        return dict(json.loads(await self._process.stdout.readline()))

    async def connect(self, connections: int, workspaces: int) -> None:
        port = (await self.answer())["port"]
        warm = _Readers()  # the first reader of each workspace creates what later readers share
        await warm.connect(self.variant, port, workspaces, workspaces)
        before = (await self.ask(do="weigh"))["rss"]
        await self.readers.connect(self.variant, port, connections, workspaces)
        self.kb = ((await self.ask(do="weigh"))["rss"] - before) / connections / 1024
        for transport in warm.transports:
            transport.abort()  # type: ignore[attr-defined]

    async def publish(self, rounds: int, each: int, pause: float = 0.0) -> float:
        """Publishes frames and waits until all readers have them. Returns the server's CPU µs per delivered frame."""
        begun = (await self.ask(do="look"))["cpu"]
        wanted = rounds * each * len(self.readers.transports)
        frames = self.readers.frames + wanted
        await self.ask(do="publish", rounds=rounds, each=each, pause=pause)
        await self.readers.until("frames", frames)
        return float((await self.ask(do="look"))["cpu"] - begun) / wanted * 1e6

    async def stop(self) -> None:
        for transport in self.readers.transports:
            transport.abort()  # type: ignore[attr-defined]
        self._process.kill()
        await self._process.wait()


async def measure(connections: int, workspaces: int, slices: int, rounds: int, variants: Sequence[str]) -> list[Server]:
    """Starts all variants and measures them in turns, in short slices: other load then affects all alike."""
    servers = []
    try:
        for variant in variants:
            command = [sys.executable, "-m", "bench.feed.servers", variant, str(workspaces), str(_FRAME_BYTES)]
            servers.append(Server(variant, await asyncio.create_subprocess_exec(
                *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)))
            await servers[-1].connect(connections, workspaces)
            await servers[-1].publish(5, 1)
        for _ in range(slices):
            for each in (1, 8):
                for server in servers:
                    server.costs[each].append(await server.publish(max(1, rounds // each), each))
        for server in servers:
            server.readers.timing = True
            await server.publish(100, 1, 0.05)
    finally:
        for server in servers:
            await server.stop()
    return servers


class Inbox:
    """A replica with `size` open items in one workspace, and the window of one reader."""

    def __init__(self, size: int) -> None:
        self.rows = [_row(number, size) for number in range(size)]
        self.replica, self.reader = Replica(1), Reader("w", "u", frozenset({"MEMBER"}))
        self.replica.load(0, dict(self.rows), PositionRow(next=1))
        self.space, self.answers = self.replica.workspace("w"), PageRenderer()
        self.frames, self.window = FrameEncoder(self.answers), Window(self.reader, 500, self.space)
        self.position, self.turn = 1, 0

    def page(self) -> None:
        self.answers.inbox_page(self.space, self.reader, 0, PageRequest(100))

    def counts(self) -> None:
        self.space.counts(self.reader)

    def change(self) -> None:
        """Resolves one of the first items, or opens it again. It leaves or enters the window and all indexes."""
        self.position += 1
        self.turn += 1
        key, raw = self.rows[self.turn // 2 % 50]
        new = raw.replace(b'"state":"unread"', b'"state":"resolved"') if self.turn % 2 == 0 else raw
        for update in self.replica.apply(0, [(key, new)], PositionRow(next=self.position)):
            self.frames.encode_batch(update, self.window)


def _row(number: int, size: int) -> tuple[bytes, bytes]:
    row = ItemRow(
        id=f"ibx_{number:032x}", ws="w", kind="message", source_id=str(number), state="unread",
        data=Data(title=f"item {number}", cluster=f"c{number % 20}"), created_at=number, due_at=number)
    return b"i:" + row.id.encode(), encode_row(row)


def pages(sizes: tuple[int, ...], times: int = 50, turns: int = 9) -> dict[int, list[float]]:
    """Returns open items -> CPU µs of the first page of 100, of the counts, and of one change with its frames."""
    inboxes = [Inbox(size) for size in sizes]
    medians: dict[int, list[float]] = {size: [] for size in sizes}
    for work in (Inbox.page, Inbox.counts, Inbox.change):
        costs: dict[int, list[float]] = {size: [] for size in sizes}
        for _ in range(turns):  # in turns: other load then affects all sizes alike
            for size, inbox in zip(sizes, inboxes, strict=True):
                begun = time.process_time()
                for _ in range(times):
                    work(inbox)
                costs[size].append((time.process_time() - begun) / times * 1e6)
        for size in sizes:
            medians[size].append(statistics.median(costs[size]))
    return medians


def _beside(costs: list[float], floor: list[float]) -> tuple[str, str]:
    """Returns the median of the slices, and the median ratio to the slice of the floor in the same turn."""
    ratios = [cost / base for cost, base in zip(costs, floor, strict=True)]
    return f"{statistics.median(costs):.1f}", f"{statistics.median(ratios):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench feed", description=__doc__)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--workspaces", type=int, default=20)
    parser.add_argument("--slices", type=int, default=9, help="turns of each server")
    parser.add_argument("--rounds", type=int, default=32, help="changes of each workspace in a slice")
    parser.add_argument("--items", type=int, default=100_000, help="open items of the large inbox")
    given = parser.parse_args()
    console = Console(width=110)
    variants = list(VARIANTS)
    if reason := centrifugo.unavailable():
        variants.remove("centrifugo")
        console.print(f"without Centrifugo: {reason}")
    servers = uvloop.run(measure(given.connections, given.workspaces, given.slices, given.rounds, variants))
    table = Table(title=f"{given.connections} connections in {given.workspaces} workspaces")
    names = ("server", "KB/stream", "CPU µs/frame", "× floor", "8 frames at a time", "× floor", "p50 ms", "p99 ms")
    for name in names:
        table.add_column(name, justify="left" if name == "server" else "right")
    floor = next(server for server in servers if server.variant == "floor")
    for server in servers:
        ages = statistics.quantiles(server.readers.ages, n=100)
        costs = [cell for each in (1, 8) for cell in _beside(server.costs[each], floor.costs[each])]
        table.add_row(server.variant, f"{server.kb:.1f}", *costs, f"{ages[49]:.1f}", f"{ages[98]:.1f}")
    console.print(table)
    table = Table(title="CPU µs by open items")
    for name in ("open items", "first page of 100", "counts", "a change and its frame"):
        table.add_column(name, justify="right")
    costs = pages((100, given.items))
    for size, cost in costs.items():
        table.add_row(f"{size:,}", *(f"{value:.0f}" for value in cost))
    small, large = costs.values()
    table.add_row("ratio", *(f"{after / before:.2f}" for before, after in zip(small, large, strict=True)))
    console.print(table)


if __name__ == "__main__":
    main()
