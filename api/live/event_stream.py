"""Event streams as HTTP responses, and the two ways their bytes go out.

`Direct` takes the connection over from the HTTP server and writes chunks to its transport: no task waits, nothing is
queued for a frame, and what served the request is free again. `Queued` is plain ASGI, for any server. Which one it is,
is the server's to offer: see `api.http.protocol.server`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.live.connections import Connections, Outlet, Piece, Stream

__all__ = ["DOCUMENTED", "DRAIN", "EXTENSION", "Direct", "EventStream", "Queued"]

EXTENSION = "attn.direct"
# Waits until the connection has few unsent bytes, or is gone.
DRAIN = "attn.drain"
# With them goes `attn-heartbeat`, the seconds between two heartbeats: a reader's limit of silence depends on it.
HEADERS = [
    (b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"),
]
# What the OpenAPI document says of a route that answers with an event stream.
DOCUMENTED: dict[int | str, dict[str, Any]] = {
    200: {"description": "frames, for as long as the connection lasts", "content": {"text/event-stream": {}}},
}


# A reader takes what is unsent (a snapshot at most) within so many seconds, or is cut off and may resume.
STALLED_SECONDS = 60.0


def _nothing() -> None:
    pass


class Direct(asyncio.Protocol):
    """The rest of a connection whose response, in chunked encoding, has begun. Nothing else comes on it after."""

    __slots__ = ("_connections", "_stalled", "_transport", "lost", "on_gone", "on_ready", "ready")

    def __init__(self, transport: asyncio.Transport, connections: set[Any], ready: bool) -> None:
        """`connections`: those the server waits for when it stops."""
        self._transport, self._connections = transport, connections
        self._connections.add(self)
        self.ready = ready
        self.lost = False
        self._stalled: asyncio.TimerHandle | None = None
        self.on_ready: Callable[[], None] = _nothing
        self.on_gone: Callable[[], None] = _nothing

    def write(self, piece: Piece) -> None:
        if piece.chunk is None:
            self._transport.writelines((b"%x\r\n" % len(piece.raw), piece.raw, b"\r\n"))
        else:
            self._transport.write(piece.chunk)

    def end(self) -> None:
        if self.ready:
            self._transport.write(b"0\r\n\r\n")
            self._transport.close()
            self._lost()
        else:
            self.cut()

    def cut(self) -> None:
        self._transport.abort()
        self._lost()

    shutdown = end  # as the server calls it

    def pause_writing(self) -> None:
        self.ready = False
        if self._stalled is None:
            self._stalled = asyncio.get_running_loop().call_later(STALLED_SECONDS, self.cut)

    def resume_writing(self) -> None:
        self._forget_stall()
        if not self.lost:
            self.ready = True
            self.on_ready()

    def eof_received(self) -> bool:
        return False  # a reader who has stopped sending has gone: a browser never half-closes

    def connection_lost(self, error: Exception | None) -> None:
        self._lost()

    def _lost(self) -> None:
        if not self.lost:
            self.lost, self.ready, self.on_ready = True, False, _nothing
            self._forget_stall()
            self._connections.discard(self)
            self.on_gone()


    def _forget_stall(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


class Queued:
    """Holds what was written until the server has taken it."""

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
    """A response that lasts as long as its stream. The caller's place in `connections` is taken already; it is given
    back when the stream is gone."""

    media_type = "text/event-stream"

    def __init__(
        self, connections: Connections, ws: str, user: str, seconds: float, begin: Callable[[Outlet], Stream]
    ) -> None:
        """`begin` opens the stream on an outlet; it may last `seconds`."""
        super().__init__()
        self._connections, self._user = connections, (ws, user)
        self._seconds, self._begin = seconds, begin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._connections.closed or self._connections.crowded:
            await self._later(send)
            return
        offer = scope.get("extensions", {}).get(EXTENSION)
        direct: Direct | None = None
        try:
            headers = [*HEADERS, (b"attn-heartbeat", b"%g" % self._connections.heartbeat)]
            if offer is not None:
                headers.append((b"connection", b"close"))
            # Before its turn: it waits for a reader who has not taken an earlier answer, and the others would too.
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async with self._connections.turn():
                direct = offer() if offer is not None else None
                outlet = direct if direct is not None else Queued()
                outlet.write(self._connections.retry())
                stream = self._begin(outlet)
        except BaseException:
            if direct is not None:
                direct.cut()  # it is no longer the server's to close
            self._connections.give_back(*self._user)
            raise
        self._add(stream, outlet)
        if isinstance(outlet, Queued):
            await self._queued(outlet, stream, receive, send)

    async def _later(self, send: Send) -> None:
        """An empty stream, after which a client comes again by itself: an error would make a browser give up."""
        self._connections.give_back(*self._user)
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": self._connections.retry().raw})

    def _add(self, stream: Stream, outlet: Direct | Queued) -> None:
        lost = isinstance(outlet, Direct) and outlet.lost
        if isinstance(outlet, Direct):
            outlet.on_gone = lambda: self._connections.remove(stream)
        self._connections.add(stream, self._seconds)
        if lost:  # cut off while it began
            self._connections.remove(stream)

    async def _queued(self, outlet: Queued, stream: Stream, receive: Receive, send: Send) -> None:
        tasks = (asyncio.create_task(outlet.run(send)), asyncio.create_task(_disconnected(receive)))
        try:
            await asyncio.wait((*tasks, outlet.gone), return_when=asyncio.FIRST_COMPLETED)
            complete = outlet.ready  # else the reader has not taken what it was sent: it can only be dropped
        finally:
            self._connections.remove(stream)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if complete:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
