"""Maps exceptions to JSON error responses `{"error": "..."}` (CONTRACT §4)."""

from __future__ import annotations

from collections.abc import Mapping

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import Match

from api.commands.command_log import CommandUndecided
from api.contract.errors import NO_STORE, ApiError, Misdirected, NotReady
from api.contract.requests import WORDED
from api.http.dependencies import get_edge
from api.live.connections import RETRY_AFTER, TooManyConnections

__all__ = ["add_error_handlers"]

# A load balancer sets it that sends a request to the right edge after a 421 (ops/deploy/nginx/ranges.conf).
RANGES_HEADER = "attn-ranges"
# A load balancer sets it that sends a GET to another edge after a 502 (ops/deploy/nginx/nginx.conf).
NEXT_EDGE_HEADER = "attn-next-edge"
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

_log = structlog.get_logger("attn.edge")


def _answer(status: int, body: object, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse(body, status, {**(headers or {}), **NO_STORE})


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    if isinstance(error, NotReady) and NEXT_EDGE_HEADER in request.headers and request.method in ("GET", "HEAD"):
        return _answer(502, error.body, error.headers)
    waits = error.status == 503 or (isinstance(error, Misdirected) and RANGES_HEADER not in request.headers)
    if waits and "text/event-stream" in request.headers.get("accept", ""):
        # EventSource stops after an error status, but reconnects after a stream that ends. Without its connection: many
        # thousand idle ones would count as unauthenticated.
        headers = {**NO_STORE, "connection": "close"}
        return Response(get_edge(request).connections.deferral().raw, 200, headers, "text/event-stream")
    return _answer(error.status, error.body, error.headers)


async def _too_many_connections(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, TooManyConnections)
    return _answer(429, {"error": str(error), "limit": error.limit}, {"retry-after": str(RETRY_AFTER)})


async def _undecided(_: Request, error: Exception) -> JSONResponse:
    """The outcome of a write is not known in time. A retry with the same Idempotency-Key is safe."""
    return _answer(503, {"error": str(error)}, {"retry-after": "1"})


async def _http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    headers = {"allow": _allowed(request)} if error.status_code == 405 else error.headers
    return _answer(error.status_code, {"error": str(error.detail).lower()}, headers)


def _allowed(request: Request) -> str:
    """Returns the methods of all routes that match the path. Starlette names only those of the first one."""
    methods = [method for method in _METHODS if any(
        route.matches({**request.scope, "method": method})[0] is Match.FULL for route in request.app.routes)]
    return ", ".join([*methods, *(["HEAD"] if "GET" in methods else [])])


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    """Answers an invalid request with 400 instead of FastAPI's 422. The error names each field and what is wrong with
    it."""
    assert isinstance(error, RequestValidationError)
    for item in error.errors():
        if item["type"] == WORDED:
            return _answer(400, {"error": item["msg"]})
        if item["type"] == "json_invalid":
            return _answer(400, {"error": "the body is not JSON"})
        if item["loc"] == ("body",):
            return _answer(400, {"error": "the body must be a JSON object, sent as content-type: application/json"})
    errors = [f"{'.'.join(str(part) for part in item['loc'][1:])}: {item['msg']}" for item in error.errors()]
    return _answer(400, {"error": "; ".join(errors)})


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    _log.error("request failed", path=request.url.path, exc_info=error)
    return _answer(500, {"error": "internal error"})


def add_error_handlers(app: FastAPI) -> None:
    """Registers the handlers of this module. Every error response has `cache-control: no-store`."""
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(TooManyConnections, _too_many_connections)
    app.add_exception_handler(CommandUndecided, _undecided)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _unexpected)
