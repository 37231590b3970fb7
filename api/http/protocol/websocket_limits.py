"""uvicorn's WebSocket protocol with limits: unsent bytes, unread messages, control frames, and stall time.

uvicorn answers each ping at once and parses all input, so a peer that sends pings and never reads makes it buffer every
pong. Here reading pauses while the unsent bytes exceed the high-water mark of the transport (64 KiB). Input is parsed
in slices, and other tasks run between two slices. A connection is closed if it reads nothing for `STALLED_SECONDS`, or
if it sends too many control frames.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from api.commands.rate_limiter import RateLimiter
from api.http.protocol.unauthenticated import AUTHENTICATED, UnauthenticatedConnections

__all__ = ["LimitedWebSocketProtocol"]

# Bytes parsed before other tasks run: 680 of the smallest frames, some milliseconds.
_SLICE_BYTES = 4096
# Pings, pongs and continuation frames of one connection, per second and at once: clients send one ping in 20 s and a
# few fragments per message.
_FRAMES_RATE, _FRAMES_BURST = 10.0, 100
# Seconds that unsent bytes may wait for the peer.
STALLED_SECONDS = 20.0
# Seconds that a closed connection may keep its unsent bytes.
_CLOSING_SECONDS = 5.0


class LimitedWebSocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket connection from the handshake on, with the limits of this module."""

    def __init__(self, config: Any, server_state: Any, app_state: Any, _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._unauthenticated: UnauthenticatedConnections = server_state.unauthenticated
        self._unread = b""  # at most the bytes of one read
        self._parsing: asyncio.Handle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._frame_rate = RateLimiter(_FRAMES_RATE, _FRAMES_BURST)

    # --- input ---

    def data_received(self, data: bytes) -> None:
        self._unread += data
        self._parse()

    def _parse(self) -> None:
        self._parsing = None
        chunk = b"" if self._is_blocked or self.transport.is_closing() else self._unread[:_SLICE_BYTES]
        if chunk:
            self._unread = self._unread[_SLICE_BYTES:]
            super().data_received(chunk)
        self._resume_input()

    def _resume_input(self) -> None:
        """Continues to read or parse, unless messages wait for the application or bytes wait for the peer."""
        if self.transport.is_closing():
            self._unread = b""
        elif self._is_blocked:
            self.transport.pause_reading()
        elif self._unread:
            self.transport.pause_reading()
            if self._parsing is None:
                self._parsing = self.loop.call_soon(self._parse)
        else:
            self.transport.resume_reading()

    async def receive(self) -> Any:
        message = await super().receive()
        self._resume_input()
        return message

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if (scope := getattr(self, "scope", None)) is not None:
            scope["extensions"][AUTHENTICATED] = lambda: self._unauthenticated.remove(self.transport)

    def handle_ping(self) -> None:
        super().handle_ping()
        self._count_control_frame()

    def handle_pong(self, event: Frame) -> None:
        super().handle_pong(event)
        self._count_control_frame()

    def handle_cont(self, event: Frame) -> None:
        super().handle_cont(event)
        self._count_control_frame()

    def _count_control_frame(self) -> None:
        if not self._frame_rate.acquire("", ""):
            return
        if self.close_sent or self.transport.is_closing():
            self.transport.abort()
        else:
            self.conn.fail(1008, "too many control frames")
            self.handle_parser_exception()
            self._abort_later()

    # --- output ---

    @property
    def _is_blocked(self) -> bool:
        """Whether messages wait for the application, or bytes wait for the peer."""
        return self.read_paused or not self.writable.is_set()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._resume_input()
        if self._stall_timer is None:
            self._stall_timer = self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._cancel_stall_timer()
        self._resume_input()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self._abort_later()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        super().on_task_complete(task)
        self._abort_later()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unauthenticated.remove(self.transport)
        self._cancel_stall_timer()
        self._unread = b""
        super().connection_lost(exc)

    def _cancel_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _abort_later(self) -> None:
        """Aborts the connection after 5 s: `close` alone waits without a limit until the peer has read everything."""
        self.loop.call_later(_CLOSING_SECONDS, self.transport.abort)
