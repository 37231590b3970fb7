"""HTTP/1.1 protocol with limits that apply before authentication: size and time of the request head, pipelined
requests, unsent bytes. It uses private API of uvicorn's `HttpToolsProtocol`, so `uvicorn<1` is pinned."""

from __future__ import annotations

import asyncio
import re
from typing import Any, NoReturn

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.http.protocol.unauthenticated import UnauthenticatedConnections

__all__ = ["HeaderLimitProtocol"]

# Bytes of the request line and the header fields, and seconds until they are complete. Without these limits, a client
# that never ends the head keeps memory and a connection indefinitely. A token has at most 8 KiB.
_MAX_HEAD_BYTES = 64 << 10
HEAD_SECONDS = 30.0
# After a refusal the connection stays open, so that the client can read the response: for these seconds, or until this
# many more bytes have arrived. The bytes are discarded.
_LINGER_SECONDS, _LINGER_BYTES = 2.0, 4 << 20
# Pipelined requests that may wait behind the one in progress. Each holds some KB, and clients rarely pipeline.
_MAX_PIPELINED = 16
# Seconds that unsent bytes may wait for the client: 8 MiB at 140 KB/s.
STALLED_SECONDS = 60.0
_NOT_HTTP = b"400 Bad Request", "not an HTTP request"
_TOO_LARGE = b"431 Request Header Fields Too Large", (
    f"the request's line and headers are too large: at most {_MAX_HEAD_BYTES} bytes; "
    "cookies count, so delete those of this host")
_BAD_CODING = b"501 Not Implemented", "transfer-encoding: must be chunked or absent"
_BAD_HOST = b"400 Bad Request", "host: an HTTP/1.1 request has one such header: a name or an address, and maybe a port"
# RFC 3986, 3.2.2 and 3.2.3: a name or an IPv4 address, or an IP literal in brackets; then a port. Empty is valid.
_HOST = re.compile(rb"(?:\[[0-9A-Za-z:.%_~-]+\]|(?:[0-9A-Za-z._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?")
_TOO_SLOW = b"408 Request Timeout", f"the request head was incomplete after {HEAD_SECONDS:g} s"


class _RequestRefused(Exception):
    """Stops the parser; uvicorn then calls `send_400_response`."""


class HeaderLimitProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol with limits. These get a JSON response, and the connection is closed: an invalid
    request, or one without exactly one valid Host header (400), a head that is too large (431) or too slow (408), and
    an unknown transfer coding (501)."""

    _header_bytes = 0  # bytes of the request line and the fields, trailers included
    # Bytes since the last complete head or body chunk: the parser reports a field only when it is complete.
    _unparsed_bytes = 0
    _unknown_coding = False  # the request has another transfer coding than `chunked`
    _has_host = False  # the request has a Host header
    _is_host_refused = False
    _is_refused = False
    is_authenticated = False  # the caller of the request in progress
    _deadline: asyncio.TimerHandle | None = None  # timer of the request head; after a refusal, of the connection
    _stall_timer: asyncio.TimerHandle | None = None
    running: RequestResponseCycle | None = None  # the request in progress; `cycle` is the newest one

    def __init__(self, config: Any, server_state: Any, app_state: Any, _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.unauthenticated: UnauthenticatedConnections = server_state.unauthenticated

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.unauthenticated.add(transport, self.client)
        self._start_head_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self.unauthenticated.remove(self.transport)
        self.release()
        if self.running is not None and not self.running.response_complete:
            # uvicorn notifies only the newest request, which may wait behind this one.
            self.running.disconnected = True
            self.running.message_event.set()
        super().connection_lost(exc)

    def release(self) -> None:
        """Cancels the timers. To be called when the connection ends, or when another protocol takes it over."""
        self._cancel_deadline()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def pause_writing(self) -> None:
        super().pause_writing()
        if not self.is_authenticated:  # the client does not read the response
            self.unauthenticated.add(self.transport, self.client)
        if self._stall_timer is None:
            self._stall_timer = self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self.running = cycle
        super()._start_asgi_task(cycle, app)

    def authenticate(self) -> None:
        """Notes that the caller of the request in progress has a valid token."""
        self.is_authenticated = True
        self.unauthenticated.remove(self.transport)

    def on_response_complete(self) -> None:
        self.is_authenticated = False
        if not self.transport.is_closing():
            self.unauthenticated.add(self.transport, self.client)
        super().on_response_complete()
        if self.pipeline:
            self.flow.pause_reading()

    def data_received(self, data: bytes) -> None:
        self._unparsed_bytes += len(data)
        if self._is_refused:
            if self._unparsed_bytes > _LINGER_BYTES:
                self.transport.close()
            return
        super().data_received(data)
        if self._unparsed_bytes > _MAX_HEAD_BYTES:
            self._refuse(*_TOO_LARGE)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._header_bytes, self._has_host = 0, False
        if self._deadline is None:
            self._start_head_deadline()

    def on_url(self, url: bytes) -> None:
        self._count_header_bytes(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_header_bytes(len(name) + len(value))
        if name.lower() == b"transfer-encoding" and value.strip().lower() != b"chunked":
            # The parser treats another coding as a body that ends with the connection, so no response would be sent.
            self._unknown_coding = True
            raise _RequestRefused
        if name.lower() == b"host":
            # RFC 9112, 3.2: a proxy may have read another of them than attn, which builds sign-in addresses with it.
            if self._has_host or not _HOST.fullmatch(value.strip(b" \t")):
                self._refuse_host()
            self._has_host = True
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self._has_host and self.parser.get_http_version() != "1.0":
            self._refuse_host()
        self._unparsed_bytes = 0
        self._cancel_deadline()
        super().on_headers_complete()
        if len(self.pipeline) > _MAX_PIPELINED:
            self._is_refused = True
            self.transport.abort()
            raise _RequestRefused

    def on_body(self, body: bytes) -> None:
        self._unparsed_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unparsed_bytes = 0
        super().on_message_complete()
        # The request waits for the edge, not the edge for its client. When thousands of readers come back at once, such
        # requests wait for seconds, and those of a proxy have one address.
        if self.cycle is not None and not self.cycle.response_complete:
            self.unauthenticated.remove(self.transport)

    def send_400_response(self, msg: str) -> None:
        too_large = self._header_bytes > _MAX_HEAD_BYTES
        reason = _BAD_CODING if self._unknown_coding else _BAD_HOST if self._is_host_refused else _NOT_HTTP
        self._refuse(*(_TOO_LARGE if too_large else reason))

    def _count_header_bytes(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > _MAX_HEAD_BYTES:
            raise _RequestRefused

    def _refuse_host(self) -> NoReturn:
        self._is_host_refused = True
        raise _RequestRefused

    def _start_head_deadline(self) -> None:
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._refuse, *_TOO_SLOW)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, status: bytes, error: str) -> None:
        """Sends the error as JSON and closes the connection; no further request is parsed."""
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        self._cancel_deadline()
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.close()  # a response is in progress: the client would read this one as a part of it
            return
        body = orjson.dumps({"error": error})
        self.transport.write(b"\r\n".join([
            b"HTTP/1.1 " + status, b"content-type: application/json", b"cache-control: no-store",
            b"x-content-type-options: nosniff",
            b"content-length: " + str(len(body)).encode(), b"connection: close", b"", body]))
        # If the connection were closed with unread bytes, the kernel would send a reset and discard the response.
        self.transport.write_eof()
        self._deadline = self.loop.call_later(_LINGER_SECONDS, self.transport.close)
