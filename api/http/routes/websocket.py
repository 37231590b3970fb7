"""The WebSocket of CONTRACT §4: who it is first, then channels, then pushes; `ping` is answered with `pong`.

    -> {"type":"auth","token":JWT}                  not needed where the session cookie came with the handshake
    <- {"type":"authenticated","workspace_id":...}
    -> {"type":"subscribe","channel":"workspace:ID"}
    <- {"type":"subscribed","channel":...}          or {"type":"error","error":...,"channel":...}
    <- {"type":"inbox.updated","channel":...,"payload":{...}}
"""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from api import metrics
from api.commands.rate_limiter import RateLimiter
from api.contract.messages import (
    Auth,
    Authenticated,
    Ping,
    Pong,
    Received,
    Refused,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
)
from api.contract.requests import SESSION_COOKIE as COOKIE
from api.edge.services import Edge
from api.http.auth.cookies import cookie_values
from api.http.auth.tokens import Authenticator, Caller, Unauthorized
from api.http.protocol.unauthenticated import known
from api.live.connections import Full
from api.live.notifications import Subscriber, channel_of

__all__ = ["serve"]

_AUTH_SECONDS = 10.0  # from the handshake until the caller is known and has taken the answer
_END_SECONDS = 5.0  # for the last message and the close; then the connection is dropped
_BURST = 30  # messages at once: a page that subscribes and pings
_LONGEST = 30 * 86400.0  # seconds, as of streams
# Close codes: RFC 6455 7.4.1, and 44xx as the HTTP status would be.
POLICY, TRY_LATER, UNKNOWN, TOO_MANY = 1008, 1013, 4401, 4429


_decode = msgspec.json.Decoder(Auth | Subscribe | Unsubscribe | Ping).decode
_encode = msgspec.json.Encoder().encode


class _Closed(Exception):
    def __init__(self, code: int, error: str, limit: int | None = None) -> None:
        super().__init__(error)
        self.code, self.limit = code, limit


def _is_ours(socket: WebSocket, origins: frozenset[str]) -> bool:
    """A browser says which page asks. Only our own may use the cookie it sends along; tools send no Origin."""
    origin = socket.headers.get("origin")
    if origin is None or origin in origins:
        return True
    try:
        page = urlsplit(origin)
    except ValueError:  # no browser sends it
        return False
    return page.scheme in _schemes(socket) and page.netloc == socket.headers.get("host")


def _schemes(socket: WebSocket) -> tuple[str, ...]:
    """Schemes our own page can have. A page that came without TLS may be anybody's on the way, so it is not taken for
    ours where the browser speaks TLS. A proxy that ends TLS says so; without a word from it, either will do."""
    forwarded = socket.headers.get("x-forwarded-proto", "").lower()
    secure = socket.url.scheme in ("wss", "https") or "https" in forwarded or "wss" in forwarded
    return ("https",) if secure else ("https", "http")


async def serve(socket: WebSocket, edge: Edge, auth: Authenticator) -> None:
    """One connection, until it ends."""
    if not _is_ours(socket, edge.settings.websocket_origins):
        await socket.close(POLICY)  # before it was accepted: the handshake is answered with 403
        return
    await socket.accept()
    metrics.SOCKETS.inc()
    try:
        await _Talk(socket, edge, auth).run()
    except WebSocketDisconnect:
        pass
    except _Closed as why:
        await _end(socket, why)
    finally:
        metrics.SOCKETS.dec()


async def _end(socket: WebSocket, why: _Closed) -> None:
    try:
        async with asyncio.timeout(_END_SECONDS):
            await socket.send_text(_encode(Refused(str(why), limit=why.limit)).decode())
            await socket.close(why.code)
    except (WebSocketDisconnect, RuntimeError, TimeoutError):
        pass  # the peer is gone, or takes nothing: the server drops the connection when this task ends


