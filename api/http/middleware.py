"""How large a request's body may be, whatever it says of itself, and how slow."""

from __future__ import annotations

import asyncio
import time

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import metrics
from api.live.event_stream import DRAIN

__all__ = [
    "RELEASE_CALLBACKS", "BodyLimitMiddleware", "HeadMethodMiddleware", "ReleaseMiddleware", "RequestMetricsMiddleware",
]

# Key in the ASGI scope: functions to call when the client has received the response, or is gone.
RELEASE_CALLBACKS = "attn.held"


# Seconds for the next piece of a body that is not whole yet.
PIECE_SECONDS = 30.0
_DIGITS = 20  # of a 64-bit number; a longer one is cut and too large all the same
# Seconds for all of it: 1 MiB at 9 KB a second. A byte every 29 s would hold a body for a year.
BODY_SECONDS = 120.0


class _BodyRefused(Exception):
    pass


class BodyLimitMiddleware:
    """`most` bytes. More is answered with 413 and not read, what stops coming with 408."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        body = _LimitedBody(receive, send, self._most)
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        # The parser takes any number of leading zeros; Python converts at most 4300 digits.
        if declared.isdigit() and int(declared.lstrip(b"0")[:_DIGITS] or b"0") > self._most:
            await body.respond(*body.too_large)
            return
        try:
            await self._app(scope, body.receive, body.send)
        except _BodyRefused:
            await body.send_refusal()


class _LimitedBody:
    """One request: watches what is received; once that is too much or too slow, the only answer is one that says so."""

    def __init__(self, receive: Receive, send: Send, most: int) -> None:
        self._receive, self._send, self._most = receive, send, most
        self._size = 0
        self._complete = False
        self._responded = False
        self._refusal: tuple[int, dict[str, object]] | None = None
        self._deadline = asyncio.get_running_loop().time() + BODY_SECONDS

    @property
    def too_large(self) -> tuple[int, dict[str, object]]:
        return 413, {"error": f"the body is too large: at most {self._most} bytes", "limit": self._most}

    async def receive(self) -> Message:
        message = await (self._receive() if self._complete else self._receive_in_time())
        self._complete = not message.get("more_body", False)
        self._size += len(message.get("body", b""))
        if self._size > self._most:
            self._refusal = self.too_large
            raise _BodyRefused
        return message

    async def _receive_in_time(self) -> Message:
        left = self._deadline - asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(min(PIECE_SECONDS, left)):
                return await self._receive()
        except TimeoutError:
            waited = f"for {PIECE_SECONDS:g} s" if left > PIECE_SECONDS else f"within {BODY_SECONDS:g} s"
            self._refusal = 408, {"error": f"request body incomplete: nothing more came {waited}"}
            raise _BodyRefused from None

    async def send(self, message: Message) -> None:
        if self._refusal is not None:
            await self.send_refusal()  # whatever the app made of it
        else:
            self._responded = True
            await self._send(message)

    async def send_refusal(self) -> None:
        if self._refusal is not None and not self._responded:
            await self.respond(*self._refusal)

    async def respond(self, status: int, what: dict[str, object]) -> None:
        self._responded = True
        body = orjson.dumps(what)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()),
                   (b"connection", b"close"), (b"cache-control", b"no-store")]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


class HeadMethodMiddleware:
    """HEAD is GET without the body (RFC 9110: every server has both). A stream ends as soon as it began."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def gone() -> Message:
            return {"type": "http.disconnect"}

        async def bare(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self._app({**scope, "method": "GET"}, gone, bare)


class ReleaseMiddleware:
    """Gives back what a request holds (api.http.dependencies) when its reader has taken the answer, or is gone."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        held = scope[RELEASE_CALLBACKS] = []
        try:
            await self._app(scope, receive, send)
            drain = (scope.get("extensions") or {}).get(DRAIN)
            if held and drain is not None:
                await drain()
        finally:
            for give_back in held:
                give_back()


_NOSNIFF = (b"x-content-type-options", b"nosniff")


class RequestMetricsMiddleware:
    """Measures the time to answer by route, not by path: paths hold ids. Adds `nosniff` to every answer: a browser must
    not take JSON with somebody's text in it for a page."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()

        async def timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path_format", "none")
                metrics.REQUEST_SECONDS.labels(route, message["status"]).observe(time.perf_counter() - begun)
                if _NOSNIFF not in (headers := message.get("headers", ())):
                    message = {**message, "headers": [*headers, _NOSNIFF]}
            await send(message)

        await self._app(scope, receive, timed)
