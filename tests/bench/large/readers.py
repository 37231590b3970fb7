"""A process that holds readers of feeds, and the object by which the bench controls it. Part of `bench large`.

A process may open 20,000 files on some machines, as many as the edge. Therefore the readers are in processes of their
own. The bench sends one JSON object a line; each is answered by one line.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any, Self, cast

import jwt
import psutil
import uvloop

from bench.large.running_edge import SECRET

__all__ = ["Readers", "token"]

_STAMP = re.compile(rb"at=(\d+);")
_RETRY = re.compile(rb"\nretry: (\d+)\n")
_ID = re.compile(rb"\nid: (\d+)")
_SECONDS = 300.0
_LINE = 64 << 20  # bytes of the longest answer: the ages of a million frames
_RETRY_SECONDS = 3.0  # an EventSource's delay without a `retry` field
_STALLED_BUFFER = 4096  # bytes that the kernel receives for a reader that never reads


def token(name: str, number: int) -> str:
    claims = {"sub": f"reader_{number}", "workspace_id": name, "role": "MEMBER", "exp": int(time.time()) + 7200}
    return jwt.encode(claims, SECRET, "HS256")


class _Reader(asyncio.Protocol):
    """One stream. `cursor`: the last id that it received. `at`: its place in the crowd."""

    def __init__(self, crowd: _Crowd, at: int, request: bytes, cursor: bytes = b"", stalled: bool = False) -> None:
        self._crowd, self.at, self._request, self._stalled = crowd, at, request, stalled
        self._rest = b""
        self._begun = False
        self.cursor, self.status, self.retry = cursor, b"", _RETRY_SECONDS
        self.transport: asyncio.Transport | None = None

    @property
    def is_open(self) -> bool:
        """Whether the stream has begun and not ended."""
        return self._begun and self.transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        self.transport.write(self._request)
        if self._stalled:
            self.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        if self._stalled:
            return  # what arrived before the pause
        now = time.monotonic_ns()
        if not self.status:
            self.status = data[9:12]
        *frames, self._rest = (self._rest + data).split(b"\n\n")
        if not self._begun and self.status == b"200" and (found := _RETRY.search(data)):
            self._begun, self.retry = True, int(found[1]) / 1e3
            self._crowd.opened()
        for frame in frames:
            if ids := _ID.findall(frame):
                self.cursor = ids[-1]
            if b"event: snapshot" not in frame:  # it has items of earlier changes
                self._crowd.ages += [(now - int(stamp)) / 1e6 for stamp in _STAMP.findall(frame)]

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self._crowd.on_lost(self)


class _Crowd:
    """The readers of process `number`. `specs`: workspace and number of each reader. `addresses`: how many source
    addresses their connections have."""

    def __init__(self, port: int, specs: list[tuple[str, int]], limit: int, number: int, addresses: int) -> None:
        self._port, self._limit, self._number, self._addresses = port, limit, number, addresses
        self._connected = 0
        self._tasks: set[asyncio.Future[None]] = set()
        self._specs = specs
        self._readers: list[_Reader] = []
        self._stalled: list[_Reader] = []
        self._open = 0
        self._open_at: list[float] = []
        self._returns = False
        self._losses = Counter[str]()
        self.lost = 0
        self.ages: list[float] = []

    def opened(self) -> None:
        self._open += 1
        self._open_at.append(time.monotonic())

    def on_lost(self, reader: _Reader) -> None:
        """Counts a lost connection by what the reader received. A reader that returns connects again after its retry
        delay, as an EventSource does."""
        self.lost += 1
        if self._returns:
            self._losses[reader.status.decode() or "nothing received"] += 1
            asyncio.get_running_loop().call_later(reader.retry, self._return, reader)

    def _return(self, reader: _Reader) -> None:
        self._tasks.add(task := asyncio.ensure_future(self._open_again(reader)))
        task.add_done_callback(self._tasks.discard)

    async def _open_again(self, reader: _Reader) -> None:
        while True:
            try:
                self._readers[reader.at] = await self._open_one(reader.at, reader.cursor)
                return
            except OSError as error:
                self._losses[type(error).__name__] += 1
                await asyncio.sleep(_RETRY_SECONDS * random.random())

    async def returning(self) -> dict[str, Any]:
        """Lets the readers connect again by themselves from now on."""
        self._returns = True
        return {}

    async def status(self) -> dict[str, Any]:
        """Returns the number of open streams, and the lost connections by what the readers had received."""
        return {"open": sum(reader.is_open for reader in self._readers), "losses": self._losses}

    async def connect(self, at_once: int, resume: bool) -> dict[str, Any]:
        """Opens all readers, so many at once. Returns seconds from its connect to the first bytes of each stream."""
        self._returns = False
        cursors = [reader.cursor if resume else b"" for reader in self._readers] or [b""] * len(self._specs)
        self._open, self._open_at, self.lost, begun = 0, [], 0, time.monotonic()
        readers: list[_Reader] = []
        for first in range(0, len(self._specs), at_once):
            some = range(first, min(first + at_once, len(self._specs)))
            readers += await asyncio.gather(*(self._open_one(at, cursors[at]) for at in some))
            await self._until(partial(self._has_open, len(readers)))
        self._readers = readers
        if not resume:
            self.ages.clear()  # snapshots have the items that earlier runs wrote into kept data
        return {"seconds": time.monotonic() - begun, "open": [at - begun for at in self._open_at], "lost": self.lost}

    def _has_open(self, number: int) -> bool:
        return self._open >= number

    async def _open_one(self, at: int, cursor: bytes) -> _Reader:
        reader, own = _Reader(self, at, self.request(*self._specs[at], cursor), cursor), None
        if self._addresses > 1:
            self._connected += 1
            own = (f"127.0.{self._number + 1}.{2 + self._connected % self._addresses}", 0)
        await asyncio.get_running_loop().create_connection(lambda: reader, "127.0.0.1", self._port, local_addr=own)
        return reader

    async def stall(self, name: str, readers: int) -> dict[str, Any]:
        """Opens readers that never read."""
        loop = asyncio.get_running_loop()
        for number in range(readers):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _STALLED_BUFFER)
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", self._port))
            reader = _Reader(self, -1, self.request(name, 1_000_000 + number, b""), stalled=True)
            await loop.create_connection(lambda reader=reader: reader, sock=sock)  # type: ignore[misc]
            self._stalled.append(reader)
        return {}

    async def frames(self, number: int) -> dict[str, Any]:
        """Waits for so many frames since the last call. Returns their ages."""
        await self._until(lambda: len(self.ages) >= number)
        ages, self.ages = self.ages, []
        return {"ages": ages, "lost": self.lost}

    async def close(self) -> dict[str, Any]:
        for reader in self._readers + self._stalled:
            if reader.transport is not None:
                reader.transport.abort()
        await self._until(lambda: self.lost >= len(self._readers) + len(self._stalled))
        self._stalled.clear()
        return {}

    async def lose(self) -> dict[str, Any]:
        """Waits until the edge has closed all connections."""
        await self._until(lambda: self.lost >= len(self._readers))
        return {}

    async def cpu(self) -> dict[str, Any]:
        return {"cpu": time.process_time()}

    def request(self, name: str, number: int, cursor: bytes) -> bytes:
        resume = b"last-event-id: %b\r\n" % cursor if cursor else b""
        return (b"GET /org/me/feed?limit=%d HTTP/1.1\r\nhost: bench\r\naccept: text/event-stream\r\n"
                b"authorization: Bearer %b\r\n%b\r\n" % (self._limit, token(name, number).encode(), resume))

    async def _until(self, done: Any) -> None:
        async with asyncio.timeout(_SECONDS):
            while not done():
                await asyncio.sleep(0.005)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=_LINE)
    await loop.connect_read_pipe(partial(asyncio.StreamReaderProtocol, lines), sys.stdin)
    crowd = _Crowd(**json.loads(await lines.readline()))
    while line := await lines.readline():
        command = json.loads(line)
        answer = await getattr(crowd, command.pop("do"))(**command)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


class Readers:
    """Readers in `processes` processes. `specs`: workspace and number of each reader. `addresses`: how many source
    addresses the connections of a process have."""

    def __init__(
        self, port: int, specs: Sequence[tuple[str, int]], processes: int, limit: int = 100, addresses: int = 4
    ) -> None:
        self._port, self._limit, self._addresses = port, limit, addresses
        self._parts = [list(specs[part::processes]) for part in range(processes)]
        self._children: list[asyncio.subprocess.Process] = []

    async def __aenter__(self) -> Self:
        for number, specs in enumerate(self._parts):
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bench.large.readers", stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE, limit=_LINE)
            self._children.append(child)
            self._write(child, {"port": self._port, "specs": specs, "limit": self._limit, "number": number,
                                "addresses": self._addresses})
        return self

    async def __aexit__(self, *_: object) -> None:
        for child in self._children:
            if child.returncode is None:
                child.kill()
            await child.wait()

    async def all(self, do: str, **arguments: Any) -> list[dict[str, Any]]:
        """Sends a command to all processes at once. Returns their answers."""
        return await asyncio.gather(*(self._ask(child, do, arguments) for child in self._children))

    async def first(self, do: str, **arguments: Any) -> dict[str, Any]:
        return await self._ask(self._children[0], do, arguments)

    async def frames(self, number: int) -> list[float]:
        """Returns the ages of the next frames, in milliseconds, once each reader has received so many."""
        asked = [self._ask(child, "frames", {"number": number * len(part)})
                 for child, part in zip(self._children, self._parts, strict=True)]
        return [age for answer in await asyncio.gather(*asked) for age in answer["ages"]]

    async def frames_of(self, counts: dict[str, int]) -> list[float]:
        """Returns the ages of the next frames, once each reader has those of the changes of its workspace."""
        asked = [self._ask(child, "frames", {"number": sum(counts.get(name, 0) for name, _ in part)})
                 for child, part in zip(self._children, self._parts, strict=True)]
        return [age for answer in await asyncio.gather(*asked) for age in answer["ages"]]

    def cpu(self) -> float:
        """Returns seconds of CPU of all processes: a client that is busy delays its readers, not the edge."""
        times = [psutil.Process(child.pid).cpu_times() for child in self._children]
        return float(sum(one.user + one.system for one in times))

    async def _ask(self, child: asyncio.subprocess.Process, do: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self._write(child, {"do": do} | arguments)
        assert child.stdout is not None
        line = await child.stdout.readline()
        if not line:
            raise SystemExit("a process of readers ended")
        return dict(json.loads(line))

    @staticmethod
    def _write(child: asyncio.subprocess.Process, message: object) -> None:
        assert child.stdin is not None
        child.stdin.write(json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    uvloop.run(_serve())
