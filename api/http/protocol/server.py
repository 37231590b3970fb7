"""uvicorn server whose responses may write to the transport directly, and the listening socket.

The protocol offers direct writes by an extension in the ASGI scope. On another server the extension is absent, and
responses use plain ASGI.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from api.http.protocol.header_limits import HeaderLimitProtocol
from api.http.protocol.unauthenticated import AUTHENTICATED, UnauthenticatedConnections
from api.http.protocol.websocket_limits import LimitedWebSocketProtocol
from api.live.event_stream import DIRECT_WRITE_EXTENSION, DRAIN_EXTENSION, TransportSink

__all__ = ["HttpProtocol", "Server", "listen", "make_server"]

# Bytes of a stream that the kernel buffers for a slow reader. By default they may grow to 4 MB of stale frames.
_SEND_BUFFER_BYTES = 64 << 10
# Milliseconds without an acknowledgement after which the kernel drops the connection. Heartbeats ensure that there are
# bytes to acknowledge.
_TCP_USER_TIMEOUT_MS = 30_000
# Connections that wait in the kernel until the edge accepts them; net.core.somaxconn (4,096 by default) bounds it.
# Thousands of readers come back within a second after a restart. If the queue is full, the kernel drops their packets,
# and clients send them again after 1, 3, 7, 15 s.
_BACKLOG = 65_535
# Bytes of one WebSocket message that uvicorn accepts; `api.http.routes.websocket` has a lower limit (`socket_message`).
_MAX_MESSAGE_BYTES = 64 << 10


class HttpProtocol(HeaderLimitProtocol):
    """HTTP/1.1 protocol with limits that offers direct writes to responses."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        extensions: dict[str, Any] = {
            DIRECT_WRITE_EXTENSION: self._detach_transport, DRAIN_EXTENSION: self.flow.drain,
            AUTHENTICATED: self.authenticate}
        self.scope["extensions"] = extensions

    def _detach_transport(self) -> TransportSink | None:
        """Moves the connection, whose response has just started, to a sink, as uvicorn moves one to a WebSocket.

        Pipelined requests are dropped: the response has `connection: close`. Returns None if direct writes are not
        possible; the response then continues as ASGI.
        """
        cycle = self.running
        if cycle is None or cycle.disconnected or not cycle.chunked_encoding or cycle.scope["method"] != "GET":
            return None
        self.release()
        self.connections.discard(self)
        self.pipeline.clear()
        cycle.response_complete = True  # uvicorn must not write to this connection any more
        sink = TransportSink(self.transport, self.connections, not self.flow.write_paused)
        self.transport.set_protocol(sink)
        self.flow.resume_reading()  # otherwise the end of the connection is not noticed
        return sink


class _ServerState(ServerState):
    """State that the connections of one server share."""

    def __init__(self) -> None:
        super().__init__()
        self.unauthenticated = UnauthenticatedConnections(count_open=lambda: len(self.connections))


class Server(uvicorn.Server):
    """uvicorn server without signal handlers: the command line handles signals (ops.cli.commands.roles)."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.server_state = _ServerState()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int) -> socket.socket:
    """Returns the listening socket. Raises OSError if the address is in use or does not belong to this machine."""
    try:
        info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except socket.gaierror as error:
        raise OSError(errno.EADDRNOTAVAIL, f"{host}: {error.strerror}") from error
    sock = socket.socket(info[0], socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _TCP_USER_TIMEOUT_MS)
        sock.bind(info[4])
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"port {port} on {host}: {error.strerror}") from error
    return sock


def make_server(app: ASGIApp) -> Server:
    """Returns a server for `app`; run `Server.serve(sockets=[...])` in the running event loop."""
    return Server(uvicorn.Config(
        app, http=HttpProtocol, ws=LimitedWebSocketProtocol, ws_max_size=_MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False, lifespan="off", access_log=False, log_config=None, server_header=False,
        timeout_graceful_shutdown=3, timeout_keep_alive=65, backlog=_BACKLOG,
    ))
