"""WebSocket session (CONTRACT §4): authenticates the caller, handles subscriptions, forwards `inbox.updated`.

    -> {"type":"auth","token":JWT}                  not needed if the handshake has the session cookie
    <- {"type":"authenticated","workspace_id":...}
    -> {"type":"subscribe","channel":"workspace:ID"}
    <- {"type":"subscribed","channel":...}          or {"type":"error","error":...,"channel":...}
    <- {"type":"inbox.updated","channel":...,"payload":{...}}
"""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import msgspec
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from api import metrics
from api.commands.rate_limiter import RateLimiter
from api.contract.errors import ApiError, Misdirected
from api.contract.messages import (
    Auth,
    Authenticated,
    ClientMessage,
    ErrorMessage,
    Ping,
    Pong,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
)
from api.contract.requests import SESSION_COOKIE
from api.edge.services import Edge
from api.http.auth.cookies import cookie_values
from api.http.auth.tokens import Authenticator, Caller, Unauthorized, WorkspaceChoice
from api.http.auth.workspaces import workspace_choice
from api.http.protocol.unauthenticated import mark_authenticated
from api.live.connections import MAX_STREAM_SECONDS, TooManyConnections
from api.live.notifications import Subscriber, channel_of

__all__ = ["serve_websocket"]

_AUTH_SECONDS = 10.0  # from the handshake until the caller is authenticated and has received the response
_END_SECONDS = 5.0  # for the last message and the close frame; then the connection is dropped
_MESSAGE_BURST = 30  # messages at once; a page only subscribes and pings
# Close codes: RFC 6455 section 7.4.1, and 4000 + the HTTP status.
POLICY_VIOLATION, TRY_AGAIN_LATER, UNAUTHORIZED, TOO_MANY_CONNECTIONS = 1008, 1013, 4401, 4429


_decode = msgspec.json.Decoder(Auth | Subscribe | Unsubscribe | Ping).decode
_encode = msgspec.json.Encoder().encode


class _CloseConnection(Exception):
    """Ends the session: the error is sent as a message, then the connection is closed with `code`."""

    def __init__(self, code: int, error: str, limit: int | None = None) -> None:
        super().__init__(error)
        self.code, self.limit = code, limit


def _is_allowed_origin(socket: WebSocket, origins: frozenset[str]) -> bool:
    """Whether the Origin is absent (no browser), configured (ATTN_WEBSOCKET_ORIGINS), or this host. A browser sends the
    session cookie for any page, so pages of other origins are refused."""
    origin = socket.headers.get("origin")
    if origin is None or origin in origins:
        return True
    try:
        page = urlsplit(origin)
    except ValueError:  # not sent by a browser
        return False
    return page.scheme in _allowed_schemes(socket) and page.netloc == socket.headers.get("host")


def _allowed_schemes(socket: WebSocket) -> tuple[str, ...]:
    """Returns the schemes that a page of this host may have. A page loaded without TLS may have been altered in
    transit, so on a TLS connection only https is allowed. A proxy that terminates TLS reports it in X-Forwarded-Proto;
    without that header both schemes are allowed."""
    forwarded_scheme = socket.headers.get("x-forwarded-proto", "").lower()
    secure = socket.url.scheme in ("wss", "https") or "https" in forwarded_scheme or "wss" in forwarded_scheme
    return ("https",) if secure else ("https", "http")


async def serve_websocket(socket: WebSocket, edge: Edge, auth: Authenticator) -> None:
    """Handles one WebSocket connection until it ends. An Origin that is not allowed gets 403."""
    if not _is_allowed_origin(socket, edge.settings.websocket_origins):
        await socket.close(POLICY_VIOLATION)  # before `accept`, so the handshake gets 403
        return
    if (elsewhere := await _misdirected(socket, edge, auth)) is not None:
        await socket.send_denial_response(Response(status_code=elsewhere.status, headers=elsewhere.headers))
        return
    await socket.accept()
    metrics.SOCKETS.inc()
    try:
        await WebSocketSession(socket, edge, auth).run()
    except WebSocketDisconnect:
        pass
    except _CloseConnection as reason:
        await _close_with_error(socket, reason)
    finally:
        metrics.SOCKETS.dec()


async def _misdirected(socket: WebSocket, edge: Edge, auth: Authenticator) -> Misdirected | None:
    """Returns the answer to a handshake whose session cookie belongs to a workspace of another edge, else None.

    Before `accept` a load balancer can still send the handshake to that edge.
    """
    cookies = cookie_values(socket, SESSION_COOKIE)
    if not cookies or not edge.ready or len(edge.replica.served) == edge.replica.partitions:
        return None
    try:
        edge.require_served((await auth.caller(None, cookies, workspace_choice(socket))).workspace_id)
    except Misdirected as elsewhere:
        return elsewhere
    except (Unauthorized, ApiError):
        pass  # the session is refused after `accept`, with the reason as a message
    return None


async def _close_with_error(socket: WebSocket, reason: _CloseConnection) -> None:
    try:
        async with asyncio.timeout(_END_SECONDS):
            await socket.send_text(_encode(ErrorMessage(str(reason), limit=reason.limit)).decode())
            await socket.close(reason.code)
    except (WebSocketDisconnect, RuntimeError, TimeoutError):
        pass  # the peer has disconnected or does not read: the server drops the connection when this task ends