class _Talk:
    """What is said on one connection."""

    def __init__(self, socket: WebSocket, edge: Edge, auth: Authenticator) -> None:
        self._socket, self._edge, self._auth = socket, edge, auth
        self._channels: set[str] = set()
        self._rate = RateLimiter(edge.settings.socket_rate, _BURST)

    async def run(self) -> None:
        caller = await self._who()
        try:
            self._edge.connections.take(caller.ws, caller.user)
        except Full as full:
            raise _Closed(TOO_MANY, str(full), limit=full.limit) from None
        one = Subscriber(caller.reader)
        tasks = [asyncio.create_task(work) for work in (self._listen(caller, one), self._pass_on(one), one.lost.wait())]
        try:
            seconds = min(caller.expires - self._edge.clock(), _LONGEST)
            done, _ = await asyncio.wait(tasks, timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            raise _Closed(TRY_LATER, "too slow") if one.lost.is_set() else _Closed(UNKNOWN, "the token has expired")
        finally:
            self._edge.pushes.unsubscribe(one)
            self._edge.connections.give_back(caller.ws, caller.user)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _who(self) -> Caller:
        """The cookie's bearer, or the one of the first message."""
        try:
            async with asyncio.timeout(_AUTH_SECONDS):
                cookies = cookie_values(self._socket, COOKIE)
                caller = await self._auth.caller(None, cookies) if cookies else await self._introduced()
                await self._say(Authenticated(caller.ws))
        except TimeoutError:
            raise _Closed(UNKNOWN, f"authentication timed out after {_AUTH_SECONDS:.0f} s") from None
        except Unauthorized as error:
            raise _Closed(UNKNOWN, str(error)) from None
        known(self._socket.scope)
        return caller

    async def _introduced(self) -> Caller:
        first = await self._next()
        if not isinstance(first, Auth):
            raise _Closed(UNKNOWN, 'the first message must be {"type":"auth","token":...}')
        return await self._auth.caller(f"Bearer {first.token}")

    async def _listen(self, caller: Caller, one: Subscriber) -> None:
        while True:
            message = await self._next()
            if isinstance(message, Ping):
                await self._say(Pong())
            elif isinstance(message, Subscribe):
                await self._subscribe(caller, one, message.channel)
            elif isinstance(message, Unsubscribe):
                self._channels.discard(message.channel)
                self._edge.pushes.unsubscribe(one)
                await self._say(Unsubscribed(message.channel))
            elif message is not None:
                await self._say(Refused("already authenticated"))

    async def _subscribe(self, caller: Caller, one: Subscriber, channel: str) -> None:
        """Another workspace's channel is refused whether there is such a one or not (law 6)."""
        if channel != channel_of(caller.ws):
            await self._say(Refused("no such channel", channel))
        elif len(self._channels | {channel}) > self._edge.settings.max_subscriptions:
            await self._say(Refused("too many channels", channel))
        else:
            self._channels.add(channel)
            self._edge.pushes.subscribe(one)
            await self._say(Subscribed(channel))

    async def _pass_on(self, one: Subscriber) -> None:
        while True:
            await self._socket.send_text((await one.waiting.get()).decode())

    async def _next(self) -> Received | None:
        """The next message. None: it was not one, and its sender was told so."""
        received = await self._socket.receive()
        if received["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(received.get("code", 1000))
        raw = received.get("bytes") or (received.get("text") or "").encode()
        if self._rate.acquire("", ""):
            raise _Closed(POLICY, "too many messages")
        if len(raw) > self._edge.settings.socket_message:
            raise _Closed(1009, f"a message has at most {self._edge.settings.socket_message} bytes")
        try:
            message: Received = _decode(raw)
        except (ValueError, RecursionError) as error:
            await self._say(Refused(f"not a message: {error}"))
            return None
        return message

    async def _say(self, message: Authenticated | Subscribed | Unsubscribed | Pong | Refused) -> None:
        await self._socket.send_text(_encode(message).decode())
