"""`python -m ops.bench feed`: what a delivered frame and an idle stream cost, and that pages cost their length.

The servers run one after the other in processes of their own, so their CPU and memory are theirs alone; the readers are
here. Read the ratios: the machine is noisy.
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
from dataclasses import dataclass, field
from typing import Any

import jwt
import uvloop
from rich.console import Console
from rich.table import Table

from api.answers import Answers
from api.frames import Frames
from api.replica import Replica
from ops.bench.feed_servers import SECRET, VARIANTS
from schemas.log import Data
from schemas.views import ItemRow, PositionRow, encode
from streams.core.diff import Window
from streams.core.readers import Reader

__all__ = ["main"]

_STAMP = re.compile(rb"at=(\d+);")
_FRAME_BYTES = 100  # of body; a frame is about 600 then


class _Reader(asyncio.Protocol):
    """Counts frames and notes how old each was when it came."""

    def __init__(self, request: bytes, bench: _Readers) -> None:
        self._request, self._bench = request, bench
        self._begun = False
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if not self._begun and b"event: snapshot" in data:
            self._begun = True
            self._bench.open += 1
        now, end, data = time.monotonic_ns(), 0, self._rest + data
        for found in _STAMP.finditer(data):
            end = found.end()
            self._bench.frames += 1
            if self._bench.timing:
                self._bench.ages.append((now - int(found[1])) / 1e6)
        self._rest = data[max(end, len(data) - 40):]  # a stamp may be cut in two


@dataclass
class _Readers:
    open: int = 0
    frames: int = 0
    timing: bool = False
    ages: list[float] = field(default_factory=list)
    transports: list[asyncio.BaseTransport] = field(default_factory=list)

    async def connect(self, port: int, connections: int, workspaces: int) -> None:
        for number in range(connections):
            workspace = number % workspaces
            request = (
                f"GET /org/me/feed HTTP/1.1\r\nhost: bench\r\nx-workspace: {workspace}\r\n"
                f"authorization: Bearer {_token(workspace, number)}\r\n\r\n").encode()
            transport, _ = await asyncio.get_running_loop().create_connection(
                lambda request=request: _Reader(request, self), "127.0.0.1", port)  # type: ignore[misc]
            self.transports.append(transport)
            if number % 50 == 49:
                await self.until("open", number + 1)
        await self.until("open", connections)

    async def until(self, what: str, number: int) -> None:
        async with asyncio.timeout(120):
            while getattr(self, what) < number:  # noqa: ASYNC110 - a thousand readers need no event each
                await asyncio.sleep(0.005)


def _token(workspace: int, user: int) -> str:
    claims = {"sub": f"u{user}", "workspace_id": f"w{workspace}", "role": "MEMBER", "exp": int(time.time()) + 3600}
    return jwt.encode(claims, SECRET, "HS256")


@dataclass
class Result:
    """KB an idle stream, CPU µs a delivery for one frame and for eight at once, ms from publish to frame."""

    kb: float
    one: float
    eight: float
    p50: float
    p99: float


async def measure(variant: str, connections: int, workspaces: int, rounds: int) -> Result:
    command = [sys.executable, "-m", "ops.bench.feed_servers", variant, str(workspaces), str(_FRAME_BYTES)]
    server = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdin is not None
    assert server.stdout is not None

    async def ask(**what: Any) -> dict[str, Any]:
        server.stdin.write(json.dumps(what).encode() + b"\n")  # type: ignore[union-attr]
        return await answer()

    async def answer() -> dict[str, Any]:
        return dict(json.loads(await server.stdout.readline()))  # type: ignore[union-attr]

    readers = _Readers()
    try:
        port = (await answer())["port"]
        # A first reader of each workspace pays for what is made once.
        warm = _Readers()
        await warm.connect(port, workspaces, workspaces)
        before = (await ask(do="weigh"))["rss"]
        await readers.connect(port, connections, workspaces)
        kb = ((await ask(do="weigh"))["rss"] - before) / connections / 1024
        for transport in warm.transports:
            transport.abort()  # type: ignore[attr-defined]
        await publish(ask, readers, connections, 10, 1, 0.0)
        one, eight = [
            await publish(ask, readers, connections, max(1, rounds // each), each, 0.0) for each in (1, 8)]
        readers.timing = True
        await publish(ask, readers, connections, 100, 1, 0.05)
    finally:
        for transport in readers.transports:
            transport.abort()  # type: ignore[attr-defined]
        server.kill()
        await server.wait()
    ages = statistics.quantiles(readers.ages, n=100)
    return Result(kb, one, eight, ages[49], ages[98])


async def publish(
    ask: Any, readers: _Readers, connections: int, rounds: int, each: int, pause: float
) -> float:
    """CPU µs of the server for one delivered frame."""
    begun, frames = (await ask(do="look"))["cpu"], readers.frames
    await ask(do="publish", rounds=rounds, each=each, pause=pause)
    await readers.until("frames", frames + rounds * each * connections)
    return ((await ask(do="look"))["cpu"] - begun) / (rounds * each * connections) * 1e6


def pages(sizes: tuple[int, ...], times: int = 300) -> dict[int, tuple[float, float, float]]:
    """Open items -> CPU µs of the first page of 100, of the counts, and of one change with its frames."""
    return {size: _page(size, times) for size in sizes}


def _page(size: int, times: int) -> tuple[float, float, float]:
    rows = {}
    for number in range(size):
        row = ItemRow(
            id=f"ibx_{number:032x}", ws="w", kind="message", source_id=str(number), state="unread",
            data=Data(title=f"item {number}", cluster=f"c{number % 20}"), created_at=number, due_at=number)
        rows[b"i:" + row.id.encode()] = encode(row)
    replica, reader = Replica(1), Reader("w", "u", frozenset({"MEMBER"}))
    replica.load(0, rows, PositionRow(next=1))
    space, answers = replica.space("w"), Answers()
    frames, window = Frames(answers), Window(reader, 500, space)
    page = _cpu(times, lambda: answers.inbox(space, reader, 0, 100))
    counts = _cpu(times, lambda: space.counts(reader))
    raws, changing, at = list(rows.items()), iter(range(1, times + 1)), iter(range(2, times + 2))

    def change() -> None:
        number = next(changing)
        key, raw = raws[number * 7919 % len(raws)]
        other = raw.replace(b'"title":"item', b'"title":"changed %d item' % number)
        for update in replica.apply(0, [(key, other)], PositionRow(next=next(at))):
            frames.of(update, window)

    return page, counts, _cpu(times, change)


def _cpu(times: int, call: Any) -> float:
    call()
    runs = []
    for _ in range(5):
        begun = time.process_time()
        for _ in range(max(1, times // 6)):
            call()
        runs.append((time.process_time() - begun) / max(1, times // 6) * 1e6)
    return min(runs)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ops.bench feed", description=__doc__)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--workspaces", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=200, help="times each workspace changes")
    parser.add_argument("--items", type=int, default=100_000, help="open items of the large inbox")
    given = parser.parse_args()
    console = Console(width=110)
    results = {
        variant: uvloop.run(measure(variant, given.connections, given.workspaces, given.rounds)) for variant in VARIANTS
    }
    table = Table(title=f"{given.connections} connections in {given.workspaces} workspaces")
    names = ("server", "KB a stream", "CPU µs a frame", "of the floor", "8 at once", "of the floor", "p50 ms", "p99 ms")
    for name in names:
        table.add_column(name, justify="left" if name == "server" else "right")
    base = results["floor"]
    for variant, one in results.items():
        table.add_row(variant, f"{one.kb:.1f}", f"{one.one:.1f}", f"{one.one / base.one:.2f}", f"{one.eight:.1f}",
                      f"{one.eight / base.eight:.2f}", f"{one.p50:.1f}", f"{one.p99:.1f}")
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
