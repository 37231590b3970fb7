"""HTTP port of the worker and the history: `/metrics`, `/healthz`, `/readyz`.

Written by hand, without a web framework: the history does not need Faust or uvicorn otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder

from streams.runtime.lag import READY

__all__ = ["exposition", "serve"]

_REQUEST_SECONDS = 5.0  # for a request and its response
_MAX_HEADER_BYTES = 8192
_CLIENT_ERRORS = (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)


@contextlib.asynccontextmanager
async def serve(port: int, not_ready_reason: Callable[[], str | None], host: str = "127.0.0.1") -> AsyncIterator[None]:
    """Serves while the block runs; serves nothing if `port` is 0.

    `not_ready_reason` returns why the process is not ready, or None: /readyz answers 503 with the reason, or 200.
    Raises OSError if the port is in use.
    """
    READY.set_function(lambda: not_ready_reason() is None)
    if not port:
        yield
        return

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(*_CLIENT_ERRORS):
            async with asyncio.timeout(_REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_response(head, not_ready_reason))
                await writer.drain()

    async with await asyncio.start_server(answer, host, port, limit=_MAX_HEADER_BYTES):
        yield


def exposition(accept: str) -> tuple[str, bytes]:
    """Returns content type and body of `/metrics`: OpenMetrics if the client accepts it, else Prometheus text.

    Only OpenMetrics has exemplars, which name the traces behind a histogram.
    """
    encode, content_type = choose_encoder(accept)
    return content_type, encode(REGISTRY)


def _response(head: bytes, not_ready_reason: Callable[[], str | None]) -> bytes:
    method, _, rest = head.decode("latin-1").partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    kind, body = "text/plain; charset=utf-8", b"ok\n"
    if method not in ("GET", "HEAD"):
        status, body = "405 Method Not Allowed", b"GET only\n"
    elif path == "/metrics":
        status = "200 OK"
        kind, body = exposition(_header(head, b"accept"))
    elif path == "/healthz" or (path == "/readyz" and (reason := not_ready_reason()) is None):
        status = "200 OK"
    elif path == "/readyz":
        status, body = "503 Service Unavailable", f"{reason}\n".encode()
    else:
        status, body = "404 Not Found", b"/metrics, /healthz, /readyz\n"
    fields = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return fields.encode() + (b"" if method == "HEAD" else body)


def _header(head: bytes, name: bytes) -> str:
    """Returns the values of a header, joined; "" without it."""
    fields = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return ",".join(value.decode("latin-1").strip() for found, _, value in fields if found.strip().lower() == name)
