"""Limits of a connection whoever calls: size and time of a request's head, pipelined requests, unsent bytes."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.http.protocol.unauthenticated import Strangers

__all__ = ["Guarded"]

# A request's line and fields, bytes; and how long they may take, seconds: whoever sends no end of them would keep
# memory and a connection for ever, known or not. A token has 8 KiB at most.
_HEAD = 64 << 10
HEAD_SECONDS = 30.0
# Who was refused may read why: for so many seconds, or bytes that still come and are thrown away.
_LINGER, _LINGER_BYTES = 2.0, 4 << 20
# Requests that may wait behind one that is being answered. Each holds some KB, and clients hardly ever send any.
_PIPELINE = 16
# A reader with unsent bytes waiting must take them within this time, seconds: an answer of 8 MiB at 140 KB a second.
STALLED_SECONDS = 60.0
_BAD = b"400 Bad Request", "not an HTTP request"
_LONG = b"431 Request Header Fields Too Large", (
    f"the request's line and headers are too large: at most {_HEAD} bytes; cookies count, so delete those of this host")
_CODING = b"501 Not Implemented", "transfer-encoding: must be chunked, or not sent"
_SLOW = b"408 Request Timeout", f"the request's head was not there within {HEAD_SECONDS:g} s"


class _Refused(Exception):
    """The parser ends what it does, and uvicorn calls `send_400_response`."""


class Guarded(HttpToolsProtocol):
    """uvicorn's HTTP/1.1. A head that is too long or too slow, and what is no request, is told so in JSON."""

    _told = 0  # bytes of the request's line and fields; trailers count too
    _raw = 0  # bytes since there was a whole head, or a piece of a body: a field is told only when it is whole
    _coding = False  # the request has a transfer coding that is not known here
    _refused = False
    _deadline: asyncio.TimerHandle | None = None  # of the head; once refused, of the connection
    _stalled: asyncio.TimerHandle | None = None
    running: RequestResponseCycle | None = None  # the request that is being answered; `cycle` is the newest

    def __init__(self, config: Any, server_state: Any, app_state: Any, _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.strangers: Strangers = server_state.strangers

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.strangers.add(transport, self.client)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self.strangers.remove(self.transport)
        self.release()
        if self.running is not None and not self.running.response_complete:
            # uvicorn only does so for the newest request, which may wait behind this one.
            self.running.disconnected = True
            self.running.message_event.set()
        super().connection_lost(exc)

    def release(self) -> None:
        """Cancels the timers: the connection has ended or another protocol has it."""
        self._forget_deadline()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self.running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        if not self.transport.is_closing():
            self.strangers.add(self.transport, self.client)
        super().on_response_complete()
        if self.pipeline:
            self.flow.pause_reading()

    def data_received(self, data: bytes) -> None:
        self._raw += len(data)
        if self._refused:
            if self._raw > _LINGER_BYTES:
                self.transport.close()
            return
        super().data_received(data)
        if self._raw > _HEAD:
            self._refuse(*_LONG)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._told = 0
        if self._deadline is None:
            self._expect_head()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        if name.lower() == b"transfer-encoding" and value.strip().lower() != b"chunked":
            # The parser takes another coding for a body that ends with the connection, so no answer would ever come.
            self._coding = True
            raise _Refused
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._raw = 0
        self._forget_deadline()
        super().on_headers_complete()
        if len(self.pipeline) > _PIPELINE:
            self._refused = True
            self.transport.abort()
            raise _Refused

    def on_body(self, body: bytes) -> None:
        self._raw = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._raw = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(*(_CODING if self._coding else _LONG if self._told > _HEAD else _BAD))

    def _count(self, size: int) -> None:
        self._told += size
        if self._told > _HEAD:
            raise _Refused

    def _expect_head(self) -> None:
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._refuse, *_SLOW)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, status: bytes, said: str) -> None:
        """Nothing more is read as a request."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        self._forget_deadline()
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.close()  # another answer is on its way: this one would be taken for a part of it
            return
        body = orjson.dumps({"error": said})
        self.transport.write(b"\r\n".join([
            b"HTTP/1.1 " + status, b"content-type: application/json", b"cache-control: no-store",
            b"x-content-type-options: nosniff",
            b"content-length: " + str(len(body)).encode(), b"connection: close", b"", body]))
        # Closed at once, with bytes unread, the kernel would take the answer back.
        self.transport.write_eof()
        self._deadline = self.loop.call_later(_LINGER, self.transport.close)