class WebSocketSession:
    """One authenticated session: reads the messages of the client and sends notifications."""

    def __init__(self, socket: WebSocket, edge: Edge, auth: Authenticator) -> None:
        self._socket, self._edge, self._auth = socket, edge, auth
        self._channels: set[str] = set()
        self._rate = RateLimiter(edge.settings.socket_rate, _MESSAGE_BURST)

    async def run(self) -> None:
        """Runs until the client disconnects, the token expires, the client is too slow, or it breaks a limit. Raises
        _CloseConnection or WebSocketDisconnect."""
        caller = await self._authenticate()
        try:
            self._edge.connections.reserve(caller.workspace_id, caller.user)
        except TooManyConnections as full:
            raise _CloseConnection(TOO_MANY_CONNECTIONS, str(full), limit=full.limit) from None
        if self._edge.connections.is_full:
            self._edge.connections.release(caller.workspace_id, caller.user)
            metrics.STREAMS_DEFERRED.inc()
            raise _CloseConnection(
                TRY_AGAIN_LATER, f"the edge has {self._edge.connections.capacity} live connections, as many as its "
                                 "limit of open files allows: connect again later")
        subscriber = Subscriber(caller.reader)
        ended = asyncio.Event()
        work = (self._handle_messages(caller, subscriber), self._forward(subscriber), subscriber.overflowed.wait(),
                ended.wait())
        tasks = [asyncio.create_task(one) for one in work]
        unwatch = self._edge.access_watch.add(caller.credential, ended.set)
        try:
            seconds = min(caller.expires - self._edge.clock(), MAX_STREAM_SECONDS)
            done, _ = await asyncio.wait(tasks, timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if subscriber.overflowed.is_set():
                raise _CloseConnection(TRY_AGAIN_LATER, "the client reads too slowly: notifications were dropped")
            raise _CloseConnection(
                UNAUTHORIZED, self._edge.access_watch.refusal(caller.credential) or "the token has expired")
        finally:
            unwatch()
            self._edge.notifications.unsubscribe(subscriber)
            self._edge.connections.release(caller.workspace_id, caller.user)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _authenticate(self) -> Caller:
        """Returns the caller by the session cookie, or else by the first message. Raises _CloseConnection."""
        try:
            async with asyncio.timeout(_AUTH_SECONDS):
                cookies, choice = cookie_values(self._socket, SESSION_COOKIE), workspace_choice(self._socket)
                caller = (await self._auth.caller(None, cookies, choice) if cookies
                          else await self._read_auth_message(choice))
                if not self._edge.replica.serves(caller.workspace_id):
                    raise _CloseConnection(
                        TRY_AGAIN_LATER, "another edge serves this workspace: name it in the query `workspace`")
                await self._send(Authenticated(caller.workspace_id))
        except TimeoutError:
            raise _CloseConnection(UNAUTHORIZED, f"authentication timed out after {_AUTH_SECONDS:.0f} s") from None
        except Unauthorized as error:
            raise _CloseConnection(UNAUTHORIZED, str(error)) from None
        except ApiError as error:  # the view has not caught up yet
            raise _CloseConnection(TRY_AGAIN_LATER, str(error)) from None
        mark_authenticated(self._socket.scope)
        return caller

    async def _read_auth_message(self, choice: WorkspaceChoice) -> Caller:
        first = await self._receive()
        if not isinstance(first, Auth):
            raise _CloseConnection(UNAUTHORIZED, 'the first message must be {"type":"auth","token":...}')
        return await self._auth.caller(f"Bearer {first.token}", (), choice)

    async def _handle_messages(self, caller: Caller, subscriber: Subscriber) -> None:
        while True:
            message = await self._receive()
            if isinstance(message, Ping):
                await self._send(Pong())
            elif isinstance(message, Subscribe):
                await self._subscribe(caller, subscriber, message.channel)
            elif isinstance(message, Unsubscribe):
                self._channels.discard(message.channel)
                self._edge.notifications.unsubscribe(subscriber)
                await self._send(Unsubscribed(message.channel))
            elif message is not None:
                await self._send(ErrorMessage("already authenticated"))

    async def _subscribe(self, caller: Caller, subscriber: Subscriber, channel: str) -> None:
        """Subscribes to the channel of the caller's workspace. Any other channel gets the same error, whether its
        workspace exists or not (law 6)."""
        if channel != channel_of(caller.workspace_id):
            await self._send(ErrorMessage("no such channel", channel))
        elif len(self._channels | {channel}) > self._edge.settings.max_subscriptions:
            await self._send(ErrorMessage("too many channels", channel))
        else:
            self._channels.add(channel)
            self._edge.notifications.subscribe(subscriber)
            await self._send(Subscribed(channel))

    async def _forward(self, subscriber: Subscriber) -> None:
        while True:
            await self._socket.send_text((await subscriber.waiting.get()).decode())

    async def _receive(self) -> ClientMessage | None:
        """Returns the next message, or None after an invalid one, which is answered with an error. Raises
        _CloseConnection if the client exceeds the rate or the size limit, and WebSocketDisconnect at the end."""
        received = await self._socket.receive()
        if received["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(received.get("code", 1000))
        raw = received.get("bytes") or (received.get("text") or "").encode()
        if self._rate.acquire("", ""):
            raise _CloseConnection(POLICY_VIOLATION, "too many messages")
        if len(raw) > self._edge.settings.socket_message:
            raise _CloseConnection(1009, f"a message has at most {self._edge.settings.socket_message} bytes")
        try:
            message: ClientMessage = _decode(raw)
        except (ValueError, RecursionError) as error:
            await self._send(ErrorMessage(f"invalid message: {error}"))
            return None
        return message

    async def _send(self, message: Authenticated | Subscribed | Unsubscribed | Pong | ErrorMessage) -> None:
        await self._socket.send_text(_encode(message).decode())
