"""Paths that hold ids. An id is free text and may contain a slash, percent-encoded; but ASGI decodes `path` as a whole.

`EncodedSegmentsMiddleware` gives routes a path whose segments are still encoded; the convertor `id` decodes one:
`/cases/{case:id}`.
"""

from __future__ import annotations

from urllib.parse import quote, unquote, unquote_to_bytes

from starlette.convertors import Convertor, register_url_convertor
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["EncodedSegmentsMiddleware"]

_NO_ROUTE = ""  # matches no route


class _IdConvertor(Convertor[str]):
    regex = "[^/]+"

    def convert(self, value: str) -> str:
        return unquote(value)

    def to_string(self, value: str) -> str:
        return quote(value, safe="")


register_url_convertor("id", _IdConvertor())


class EncodedSegmentsMiddleware:
    """Sets `path` to the segments of the request's own path, each percent-encoded in one way: all but RFC 3986's
    unreserved characters."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()  # ASGI servers may leave it out
            if b"%" in raw:
                scope = {**scope, "path": _encoded_path(raw)}
        await self._app(scope, receive, send)


def _encoded_path(raw: bytes) -> str:
    segments = [unquote_to_bytes(segment) for segment in raw.split(b"/")]
    try:
        return "/".join(quote(segment.decode(), safe="") for segment in segments)
    except UnicodeDecodeError:
        return _NO_ROUTE
