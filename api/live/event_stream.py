"""Event streams as HTTP responses, and the two sinks for their bytes.

`TransportSink` takes the connection over from the HTTP server and writes HTTP chunks to its transport. No task waits
for a frame, no frame is queued, and the objects that served the request are free. `AsgiSink` uses plain ASGI and works
with any server. The server offers the first one as an ASGI extension (`api.http.protocol.server`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api import metrics
from api.live.connections import ConnectionRegistry, EncodedChunk, LiveStream, Sink, Watch

__all__ = ["DIRECT_WRITE_EXTENSION", "DOCUMENTED", "DRAIN_EXTENSION", "AsgiSink", "EventStream", "TransportSink"]

DIRECT_WRITE_EXTENSION = "attn.direct"
# ASGI extension: waits until the connection has few unsent bytes or is closed.
DRAIN_EXTENSION = "attn.drain"
# The header `attn-heartbeat` is added: seconds between two heartbeats. Clients derive their timeout from it.
HEADERS = [
    (b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"),
]
# OpenAPI responses of a route that returns an event stream.
DOCUMENTED: dict[int | str, dict[str, Any]] = {
    200: {"description": "frames, for as long as the connection lasts", "content": {"text/event-stream": {}}},
}


# Seconds in which a client must receive the unsent bytes, at most a snapshot. Otherwise the connection is dropped.
STALLED_SECONDS = 60.0


def _nothing() -> None:
    pass


class TransportSink(asyncio.Protocol):
    """Sink on the transport of a connection whose chunked response has begun. The connection is not used again."""

    __slots__ = ("_connections", "_stalled", "_transport", "closed", "on_closed", "on_ready", "ready")

    def __init__(self, transport: asyncio.Transport, connections: set[Any], ready: bool) -> None:
        """`connections`: the set of connections that the server closes when it stops."""
        self._transport, self._connections = transport, connections
        self._connections.add(self)
        self.ready = ready
        self.closed = False
        self._stalled: asyncio.TimerHandle | None = None
        self.on_ready: Callable[[], None] = _nothing
        self.on_closed: Callable[[], None] = _nothing

    def write(self, chunk: EncodedChunk) -> None:
        if chunk.http_chunk is None:
            self._transport.writelines((b"%x\r\n" % len(chunk.raw), chunk.raw, b"\r\n"))
        else:
            self._transport.write(chunk.http_chunk)

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

    shutdown = end  # the name that the server calls

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
        return False  # close the connection: a browser never half-closes one

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
    """Sink on ASGI: buffers the chunks until the server has sent them."""

    __slots__ = ("_chunks", "_wake", "closed", "on_ready", "ready")

    def __init__(self) -> None:
        self._chunks: list[EncodedChunk] = []
        self._wake = asyncio.Event()
        self.ready = True
        self.on_ready: Callable[[], None] = _nothing
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def write(self, chunk: EncodedChunk) -> None:
        self._chunks.append(chunk)
        self.ready = False
        self._wake.set()

    def end(self) -> None:
        self.on_ready = _nothing
        if not self.closed.done():
            self.closed.set_result(None)

    abort = end

    async def run(self, send: Send) -> None:
        """Sends the buffered chunks until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._chunks:
                body = b"".join([chunk.raw for chunk in self._chunks])
                self._chunks.clear()
                await send({"type": "http.response.body", "body": body, "more_body": True})
                self.ready = True
                self.on_ready()


class EventStream(Response):
    """A response that lasts as long as its stream.

    The caller has reserved a connection in the registry. The response releases it when the stream ends.
    """

    media_type = "text/event-stream"

    def __init__(
        self, connections: ConnectionRegistry, ws: str, user: str, seconds: float, begin: Callable[[Sink], LiveStream],
        watch: Watch | None = None,
    ) -> None:
        """`begin` opens the stream on a sink. The stream ends after `seconds`, or by its watch."""
        super().__init__()
        self._connections, self._user = connections, (ws, user)
        self._seconds, self._begin, self._watch = seconds, begin, watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._connections.closed or self._connections.is_overloaded:
            if not self._connections.closed:
                metrics.STREAMS_DEFERRED.inc()
            await self._ask_to_retry(send)
            return
        offer = scope.get("extensions", {}).get(DIRECT_WRITE_EXTENSION)
        direct: TransportSink | None = None
        try:
            headers = [*HEADERS, (b"attn-heartbeat", b"%g" % self._connections.heartbeat)]
            if offer is not None:
                headers.append((b"connection", b"close"))
            # Before the turn: sending may wait for a client that has not received an earlier response.
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async with self._connections.opening_turn():
                direct = offer() if offer is not None else None
                sink = direct if direct is not None else AsgiSink()
                sink.write(self._connections.retry_field())
                stream = self._begin(sink)
        except BaseException:
            if direct is not None:
                direct.abort()  # the server does not close it any more
            self._connections.release(*self._user)
            raise
        self._add(stream, sink)
        if isinstance(sink, AsgiSink):
            await self._run_on_asgi(sink, stream, receive, send)

    async def _ask_to_retry(self, send: Send) -> None:
        """Sends an empty stream with a retry delay. An error status would make a browser stop reconnecting. Closes the
        connection, because a full edge needs its file descriptor."""
        self._connections.release(*self._user)
        headers = [*HEADERS, (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self._connections.deferral().raw})

    def _add(self, stream: LiveStream, sink: TransportSink | AsgiSink) -> None:
        lost = isinstance(sink, TransportSink) and sink.closed
        if isinstance(sink, TransportSink):
            sink.on_closed = lambda: self._connections.remove(stream)
        self._connections.add(stream, self._seconds, None if lost else self._watch)
        if lost:  # the connection was closed while the stream opened
            self._connections.remove(stream)

    async def _run_on_asgi(self, sink: AsgiSink, stream: LiveStream, receive: Receive, send: Send) -> None:
        tasks = (asyncio.create_task(sink.run(send)), asyncio.create_task(_disconnected(receive)))
        try:
            await asyncio.wait((*tasks, sink.closed), return_when=asyncio.FIRST_COMPLETED)
            complete = sink.ready  # otherwise unsent bytes are left, and the response cannot be ended
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
