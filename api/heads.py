"""What comes before anybody is asked who they are: a request's line and fields, limited in size and time."""

from __future__ import annotations

import asyncio

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["Guarded"]

# A request's line and fields, bytes; and how long they may take, seconds: whoever sends no end of them would keep
# memory and a connection for ever, known or not. A token has 8 KiB at most.
_HEAD = 64 << 10
HEAD_SECONDS = 30.0
# Who was refused may read why: for so many seconds, or bytes that still come and are thrown away.
_LINGER, _LINGER_BYTES = 2.0, 4 << 20
_BAD = b"400 Bad Request", "not an HTTP request"
_LONG = b"431 Request Header Fields Too Large", f"the request's head is too large: at most {_HEAD} bytes"
_SLOW = b"408 Request Timeout", f"the request's head was not there within {HEAD_SECONDS:g} s"


class _TooLong(Exception):
    """The parser ends what it does, and uvicorn calls `send_400_response`."""


class Guarded(HttpToolsProtocol):
    """uvicorn's HTTP/1.1. A head that is too long or too slow, and what is no request, is told so in JSON."""

    _told = 0  # bytes of the request's line and fields; trailers count too
    _raw = 0  # bytes since there was a whole head, or a piece of a body: a field is told only when it is whole
    _refused = False
    _deadline: asyncio.TimerHandle | None = None  # of the head; once refused, of the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        super().connection_lost(exc)

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
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._raw = 0
        self._forget_deadline()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._raw = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._raw = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(*(_LONG if self._told > _HEAD else _BAD))

    def _count(self, size: int) -> None:
        self._told += size
        if self._told > _HEAD:
            raise _TooLong

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
            b"content-length: " + str(len(body)).encode(), b"connection: close", b"", body]))
        # Closed at once, with bytes unread, the kernel would take the answer back.
        self.transport.write_eof()
        self._deadline = self.loop.call_later(_LINGER, self.transport.close)
