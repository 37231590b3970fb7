"""Errors as the contract has them: `{"error": "..."}`, whatever went wrong."""

from __future__ import annotations

from collections.abc import Mapping

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import Match

from api.commands.command_log import CommandUndecided
from api.contract.errors import NO_STORE, ApiError
from api.contract.requests import WORDED
from api.live.connections import RETRY_AFTER, Full

__all__ = ["handle_errors"]


_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

_log = structlog.get_logger("attn.edge")


def _answer(status: int, body: object, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse(body, status, {**(headers or {}), **NO_STORE})


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    if error.status == 503 and "text/event-stream" in request.headers.get("accept", ""):
        # On an error a browser's EventSource gives up; after a stream that ends it comes again.
        return Response(request.app.state.edge.connections.retry().raw, 200, NO_STORE, "text/event-stream")
    return _answer(error.status, error.body, error.headers)


async def _full(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Full)
    return _answer(429, {"error": str(error), "limit": error.limit}, {"retry-after": str(RETRY_AFTER)})


async def _not_done(_: Request, error: Exception) -> JSONResponse:
    """With an Idempotency-Key, asking again is safe."""
    return _answer(503, {"error": str(error)}, {"retry-after": "1"})


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    headers = {"allow": _allowed(request)} if error.status_code == 405 else error.headers
    return _answer(error.status_code, {"error": str(error.detail).lower()}, headers)


def _allowed(request: Request) -> str:
    """The methods of all routes at this path: Starlette names those of the first one only."""
    found = [method for method in _METHODS if any(
        route.matches({**request.scope, "method": method})[0] is Match.FULL for route in request.app.routes)]
    return ", ".join([*found, *(["HEAD"] if "GET" in found else [])])


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    """What FastAPI calls 422 is 400 here, with the field and what is wrong with it."""
    assert isinstance(error, RequestValidationError)
    for item in error.errors():
        if item["type"] == WORDED:
            return _answer(400, {"error": item["msg"]})
        if item["type"] == "json_invalid":
            return _answer(400, {"error": "the body is not JSON"})
        if item["loc"] == ("body",):
            return _answer(400, {"error": "the body must be a JSON object, sent as content-type: application/json"})
    found = [f"{'.'.join(str(part) for part in item['loc'][1:])}: {item['msg']}" for item in error.errors()]
    return _answer(400, {"error": "; ".join(found)})


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    _log.error("request failed", path=request.url.path, exc_info=error)
    return _answer(500, {"error": "internal error"})


def handle_errors(app: FastAPI) -> None:
    app.add_exception_handler(ApiError, _problem)
    app.add_exception_handler(Full, _full)
    app.add_exception_handler(CommandUndecided, _not_done)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _unexpected)
