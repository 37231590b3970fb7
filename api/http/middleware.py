"""ASGI middleware: limits of the request body, HEAD, release of what a request holds, request metrics, `nosniff`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import metrics
from api.live.event_stream import DRAIN_EXTENSION
from streams.tracing import hooks

__all__ = [
    "RELEASE_CALLBACKS", "BodyLimitMiddleware", "HeadMethodMiddleware", "ReleaseMiddleware", "RequestMetricsMiddleware",
]

# Key in the ASGI scope: functions to call when the client has received the response, or has disconnected.
RELEASE_CALLBACKS = "attn.held"

# Seconds that the next chunk of an incomplete body may take.
PIECE_SECONDS = 30.0
_DIGITS = 20  # of a Content-Length: enough for 64 bits; a longer number is cut and still exceeds any limit
# Seconds that a whole body may take: 1 MiB at 9 KB/s. Without it, one byte every 29 s could keep a request open for a
# year.
BODY_SECONDS = 120.0


class _BodyRefused(Exception):
    """The body exceeds a limit; `_LimitedBody` holds the response to send."""


class BodyLimitMiddleware:
    """Limits the body of each request except GET and HEAD.

    A body of more than `max_bytes` gets 413 and is not read further; `larger`: paths with another limit, of which one
    that ends with a slash stands for all below it. A body that stalls for `PIECE_SECONDS`, or takes longer than
    `BODY_SECONDS`, gets 408.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, larger: Mapping[str, int] | None = None) -> None:
        self._app, self._max_bytes, self._larger = app, max_bytes, larger or {}
        self._folders = tuple(path for path in self._larger if path.endswith("/"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        max_bytes = self._limit_of(scope["path"])
        body = _LimitedBody(receive, send, max_bytes)
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        # The parser takes any number of leading zeros; Python converts at most 4300 digits.
        if declared.isdigit() and int(declared.lstrip(b"0")[:_DIGITS] or b"0") > max_bytes:
            await body.respond(*body.too_large)
            return
        try:
            await self._app(scope, body.receive, body.send)
        except _BodyRefused:
            await body.send_refusal()

    def _limit_of(self, path: str) -> int:
        folder = next((folder for folder in self._folders if path.startswith(folder)), path)
        return self._larger.get(folder, self._max_bytes)


class _LimitedBody:
    """Wraps `receive` and `send` of one request. Once the body exceeds a limit, the refusal replaces any response of
    the application that has not started."""

    def __init__(self, receive: Receive, send: Send, max_bytes: int) -> None:
        self._receive, self._send, self._max_bytes = receive, send, max_bytes
        self._size = 0
        self._complete = False
        self._responded = False
        self._refusal: tuple[int, dict[str, object]] | None = None
        self._deadline = asyncio.get_running_loop().time() + BODY_SECONDS

    @property
    def too_large(self) -> tuple[int, dict[str, object]]:
        return 413, {"error": f"the body is too large: at most {self._max_bytes} bytes", "limit": self._max_bytes}

    async def receive(self) -> Message:
        message = await (self._receive() if self._complete else self._receive_in_time())
        self._complete = not message.get("more_body", False)
        self._size += len(message.get("body", b""))
        if self._size > self._max_bytes:
            self._refusal = self.too_large
            raise _BodyRefused
        return message

    async def _receive_in_time(self) -> Message:
        left = self._deadline - asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(min(PIECE_SECONDS, left)):
                return await self._receive()
        except TimeoutError:
            reason = (f"no data for {PIECE_SECONDS:g} s" if left > PIECE_SECONDS
                      else f"not complete after {BODY_SECONDS:g} s")
            self._refusal = 408, {"error": f"request body incomplete: {reason}"}
            raise _BodyRefused from None

    async def send(self, message: Message) -> None:
        if self._refusal is not None:
            await self.send_refusal()  # instead of the response that the application made of the exception
        else:
            self._responded = True
            await self._send(message)

    async def send_refusal(self) -> None:
        if self._refusal is not None and not self._responded:
            await self.respond(*self._refusal)

    async def respond(self, status: int, content: dict[str, object]) -> None:
        self._responded = True
        body = orjson.dumps(content)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()),
                   (b"connection", b"close"), (b"cache-control", b"no-store")]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


class HeadMethodMiddleware:
    """Answers HEAD as GET without the body (RFC 9110 section 9.3.2).

    The application sees a client that has disconnected, so an event stream ends at once.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def disconnected() -> Message:
            return {"type": "http.disconnect"}

        async def send_without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self._app({**scope, "method": "GET"}, disconnected, send_without_body)


class ReleaseMiddleware:
    """Calls the `RELEASE_CALLBACKS` of a request when the client has received the response, or has disconnected.

    A request holds a slot of the read limiter until then (`api.http.dependencies`): otherwise a client that does not
    read could make the edge buffer any number of responses.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        callbacks = scope[RELEASE_CALLBACKS] = []
        try:
            await self._app(scope, receive, send)
            drain = (scope.get("extensions") or {}).get(DRAIN_EXTENSION)
            if callbacks and drain is not None:
                await drain()
        finally:
            for release in callbacks:
                release()


_NOSNIFF = (b"x-content-type-options", b"nosniff")


class RequestMetricsMiddleware:
    """Measures the time until the response starts, by route and status. The label is the route template, because paths
    contain ids.

    Adds `X-Content-Type-Options: nosniff` to every response: a browser must not render JSON with foreign text as HTML.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()

        async def send_and_measure(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path_format", "none")
                metrics.REQUEST_SECONDS.labels(route, message["status"]).observe(
                    time.perf_counter() - start, hooks.exemplar())
                if _NOSNIFF not in (headers := message.get("headers", ())):
                    message = {**message, "headers": [*headers, _NOSNIFF]}
            await send(message)

        await self._app(scope, receive, send_and_measure)
