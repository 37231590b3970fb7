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

from api.live.connections import ConnectionRegistry, EncodedChunk, LiveStream, Sink

__all__ = ["DIRECT_WRITE_EXTENSION", "DOCUMENTED", "DRAIN_EXTENSION", "AsgiSink", "EventStream", "TransportSink"]

DIRECT_WRITE_EXTENSION = "attn.direct"
# Waits until the connection has few unsent bytes, or is gone.
DRAIN_EXTENSION = "attn.drain"
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


class TransportSink(asyncio.Protocol):
    """The rest of a connection whose response, in chunked encoding, has begun. Nothing else comes on it after."""

    __slots__ = ("_connections", "_stalled", "_transport", "closed", "on_closed", "on_ready", "ready")

    def __init__(self, transport: asyncio.Transport, connections: set[Any], ready: bool) -> None:
        """`connections`: those the server waits for when it stops."""
        self._transport, self._connections = transport, connections
        self._connections.add(self)
        self.ready = ready
        self.closed = False
        self._stalled: asyncio.TimerHandle | None = None
        self.on_ready: Callable[[], None] = _nothing
        self.on_closed: Callable[[], None] = _nothing

    def write(self, piece: EncodedChunk) -> None:
        if piece.http_chunk is None:
            self._transport.writelines((b"%x\r\n" % len(piece.raw), piece.raw, b"\r\n"))
        else:
            self._transport.write(piece.http_chunk)

    def end(self) -> None:
        if self.ready:
            self._transport.write(b"0\r\n\r\n")
            self._transport.close()
            self._close()
        else:
            self.abort()

    def abort(self) -> None:
        self._transport.abort()
        self._close()

    shutdown = end  # as the server calls it

    def pause_writing(self) -> None:
        self.ready = False
        if self._stalled is None:
            self._stalled = asyncio.get_running_loop().call_later(STALLED_SECONDS, self.abort)

    def resume_writing(self) -> None:
        self._cancel_stall_timer()
        if not self.closed:
            self.ready = True
            self.on_ready()

    def eof_received(self) -> bool:
        return False  # a reader who has stopped sending has gone: a browser never half-closes

    def connection_lost(self, error: Exception | None) -> None:
        self._close()

    def _close(self) -> None:
        if not self.closed:
            self.closed, self.ready, self.on_ready = True, False, _nothing
            self._cancel_stall_timer()
            self._connections.discard(self)
            self.on_closed()


    def _cancel_stall_timer(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


class AsgiSink:
    """Holds what was written until the server has taken it."""

    __slots__ = ("_chunks", "_wake", "closed", "on_ready", "ready")

    def __init__(self) -> None:
        self._chunks: list[EncodedChunk] = []
        self._wake = asyncio.Event()
        self.ready = True
        self.on_ready: Callable[[], None] = _nothing
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def write(self, piece: EncodedChunk) -> None:
        self._chunks.append(piece)
        self.ready = False
        self._wake.set()

    def end(self) -> None:
        self.on_ready = _nothing
        if not self.closed.done():
            self.closed.set_result(None)

    abort = end

    async def run(self, send: Send) -> None:
        """Sends what is written, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._chunks:
                body = b"".join([piece.raw for piece in self._chunks])
                self._chunks.clear()
                await send({"type": "http.response.body", "body": body, "more_body": True})
                self.ready = True
                self.on_ready()


class EventStream(Response):
    """A response that lasts as long as its stream. The caller's place in `connections` is taken already; it is given
    back when the stream is gone."""

    media_type = "text/event-stream"

    def __init__(
        self, connections: ConnectionRegistry, ws: str, user: str, seconds: float, begin: Callable[[Sink], LiveStream]
    ) -> None:
        """`begin` opens the stream on an outlet; it may last `seconds`."""
        super().__init__()
        self._connections, self._user = connections, (ws, user)
        self._seconds, self._begin = seconds, begin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._connections.closed or self._connections.is_overloaded:
            await self._ask_to_retry(send)
            return
        offer = scope.get("extensions", {}).get(DIRECT_WRITE_EXTENSION)
        direct: TransportSink | None = None
        try:
            headers = [*HEADERS, (b"attn-heartbeat", b"%g" % self._connections.heartbeat)]
            if offer is not None:
                headers.append((b"connection", b"close"))
            # Before its turn: it waits for a reader who has not taken an earlier answer, and the others would too.
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async with self._connections.opening_turn():
                direct = offer() if offer is not None else None
                outlet = direct if direct is not None else AsgiSink()
                outlet.write(self._connections.retry_field())
                stream = self._begin(outlet)
        except BaseException:
            if direct is not None:
                direct.abort()  # it is no longer the server's to close
            self._connections.release(*self._user)
            raise
        self._add(stream, outlet)
        if isinstance(outlet, AsgiSink):
            await self._run_on_asgi(outlet, stream, receive, send)

    async def _ask_to_retry(self, send: Send) -> None:
        """An empty stream, after which a client comes again by itself: an error would make a browser give up."""
        self._connections.release(*self._user)
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": self._connections.retry_field().raw})

    def _add(self, stream: LiveStream, outlet: TransportSink | AsgiSink) -> None:
        lost = isinstance(outlet, TransportSink) and outlet.closed
        if isinstance(outlet, TransportSink):
            outlet.on_closed = lambda: self._connections.remove(stream)
        self._connections.add(stream, self._seconds)
        if lost:  # cut off while it began
            self._connections.remove(stream)

    async def _run_on_asgi(self, outlet: AsgiSink, stream: LiveStream, receive: Receive, send: Send) -> None:
        tasks = (asyncio.create_task(outlet.run(send)), asyncio.create_task(_disconnected(receive)))
        try:
            await asyncio.wait((*tasks, outlet.closed), return_when=asyncio.FIRST_COMPLETED)
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
