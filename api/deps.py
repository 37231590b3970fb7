"""What routes ask of a request: who calls, and on which edge."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query, Request
from fastapi.responses import Response

from api.auth import COOKIE, Authenticator, Caller, Unauthorized
from api.edge import Edge
from api.errors import NO_STORE, Problem

__all__ = ["Asking", "Cursor", "EdgeOf", "caller", "edge_of", "json_of", "limit_of", "read_cursor"]

# JavaScript's largest exact integer; a cursor never goes beyond (schemas.views.CURSOR_BITS).
_MOST = 2**53


def edge_of(request: Request) -> Edge:
    return request.app.state.edge  # type: ignore[no-any-return]


async def caller(request: Request) -> Caller:
    auth: Authenticator = request.app.state.auth
    try:
        return await auth.caller(request.headers.get("authorization"), request.cookies.get(COOKIE))
    except Unauthorized as error:
        raise Problem(401, str(error), {"www-authenticate": "Bearer"}) from None


def read_cursor(text: str | None) -> int | None:
    """A cursor as a client sends it back. What is none, or was another server's, is as good as no cursor."""
    if text is None or not text.isascii() or not text.strip().isdigit() or len(text) > 20:
        return None
    number = int(text)
    return number if number < _MOST else None


def _cursor(
    request: Request,
    last_event_id: Annotated[str | None, Query(description="As the header Last-Event-ID, which comes first.")] = None,
) -> int | None:
    return read_cursor(request.headers.get("last-event-id") or last_event_id)


def json_of(body: bytes, status: int = 200) -> Response:
    """A JSON answer that is encoded already."""
    return Response(body, status, NO_STORE, "application/json")


def limit_of(limit: int, most: int) -> int:
    """More than the most is the most; below one is refused by the route's own declaration."""
    return min(limit, most)


EdgeOf = Annotated[Edge, Depends(edge_of)]
Asking = Annotated[Caller, Depends(caller)]
Cursor = Annotated[int | None, Depends(_cursor)]
