"""Event streams as HTTP responses, and the two ways their bytes go out.

`Direct` writes HTTP chunks to the socket's transport by itself: no task wakes up and nothing is queued for a frame.
`Queued` is plain ASGI, for any server. Which one it is, is the server's: see `api.protocol`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.connections import Connections, Outlet, Piece, Stream

__all__ = ["DOCUMENTED", "EXTENSION", "Direct", "EventStream", "Queued"]

EXTENSION = "attn.direct"
HEADERS = [
    (b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"),
]
# What the OpenAPI document says of a route that answers with an event stream.
DOCUMENTED: dict[int | str, dict[str, Any]] = {
    200: {"description": "frames, for as long as the connection lasts", "content": {"text/event-stream": {}}},
}


def _nothing() -> None:
    pass


class Direct:
    """Writes to the transport of a connection whose response uses chunked encoding."""

    __slots__ = ("_transport", "gone", "on_ready", "ready")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.ready = True
        self.on_ready: Callable[[], None] = _nothing
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def write(self, piece: Piece) -> None:
        self._transport.write(piece.chunk)

    def end(self) -> None:
        if self.ready:
            self.lost()
        else:
            self.cut()

    def cut(self) -> None:
        self.lost()
        self._transport.abort()

    # What the protocol reports:

    def pause(self) -> None:
        self.ready = False

    def resume(self) -> None:
        self.ready = True
        self.on_ready()

    def lost(self) -> None:
        self.ready = False
        self.on_ready = _nothing
        if not self.gone.done():
            self.gone.set_result(None)


class Queued:
    """Holds one piece at most until the server has taken it."""

    __slots__ = ("_pieces", "_wake", "gone", "on_ready", "ready")

    def __init__(self) -> None:
        self._pieces: list[Piece] = []
        self._wake = asyncio.Event()
        self.ready = True
        self.on_ready: Callable[[], None] = _nothing
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def write(self, piece: Piece) -> None:
        self._pieces.append(piece)
        self.ready = False
        self._wake.set()

    def end(self) -> None:
        self.on_ready = _nothing
        if not self.gone.done():
            self.gone.set_result(None)

    cut = end

    async def run(self, send: Send) -> None:
        """Sends what is written, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._pieces:
                body = b"".join([piece.raw for piece in self._pieces])
                self._pieces.clear()
                await send({"type": "http.response.body", "body": body, "more_body": True})
                self.ready = True
                self.on_ready()


class EventStream(Response):
    """A response that lasts as long as its stream. The caller's place in `connections` is taken already."""

    media_type = "text/event-stream"

    def __init__(
        self, connections: Connections, ws: str, user: str, seconds: float, begin: Callable[[Outlet], Stream]
    ) -> None:
        """`begin` opens the stream on an outlet; it may last `seconds`."""
        super().__init__()
        self._connections, self._user = connections, (ws, user)
        self._seconds, self._begin = seconds, begin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            direct = scope.get("extensions", {}).get(EXTENSION)
            outlet: Direct | None = direct() if direct is not None else None
            complete = await self._direct(outlet) if outlet is not None else await self._queued(receive, send)
        finally:
            self._connections.give_back(*self._user)
        if complete:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _direct(self, outlet: Direct) -> bool:
        stream = self._begin(outlet)
        self._connections.add(stream, self._seconds)
        try:
            await outlet.gone
        finally:
            self._connections.remove(stream)
        return True

    async def _queued(self, receive: Receive, send: Send) -> bool:
        """False: the reader has not taken what it was sent, so the response can't be ended, only dropped."""
        outlet = Queued()
        stream = self._begin(outlet)
        self._connections.add(stream, self._seconds)
        tasks = (asyncio.create_task(outlet.run(send)), asyncio.create_task(_disconnected(receive)))
        try:
            await asyncio.wait((*tasks, outlet.gone), return_when=asyncio.FIRST_COMPLETED)
            return outlet.ready
        finally:
            self._connections.remove(stream)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


