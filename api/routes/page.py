"""The page at `/` and what it is made of. It holds nothing of anybody: what it shows, it asks for with a token."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import Response

from api.errors import Problem

__all__ = ["router"]

router = APIRouter(include_in_schema=False)

_FILES = {path.name: path.read_bytes() for path in (Path(__file__).parents[1] / "static").iterdir() if path.is_file()}
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
# Nothing but our own files, no inline script: text from events can't become code here.
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
                               "img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-cache",
}


def _file(name: str) -> Response:
    body = _FILES.get(name)
    if body is None or Path(name).suffix not in _TYPES:
        raise Problem(404, "not found")
    return Response(body, 200, _HEADERS, f"{_TYPES[Path(name).suffix]}; charset=utf-8")


@router.get("/")
async def page() -> Response:
    return _file("index.html")


@router.get("/static/{name}")
async def static(name: str) -> Response:
    return _file(name)
