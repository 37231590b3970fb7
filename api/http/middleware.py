"""How large a request's body may be, whatever it says of itself, and how slow."""

from __future__ import annotations

import asyncio

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Limited"]


# Seconds for the next piece of a body that is not whole yet.
PIECE_SECONDS = 30.0
_DIGITS = 20  # of a 64-bit number; a longer one is cut and too large all the same
# Seconds for all of it: 1 MiB at 9 KB a second. A byte every 29 s would hold a body for a year.
BODY_SECONDS = 120.0


class _Refused(Exception):
    pass


class Limited:
    """`most` bytes. More is answered with 413 and not read, what stops coming with 408."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        body = _Body(receive, send, self._most)
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        # The parser takes any number of leading zeros; Python converts at most 4300 digits.
        if declared.isdigit() and int(declared.lstrip(b"0")[:_DIGITS] or b"0") > self._most:
            await body.answer(*body.too_large)
            return
        try:
            await self._app(scope, body.receive, body.send)
        except _Refused:
            await body.refuse()


class _Body:
    """One request: watches what is received; once that is too much or too slow, the only answer is one that says so."""

    def __init__(self, receive: Receive, send: Send, most: int) -> None:
        self._receive, self._send, self._most = receive, send, most
        self._size = 0
        self._whole = False
        self._answered = False
        self._refusal: tuple[int, dict[str, object]] | None = None
        self._until = asyncio.get_running_loop().time() + BODY_SECONDS

    @property
    def too_large(self) -> tuple[int, dict[str, object]]:
        return 413, {"error": f"the body is too large: at most {self._most} bytes", "limit": self._most}

    async def receive(self) -> Message:
        message = await (self._receive() if self._whole else self._soon())
        self._whole = not message.get("more_body", False)
        self._size += len(message.get("body", b""))
        if self._size > self._most:
            self._refusal = self.too_large
            raise _Refused
        return message

    async def _soon(self) -> Message:
        left = self._until - asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(min(PIECE_SECONDS, left)):
                return await self._receive()
        except TimeoutError:
            waited = f"for {PIECE_SECONDS:g} s" if left > PIECE_SECONDS else f"within {BODY_SECONDS:g} s"
            self._refusal = 408, {"error": f"request body incomplete: nothing more came {waited}"}
            raise _Refused from None

    async def send(self, message: Message) -> None:
        if self._refusal is not None:
            await self.refuse()  # whatever the app made of it
        else:
            self._answered = True
            await self._send(message)

    async def refuse(self) -> None:
        if self._refusal is not None and not self._answered:
            await self.answer(*self._refusal)

    async def answer(self, status: int, what: dict[str, object]) -> None:
        self._answered = True
        body = orjson.dumps(what)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()),
                   (b"connection", b"close"), (b"cache-control", b"no-store")]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})
