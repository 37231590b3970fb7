"""uvicorn, with a way past it: a response may take over its connection and write to the transport by itself.

The protocol offers itself in the ASGI scope. Where another server runs the app, the offer is not there and the plain
ASGI path is used.
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
from api.live.event_stream import DRAIN, EXTENSION, Direct

__all__ = ["HttpProtocol", "Server", "listen", "make_server"]

# What the kernel may hold of a stream that is not read: with its own choice that is 4 MB of stale frames each.
_SEND_BUFFER_BYTES = 64 << 10
# A peer that acknowledges nothing for so long is gone, milliseconds. Heartbeats see to it that there is something.
_TCP_USER_TIMEOUT_MS = 30_000
_BACKLOG = 2048
# What a client may send as one message, bytes, before anything looks at it; `api.http.routes.websocket` takes less.
_MAX_MESSAGE_BYTES = 64 << 10


class HttpProtocol(HeaderLimitProtocol):
    """uvicorn's HTTP/1.1, guarded, with the offer of `Direct` outlets."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        extensions: dict[str, Any] = {
            EXTENSION: self._detach_transport, DRAIN: self.flow.drain,
            AUTHENTICATED: lambda: self.unauthenticated.remove(self.transport)}
        self.scope["extensions"] = extensions

    def _detach_transport(self) -> Direct | None:
        """The connection, whose response has just begun, goes to an outlet, as uvicorn itself hands one to a WebSocket.
        Requests that were sent after this one are dropped: the response says `connection: close`. None: it can't be, so
        the response goes on as ASGI."""
        cycle = self.running
        if cycle is None or cycle.disconnected or not cycle.chunked_encoding or cycle.scope["method"] != "GET":
            return None
        self.release()
        self.connections.discard(self)
        self.pipeline.clear()
        cycle.response_complete = True  # for uvicorn there is nothing more to come
        outlet = Direct(self.transport, self.connections, not self.flow.write_paused)
        self.transport.set_protocol(outlet)
        self.flow.resume_reading()  # so that the end of the connection is noticed
        return outlet


class _ServerState(ServerState):
    """What the connections of one server share."""

    def __init__(self) -> None:
        super().__init__()
        self.unauthenticated = UnauthenticatedConnections()


class Server(uvicorn.Server):
    """Signals are the command line's business."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.server_state = _ServerState()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int) -> socket.socket:
    """The listening socket. OSError: the address is taken or not ours."""
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
    """uvicorn for `app`, run by `Server.serve(sockets=[...])` in the loop that is running."""
    return Server(uvicorn.Config(
        app, http=HttpProtocol, ws=LimitedWebSocketProtocol, ws_max_size=_MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False, lifespan="off", access_log=False, log_config=None, server_header=False,
        timeout_graceful_shutdown=3, timeout_keep_alive=65, backlog=_BACKLOG,
    ))
