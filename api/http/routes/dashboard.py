"""Serves the static files of the dashboard: page at `/`, versioned files, caching, Content-Security-Policy.

The files contain no user data; the page requests its data with the session. The page refers to its files under
`/static/VERSION/`, where VERSION is a hash of all files, and modules import each other by relative paths. So a browser
caches the files without a time limit and revalidates only the page. `/static/NAME` is the current version of a file.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response

from api.contract.errors import ApiError

__all__ = ["router"]

router = APIRouter(include_in_schema=False)

_TYPES = {
    ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml", ".json": "application/json", ".ts": "text/plain; charset=utf-8",
}
# Only files of this origin, no inline script or style. There are two Trusted Types policies: that of the sanitiser
# creates markup, `attn-worker` allows one worker script, the markdown parser. Text from events therefore cannot become
# code.
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; "
                               "connect-src 'self'; "
                               "img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
                               "require-trusted-types-for 'script'; trusted-types dompurify attn-worker",
    "x-content-type-options": "nosniff", "referrer-policy": "no-referrer",
    "vary": "accept-encoding",
}
_REVALIDATE = "no-cache"  # 304 while the file is unchanged; a new version is used at once
_IMMUTABLE = "public, max-age=31536000, immutable"
_VERSIONED_PATH = re.compile(r"(v-[0-9a-f]{12})/(.+)")


@dataclass(frozen=True)
class _File:
    """A file with its content type, its bytes and its quoted ETag."""

    type: str
    body: bytes
    etag: str

    @cached_property
    def gzipped(self) -> bytes:
        """The bytes, compressed when a client first requests them: all files take 100 ms, which a start would wait."""
        return gzip.compress(self.body, 9, mtime=0)


def _make_file(suffix: str, body: bytes) -> _File:
    etag = hashlib.sha256(body).hexdigest()[:20]
    return _File(_TYPES[suffix], body, f'"{etag}"')


def _load_files(root: Path) -> dict[str, _File]:
    """Returns all files under a folder by their relative path. Only these paths are served, so no request reads the
    file system."""
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
    """Returns the page of the dashboard."""
    return _response(request, _PAGE)


@router.get("/static/{name:path}")
async def get_static_file(request: Request, name: str) -> Response:
    """Returns a static file. Under the current VERSION it may be cached for a year. Raises ApiError 404."""
    versioned = _VERSIONED_PATH.fullmatch(name)
    if versioned is None:
        return _response(request, _FILES.get(name))
    # During a rolling update the page may come from an edge of another version. Its files are served, but not cached.
    return _response(request, _FILES.get(versioned[2]), _IMMUTABLE if versioned[1] == _VERSION else _REVALIDATE)


@router.get("/cases/{case_id:id}")
@router.get("/cases/{case_id:id}/sessions/{session_id:id}")
async def explain_case_link(request: Request) -> Response:
    """Explains the default `action_url` of an item to a browser, if no application serves that path on this host.

    The response is 404 and the same for every id; other clients get the JSON error.
    """
    if "text/html" not in request.headers.get("accept", ""):
        raise ApiError(404, "not found")
    return _response(request, _ELSEWHERE, status=404)
