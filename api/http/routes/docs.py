"""Routes of the API documentation: `/asyncapi.json`, and `/docs`, which shows `/openapi.json` (FastAPI's own route).

They need no authentication: the documents contain no data of a workspace or of this installation. The page loads
nothing from other hosts and runs only the scripts of this module.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import orjson
from fastapi import APIRouter
from fastapi.responses import Response

from api.contract.asyncapi import asyncapi
from api.contract.errors import ApiError

__all__ = ["router"]

router = APIRouter(include_in_schema=False)

_STATIC_FOLDER = Path(__file__).parents[2] / "static"
_FILES = {
    "docs.js": (_STATIC_FOLDER / "docs" / "docs.js", "text/javascript"),
    "swagger-ui-bundle.js": (_STATIC_FOLDER / "vendor" / "swagger-ui" / "swagger-ui-bundle.js", "text/javascript"),
    "swagger-ui.css": (_STATIC_FOLDER / "vendor" / "swagger-ui" / "swagger-ui.css", "text/css"),
}
# Swagger UI uses data: URLs for its icons and calls the routes it shows. It needs no inline script or style, and no
# eval.
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
                               "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
                               "frame-ancestors 'none'",
    "x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-cache",
}


@cache
def _asyncapi() -> bytes:
    return orjson.dumps(asyncapi())


@cache
def _read_file(path: Path) -> bytes:
    return path.read_bytes()


@router.get("/asyncapi.json")
async def get_asyncapi() -> Response:
    return Response(_asyncapi(), 200, {"cache-control": "no-cache"}, "application/json")


@router.get("/docs")
async def get_docs() -> Response:
    return Response(_read_file(_STATIC_FOLDER / "docs" / "index.html"), 200, _HEADERS, "text/html; charset=utf-8")


@router.get("/docs/{name}")
async def get_docs_file(name: str) -> Response:
    if name not in _FILES:
        raise ApiError(404, "not found")
    path, kind = _FILES[name]
    return Response(_read_file(path), 200, _HEADERS, f"{kind}; charset=utf-8")
