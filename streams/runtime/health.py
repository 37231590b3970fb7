"""A worker's or the history's small HTTP port: `/metrics`, `/healthz`, `/readyz`. Off where `metrics_port` is 0."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from streams.runtime.lag import READY

__all__ = ["serve"]

_PATIENCE = 5.0  # seconds a client has for its request
_LIMIT = 8192  # bytes of a request's head
_CLIENT_ERRORS = (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)


@contextlib.asynccontextmanager
async def serve(port: int, unready: Callable[[], str | None], host: str = "127.0.0.1") -> AsyncIterator[None]:
    """Answers while the body runs. `unready`: why the role is not ready, or None. OSError: the port is taken."""
    READY.set_function(lambda: unready() is None)
    if not port:
        yield
        return

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(*_CLIENT_ERRORS):
            async with asyncio.timeout(_PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_answer(head, unready))
                await writer.drain()

    async with await asyncio.start_server(answer, host, port, limit=_LIMIT):
        yield


def _answer(head: bytes, unready: Callable[[], str | None]) -> bytes:
    method, _, rest = head.decode("latin-1").partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    kind, body = "text/plain; charset=utf-8", b"ok\n"
    if method not in ("GET", "HEAD"):
        status, body = "405 Method Not Allowed", b"GET only\n"
    elif path == "/metrics":
        status, kind, body = "200 OK", CONTENT_TYPE_LATEST, generate_latest()
    elif path == "/healthz" or (path == "/readyz" and (reason := unready()) is None):
        status = "200 OK"
    elif path == "/readyz":
        status, body = "503 Service Unavailable", f"{reason}\n".encode()
    else:
        status, body = "404 Not Found", b"/metrics, /healthz, /readyz\n"
    fields = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return fields.encode() + (b"" if method == "HEAD" else body)
