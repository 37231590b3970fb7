"""The page at `/` and what it is made of. It holds nothing of anybody: what it shows, it asks for with a session.

The page names its files under `/static/VERSION/`, made from all of them, and imports between modules are relative: so
a browser keeps them for good and asks for the page alone. Under `/static/` they are what they are just now.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path
from typing import NamedTuple

from fastapi import APIRouter, Request
from fastapi.responses import Response

from api.contract.errors import ApiError

__all__ = ["router"]

router = APIRouter(include_in_schema=False)

_TYPES = {
    ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml", ".json": "application/json", ".ts": "text/plain; charset=utf-8",
}
# Only our own files, no inline script or style. There are two trusted types policies: the sanitiser's makes markup of
# text, `attn-worker` allows one worker script, the markdown parser. So text from events can't become code.
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; "
                               "connect-src 'self'; "
                               "img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
                               "require-trusted-types-for 'script'; trusted-types dompurify attn-worker",
    "x-content-type-options": "nosniff", "referrer-policy": "no-referrer",
    "vary": "accept-encoding",
}
_REVALIDATE = "no-cache"  # answered with 304 while it is the same: a new version is there at once
_IMMUTABLE = "public, max-age=31536000, immutable"
_VERSIONED_PATH = re.compile(r"(v-[0-9a-f]{12})/(.+)")


class _File(NamedTuple):
    type: str
    body: bytes
    gzipped: bytes
    etag: str


def _make_file(suffix: str, body: bytes) -> _File:
    etag = hashlib.sha256(body).hexdigest()[:20]
    return _File(_TYPES[suffix], body, gzip.compress(body, 9, mtime=0), f'"{etag}"')


def _load_files(root: Path) -> dict[str, _File]:
    """All files under a folder, by their path in it: nothing else can be asked for."""
    paths = (path for path in sorted(root.rglob("*")) if path.is_file() and path.suffix in _TYPES)
    return {path.relative_to(root).as_posix(): _make_file(path.suffix, path.read_bytes()) for path in paths}


_FILES = _load_files(Path(__file__).parents[2] / "static")
_VERSION = "v-" + hashlib.sha256("".join(name + file.etag for name, file in _FILES.items()).encode()).hexdigest()[:12]
_PAGE, _ELSEWHERE = (
    _make_file(".html", _FILES[name].body.replace(b'"/static/', f'"/static/{_VERSION}/'.encode()))
    for name in ("index.html", "elsewhere.html"))


def _response(request: Request, file: _File | None, cache_control: str = _REVALIDATE, status: int = 200) -> Response:
    if file is None:
        raise ApiError(404, "not found")
    headers = _HEADERS | {"etag": file.etag, "cache-control": cache_control}
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(None, 304, headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(file.gzipped, status, headers | {"content-encoding": "gzip"}, file.type)
    return Response(file.body, status, headers, file.type)


@router.get("/")
async def get_page(request: Request) -> Response:
    return _response(request, _PAGE)


@router.get("/static/{name:path}")
async def get_static_file(request: Request, name: str) -> Response:
    versioned = _VERSIONED_PATH.fullmatch(name)
    if versioned is None:
        return _response(request, _FILES.get(name))
    # While edges are exchanged, the page may be of another one than its files: those are answered, but not kept.
    return _response(request, _FILES.get(versioned[2]), _IMMUTABLE if versioned[1] == _VERSION else _REVALIDATE)


@router.get("/cases/{case_id:id}")
@router.get("/cases/{case_id:id}/sessions/{session_id:id}")
async def explain_case_link(request: Request) -> Response:
    """Where an item's `action_url` leads by itself: to the application that asked, if it is behind the same address.

    Here it is nobody's, which a person is told in words. It is the same for every id.
    """
    if "text/html" not in request.headers.get("accept", ""):
        raise ApiError(404, "not found")
    return _response(request, _ELSEWHERE, status=404)
