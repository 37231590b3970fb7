"""Many feed readers over plain sockets. Each reconnects after the `retry` time, as a browser does."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

from support.clients.feed import Copy
from support.edge.edges import bearer

_RETRY = re.compile(rb"(?m)^retry: (\d+)$")
_REFUSED = 0.5  # seconds between two connection attempts before the first `retry`


class Follower(asyncio.Protocol):
    """One reader. `frames`: every block it received over all its connections, without heartbeats."""

    def __init__(self, port: int, user: str, role: str, limit: int) -> None:
        self.user, self.role, self.limit = user, role, limit
        self.frames: list[bytes] = []
        self.last = b""  # the id that it sends as Last-Event-ID
        self.heartbeat = -1  # the newest cursor of a heartbeat
        self.retry = _REFUSED
        self.begun = 0  # connections that received a first block
        self._port = port
        self._task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._buffer, self._text, self._ok, self._gone = b"", b"", False, loop.create_future()
            try:
                self._transport, _ = await loop.create_connection(lambda: self, "127.0.0.1", self._port)
            except OSError:
                await asyncio.sleep(self.retry)
                continue
            await self._gone
            await asyncio.sleep(self.retry)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        again = b"last-event-id: %b\r\n" % self.last if self.last else b""
        head = f"GET /org/me/feed?limit={self.limit} HTTP/1.1\r\nhost: edge\r\n"
        token = bearer(self.user, self.role)["authorization"]
        transport.write(f"{head}authorization: {token}\r\n".encode() + again + b"\r\n")  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._ok:
            head, separator, rest = self._buffer.partition(b"\r\n\r\n")
            if not separator:
                return
            if b" 200 " not in head.split(b"\r\n")[0]:  # the edge is not ready yet
                self._transport.abort()
                return
            self._ok, self._buffer = True, rest
        self._unchunk()

    def _unchunk(self) -> None:
        while b"\r\n" in self._buffer:
            head, rest = self._buffer.split(b"\r\n", 1)
            size = int(head, 16)
            if len(rest) < size + 2:
                return
            self._text += rest[:size]
            self._buffer = rest[size + 2:]
        *blocks, self._text = self._text.split(b"\n\n")
        for block in blocks:
            self._read(block)

    def _read(self, block: bytes) -> None:
        if match := _RETRY.match(block):
            self.retry = int(match[1]) / 1000
            self.begun += 1
            block = block[match.end() + 1:]
        if b"\nevent: heartbeat\n" in block:
            self.heartbeat = max(self.heartbeat, int(block.split(b"\n", 1)[0][4:]))
        else:
            self.last = block.split(b"\n", 1)[0][4:]
            self.frames.append(block)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._gone.done():
            self._gone.set_result(None)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if hasattr(self, "_transport"):
            self._transport.abort()

    def copy(self) -> tuple[Copy, list[str]]:
        """Returns the copy built from all frames, and their events. Fails if a frame is missing or doubled."""
        copy, events = Copy(), []
        for block in self.frames:
            cursor, event, data = (line.split(b": ", 1)[1] for line in block.split(b"\n"))
            frame: tuple[int, str, Any] = (int(cursor), event.decode(), json.loads(data))
            copy.apply(frame)
            events.append(frame[1])
        return copy, events
