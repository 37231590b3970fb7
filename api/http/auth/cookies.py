"""Parses the Cookie header in linear time and keeps every value of a repeated name.

Starlette keeps only the last cookie of a name, and unquotes values with `http.cookies`, whose time is quadratic before
Python 3.11.10 and 3.12.6 (CVE-2024-7592): a 60 KB header of a caller without a token blocked the edge for 5.6 s.
FastAPI parses cookies for every route. So `SeparateCookiesMiddleware` moves the header out of their reach.
"""

from __future__ import annotations

import base64
import hashlib

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["MAX_COOKIE_VALUES", "SeparateCookiesMiddleware", "cookie_values", "csrf_of"]

# A neighbour on the parent domain may set cookies of our names, so some values are not ours. Each value costs a
# signature check: this many are looked at.
MAX_COOKIE_VALUES = 16
_KEY = "attn.cookies"


class SeparateCookiesMiddleware:
    """ASGI middleware: moves the Cookie headers from the scope's headers to a key of their own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = scope["headers"]
            scope = {
                **scope, _KEY: [value for name, value in headers if name == b"cookie"],
                "headers": [one for one in headers if one[0] != b"cookie"],
            }
        await self._app(scope, receive, send)


def cookie_values(request: HTTPConnection, name: str) -> list[str]:
    """Returns the distinct values of the cookie `name` that are not empty, in the order sent, at most MOST_VALUES."""
    found: dict[str, None] = {}
    for header in request.scope.get(_KEY, ()):
        for pair in header.decode("latin-1").split(";"):
            key, _, value = pair.partition("=")
            if key.strip(" \t") == name and (plain := _unquoted(value.strip(" \t"))):
                found[plain] = None
                if len(found) == MAX_COOKIE_VALUES:
                    return list(found)
    return list(found)


def _unquoted(value: str) -> str:
    """RFC 6265 allows quotes around a value. Neither a token nor a CSRF value holds what would need escapes."""
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value


def csrf_of(session: str) -> str:
    """Returns the CSRF value that belongs to this session token.

    It needs no state and no secret that edges share: who does not have the token, whose signature is random, cannot
    compute it. It does not reveal the token.
    """
    return base64.urlsafe_b64encode(hashlib.sha256(b"attn_csrf\0" + session.encode()).digest()[:24]).decode()
