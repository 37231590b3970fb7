"""Parses the Cookie header in linear time and keeps every value of a repeated name.

Starlette keeps only the last cookie of a name, and unquotes values with `http.cookies`, whose time is quadratic before
Python 3.11.10 and 3.12.6 (CVE-2024-7592): a 60 KB header of a caller without a token blocked the edge for 5.6 s.
FastAPI parses cookies for every route, so `SeparateCookiesMiddleware` removes the header before FastAPI sees it.
"""

from __future__ import annotations

import base64
import hashlib

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["MAX_COOKIE_VALUES", "SeparateCookiesMiddleware", "cookie_values", "csrf_of"]

# Values of one cookie name that are read. Another host of the parent domain may set cookies of the same name, so
# several values may arrive, and each one costs a signature check.
MAX_COOKIE_VALUES = 16
_KEY = "attn.cookies"


class SeparateCookiesMiddleware:
    """ASGI middleware: moves the Cookie headers from the scope's headers to a separate key of the scope."""

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
    """Returns the distinct non-empty values of the cookie `name` in the order sent, at most MAX_COOKIE_VALUES."""
    values: dict[str, None] = {}
    for header in request.scope.get(_KEY, ()):
        for pair in header.decode("latin-1").split(";"):
            key, _, value = pair.partition("=")
            if key.strip(" \t") == name and (plain := _unquoted(value.strip(" \t"))):
                values[plain] = None
                if len(values) == MAX_COOKIE_VALUES:
                    return list(values)
    return list(values)


def _unquoted(value: str) -> str:
    """Removes the quotes that RFC 6265 allows around a value. Tokens and CSRF values contain no character that needs an
    escape."""
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value


def csrf_of(session: str) -> str:
    """Returns the CSRF value that belongs to this session token.

    The value is a hash of the token, so edges need no shared state or secret. It cannot be computed without the token,
    and it does not reveal the token.
    """
    return base64.urlsafe_b64encode(hashlib.sha256(b"attn_csrf\0" + session.encode()).digest()[:24]).decode()
