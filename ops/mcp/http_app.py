"""The streamable HTTP transport: each caller authenticates with its own key of attn (CONTRACT §8).

The app holds no key of its own. The bearer of a request is the key with which its questions are sent and read, so a
caller reaches the workspace of its key and no other.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from streams.runtime.source_keys import covers_source, key_id_of

__all__ = ["SOURCE_HEADER", "Verdict", "build_app", "caller_of", "security_of"]

PATH = "/mcp"
SOURCE_HEADER = "attn-source"  # set in the client's configuration, where the key is
MAX_SESSIONS = 1000
SESSION_IDLE_SECONDS = 30 * 60
MAX_BODY_BYTES = 1 << 20
_VERIFIED_SECONDS = 30.0
_MAX_VERIFIED = 10_000

Verdict = Literal["valid", "refused", "unreachable"]
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def security_of(host: str, port: int, hosts: tuple[str, ...], origins: tuple[str, ...]) -> TransportSecuritySettings:
    """Returns which `Host` and `Origin` headers are accepted, against DNS rebinding.

    On a loopback address: those of this machine. On another address: the address itself and `hosts`. `origins` are
    those of browser clients.
    """
    shown = f"[{host}]" if ":" in host else host
    loopback = host in ("127.0.0.1", "localhost", "::1")
    names = [f"{name}:{port}" for name in _LOOPBACK] if loopback else [f"{shown}:{port}"]
    web = [f"http://{name}" for name in names] if loopback else []
    return TransportSecuritySettings(
        enable_dns_rebinding_protection=True, allowed_hosts=[*names, *hosts], allowed_origins=[*web, *origins])


def caller_of(request: Any, default_source: str) -> tuple[str, str]:
    """Returns the key and the CloudEvents source of a request. The source is below that of the server."""
    source = request.headers.get(SOURCE_HEADER, "") or default_source
    return request.scope["user"].access_token.token, source


class _KeyAuthentication:
    """Admits requests with a key that attn accepts, and with a source of this server. A verdict is kept for 30 s: attn
    checks the key again at each call of a tool."""

    def __init__(self, app: ASGIApp, verify: Callable[[str], Awaitable[Verdict]], source: str) -> None:
        self._app, self._verify, self._source = app, verify, source
        self._valid: OrderedDict[str, float] = OrderedDict()  # key -> when it was verified

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        scheme, _, key = headers.get("authorization", "").partition(" ")
        key = key.strip()
        key_id = key_id_of(key) if scheme.lower() == "bearer" else None
        verdict = await self._verdict(key) if key_id is not None else "refused"
        source = headers.get(SOURCE_HEADER, "") or self._source
        if verdict == "unreachable":
            response = JSONResponse({"error": "attn cannot be reached, so the key cannot be verified"}, 503,
                                    {"retry-after": "2"})
        elif verdict == "refused":
            response = JSONResponse(
                {"error": "a key of attn is required: Authorization: Bearer attn_..."}, 401,
                {"www-authenticate": 'Bearer error="invalid_token"'})
        elif not covers_source(self._source, source) or len(source) > 512:
            response = JSONResponse({"error": f"{SOURCE_HEADER}: must be {self._source}, or a path below it"}, 403)
        else:
            scope["user"] = AuthenticatedUser(AccessToken(token=key, client_id=str(key_id), scopes=[], subject=source))
            await self._app(scope, receive, send)
            return
        await response(scope, receive, send)

    async def _verdict(self, key: str) -> Verdict:
        now = time.monotonic()
        if now - self._valid.get(key, -_VERIFIED_SECONDS) < _VERIFIED_SECONDS:
            return "valid"
        self._valid.pop(key, None)
        verdict = await self._verify(key)
        if verdict == "valid":
            self._valid[key] = now
            if len(self._valid) > _MAX_VERIFIED:
                self._valid.popitem(last=False)
        return verdict


def build_app(
    server: Server[Any], security: TransportSecuritySettings, verify: Callable[[str], Awaitable[Verdict]], source: str,
    maintain: Callable[[], Awaitable[None]],
) -> Starlette:
    """Returns the ASGI app. `verify` asks attn whether it accepts a key; `maintain` runs as long as the app."""
    sessions = StreamableHTTPSessionManager(
        server, security_settings=security, session_idle_timeout=SESSION_IDLE_SECONDS, max_sessions=MAX_SESSIONS,
        max_request_body_size=MAX_BODY_BYTES)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        task = asyncio.ensure_future(maintain())
        try:
            async with sessions.run():
                yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def healthz(_: Any) -> JSONResponse:
        return JSONResponse({"status": "up"})

    guarded = _KeyAuthentication(StreamableHTTPASGIApp(sessions), verify, source)
    return Starlette(routes=[Route(PATH, guarded), Route("/healthz", healthz)], lifespan=lifespan)
