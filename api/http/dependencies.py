"""What routes ask of a request: who calls, and on which edge."""

from __future__ import annotations

import hmac
import re
from typing import Annotated

from fastapi import Depends, Header, Query, Request, Security
from fastapi.responses import Response
from fastapi.security import APIKeyCookie, HTTPBearer

from api import metrics
from api.commands.rate_limiter import TooManyReads
from api.contract.errors import NO_STORE
from api.contract.errors import ApiError as Problem
from api.contract.requests import SESSION_COOKIE as COOKIE
from api.edge.services import Edge
from api.http.auth.cookies import cookie_values, csrf_of
from api.http.auth.tokens import Authenticator, Caller, Unauthorized
from api.http.protocol.unauthenticated import known

__all__ = [
    "CSRF_COOKIE", "CSRF_HEADER", "HELD", "Asking", "Cursor", "EdgeOf", "IdempotencyKey", "Listening", "Revision",
    "Writing", "caller", "check_csrf", "edge_of", "json_of", "limit_of", "read_cursor", "sessions",
]

# In the ASGI scope: what is to be called once the request's answer was taken.
HELD = "attn.held"
CSRF_COOKIE, CSRF_HEADER = "attn_csrf", "x-csrf-token"

# JavaScript's largest exact integer; a cursor never goes beyond (schemas.views.CURSOR_BITS).
_MOST = 2**53
_LONGEST_KEY = 255
_BYTES_OF_A_WRITE = 4096  # of a body, that cost as much as a write: the log, the outcome and the view carry them
_REVISION = re.compile(r'(?:W/)?"(\d{1,18})"|(\d{1,18})')


def edge_of(request: Request) -> Edge:
    return request.app.state.edge  # type: ignore[no-any-return]


# What the OpenAPI document says of callers; `Authenticator` reads the same two.
_bearer = HTTPBearer(auto_error=False, bearerFormat="JWT", description="a JWT with sub, workspace_id, role and exp")
_cookie = APIKeyCookie(name=COOKIE, auto_error=False, description="the same token; writes also need X-CSRF-Token")


async def caller(
    request: Request, bearer: Annotated[object, Security(_bearer)] = None,
    cookie: Annotated[object, Security(_cookie)] = None,
) -> Caller:
    auth: Authenticator = request.app.state.auth
    given = request.headers.getlist("authorization")
    try:
        if len(given) > 1:  # a proxy may have looked at the other one
            raise Unauthorized(f"{len(given)} Authorization headers: one is expected")
        found = await auth.caller(given[0] if given else None, cookie_values(request, COOKIE))
    except Unauthorized as error:
        raise Problem(401, str(error), {"www-authenticate": "Bearer"}) from None
    known(request.scope)
    return found


def check_csrf(request: Request) -> str:
    """Returns the header X-CSRF-Token, which must equal a cookie `attn_csrf`: a page of another site can't read it.
    Raises Problem 403."""
    sent = request.headers.get(CSRF_HEADER, "")
    if not sent or not any(_same(sent, kept) for kept in cookie_values(request, CSRF_COOKIE)):
        raise Problem(403, f"a write with the session cookie needs the header X-CSRF-Token, equal to {CSRF_COOKIE}")
    return sent


async def sessions(request: Request) -> dict[str, Caller]:
    """Returns the valid session cookies of the request, none or more, with their callers."""
    auth: Authenticator = request.app.state.auth
    try:
        return await auth.sessions(cookie_values(request, COOKIE))
    except Unauthorized:
        return {}


async def _check_write(request: Request) -> None:
    """Checks the CSRF header of a write. With several cookies `attn_csrf`, another host of the parent domain set some
    of them, and only a value that belongs to a valid session counts. Raises Problem 403."""
    sent = check_csrf(request)
    if len(cookie_values(request, CSRF_COOKIE)) == 1:
        return
    if not any(_same(sent, csrf_of(token)) for token in await sessions(request)):
        raise Problem(403, f"the browser sent several cookies named {CSRF_COOKIE}: X-CSRF-Token must be the one of "
                           "this session, as GET /org/me names it in its header X-CSRF-Token")


def _same(sent: str, kept: str) -> bool:
    return hmac.compare_digest(sent.encode(), kept.encode())


async def _reader(request: Request, who: Annotated[Caller, Depends(caller)]) -> Caller:
    """The caller of a read, once it is the user's turn. The turn ends when the answer was taken (api.http.app)."""
    reads = edge_of(request).read_limiter
    try:
        release = await reads.acquire(who.ws, who.user)
    except TooManyReads:
        metrics.WAITED.inc()
        raise Problem(429, f"too many reads in progress: at most {reads.at_once} at once", {"retry-after": "1"},
                      limit=reads.at_once) from None
    request.scope[HELD].append(release)
    return who


async def _writer(request: Request, who: Annotated[Caller, Depends(caller)]) -> Caller:
    """The caller of a write: no forged one, and not too many."""
    if "authorization" not in request.headers:
        await _check_write(request)
    limiter = edge_of(request).rate_limiter
    cost = 1 + len(await request.body()) // _BYTES_OF_A_WRITE
    if wait := limiter.acquire(who.ws, who.user, cost):
        metrics.THROTTLED.inc()
        raise Problem(429, f"too many writes: at most {limiter.rate:g} a second; {_BYTES_OF_A_WRITE} bytes of a body "
                      "or 10 ids of a bulk count as one more", {"retry-after": str(wait)},
                      limit=limiter.burst)
    return who


def _revision(
    if_match: Annotated[str | None, Header(description='The revision the change is meant for, as `"7"`.')] = None,
) -> int | None:
    if if_match is None or if_match.strip() == "*":
        return None
    found = _REVISION.fullmatch(if_match.strip())
    if found is None:
        raise Problem(400, 'If-Match: must be a revision of the item in quotes, such as "7"')
    return int(found[1] or found[2])


def _idempotency_key(
    idempotency_key: Annotated[
        str | None, Header(description="Any text of up to 255 characters; the same one within a day: the same outcome.")
    ] = None,
) -> str | None:
    if idempotency_key is not None and not 0 < len(idempotency_key.strip()) <= _LONGEST_KEY:
        raise Problem(400, f"Idempotency-Key: must have 1 to {_LONGEST_KEY} characters")
    return idempotency_key


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
Asking = Annotated[Caller, Depends(_reader)]
Listening = Annotated[Caller, Depends(caller)]
Cursor = Annotated[int | None, Depends(_cursor)]
Writing = Annotated[Caller, Depends(_writer)]
Revision = Annotated[int | None, Depends(_revision)]
IdempotencyKey = Annotated[str | None, Depends(_idempotency_key)]
