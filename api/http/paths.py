"""Routes paths that contain ids. An id is free text: it may contain a percent-encoded slash, but ASGI decodes the whole
path before routing.

`EncodedSegmentsMiddleware` passes a path with encoded segments to the router. The path convertor `id` decodes one
segment: `/cases/{case:id}`.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote, unquote, unquote_to_bytes

from fastapi import Path
from starlette.convertors import Convertor, register_url_convertor
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["EncodedSegmentsMiddleware", "Id"]

Id = Annotated[str, Path(max_length=2000)]  # a path parameter with the convertor `id`

_NO_ROUTE = ""  # path of a request whose path is not UTF-8: matches no route, so the response is 404


class _IdConvertor(Convertor[str]):
    """Path convertor `id`: one percent-encoded segment <-> the id."""

    regex = "[^/]+"

    def convert(self, value: str) -> str:
        return unquote(value)

    def to_string(self, value: str) -> str:
        return quote(value, safe="")


register_url_convertor("id", _IdConvertor())


class EncodedSegmentsMiddleware:
    """Sets `path` to the request path with each segment percent-encoded in one canonical way: all characters except the
    unreserved ones of RFC 3986. Equal ids therefore have equal paths."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()  # optional in ASGI
            if b"%" in raw:
                scope = {**scope, "path": _encoded_path(raw)}
        await self._app(scope, receive, send)


def _encoded_path(raw: bytes) -> str:
    segments = [unquote_to_bytes(segment) for segment in raw.split(b"/")]
    try:
        return "/".join(quote(segment.decode(), safe="") for segment in segments)
    except UnicodeDecodeError:
        return _NO_ROUTE
