"""FastAPI dependencies of the routes: caller, CSRF check, limits, cursor, revision, idempotency key."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated

from fastapi import Depends, Header, Query, Request, Security
from fastapi.responses import Response
from fastapi.security import APIKeyCookie, HTTPBearer

from api import metrics
from api.commands.rate_limiter import TooManyReads
from api.contract.errors import NO_STORE, ApiError
from api.contract.requests import SESSION_COOKIE
from api.edge.services import Edge
from api.http.auth.cookies import cookie_values, csrf_of
from api.http.auth.keys import bearer_key, caller_of_key
from api.http.auth.session_cookies import CSRF_COOKIE
from api.http.auth.tokens import Authenticator, Caller, Unauthorized, UnknownWorkspace
from api.http.auth.workspaces import workspace_choice
from api.http.middleware import RELEASE_CALLBACKS
from api.http.protocol.unauthenticated import mark_authenticated
from api.live.connections import Watch
from streams.core.fold.access.key_handlers import KEY_ROLES

__all__ = [
    "CSRF_COOKIE", "CSRF_HEADER", "CurrentCaller", "CurrentEdge", "Cursor", "IdempotencyKey", "KeyOrCaller", "Revision",
    "SendingCaller", "StreamingCaller", "WritingCaller", "acquire_read", "check_access", "check_csrf",
    "closing_watch", "get_caller", "get_edge", "json_response", "read_cursor", "release_read", "valid_sessions",
    "watch_of",
]

CSRF_HEADER = "x-csrf-token"

# The largest exact integer of JavaScript is one less; cursors stay below (schemas.views.CURSOR_BITS).
_MAX_CURSOR = 2**53
_MAX_KEY_LENGTH = 255
_BYTES_PER_WRITE = 4096  # each such part of a body costs one more token: the log, the outcome and the view store it
_NOT_FOR_KEYS = "a key may send to /events and /hooks, and read its own items and decisions, and nothing else"
_REVISION = re.compile(r'(?:W/)?"(\d{1,18})"|(\d{1,18})')


def get_edge(request: Request) -> Edge:
    """Returns the edge that this application serves."""
    edge: Edge = request.app.state.edge
    return edge


# Security schemes of the OpenAPI document. `get_caller` reads the headers itself, because it needs repeated ones.
_bearer_scheme = HTTPBearer(
    auto_error=False, bearerFormat="JWT", description="JWT with the claims sub, workspace_id, role and exp")
_key_scheme = HTTPBearer(
    scheme_name="SourceKey", auto_error=False,
    description="key of a source (`attn key create`), or a JWT as on the other routes")
_cookie_scheme = APIKeyCookie(
    name=SESSION_COOKIE, auto_error=False, description="the same token; writes also need the header X-CSRF-Token")


async def get_caller(
    request: Request, bearer: Annotated[object, Security(_bearer_scheme)] = None,
    cookie: Annotated[object, Security(_cookie_scheme)] = None,
) -> Caller:
    """Returns the caller of the request and marks its connection as authenticated.

    Raises ApiError 401, and 403 for the key of a source: it is accepted where a route names `KeyOrCaller`.
    """
    caller = await _authenticate(request)
    if caller.key is not None:
        raise ApiError(403, _NOT_FOR_KEYS)
    return caller


async def get_caller_or_key(
    request: Request, bearer: Annotated[object, Security(_key_scheme)] = None,
    cookie: Annotated[object, Security(_cookie_scheme)] = None,
) -> Caller:
    """Returns the caller of the request, who may have the key of a source. Raises ApiError 401."""
    return await _authenticate(request)


async def _authenticate(request: Request) -> Caller:
    auth: Authenticator = request.app.state.auth
    authorization = request.headers.getlist("authorization")
    try:
        if len(authorization) > 1:  # a proxy may have checked another one
            raise Unauthorized(f"{len(authorization)} Authorization headers: one is expected")
        key = bearer_key(authorization[0]) if authorization else None
        if key is not None:
            caller = caller_of_key(get_edge(request), key)
        else:
            caller = await auth.caller(
                authorization[0] if authorization else None, cookie_values(request, SESSION_COOKIE),
                workspace_choice(request))
    except UnknownWorkspace as error:
        raise ApiError(404, str(error)) from None
    except Unauthorized as error:
        raise ApiError(401, str(error), {"www-authenticate": "Bearer"}) from None
    mark_authenticated(request.scope)
    get_edge(request).require_served(caller.workspace_id)
    return caller


def watch_of(edge: Edge, caller: Caller) -> Watch:
    """Returns the watch that ends a stream when the caller's credential is taken away."""
    return partial(edge.access_watch.add, caller.credential)


@contextmanager
def closing_watch(edge: Edge, caller: Caller, end: Callable[[], None]) -> Iterator[None]:
    """Calls `end` when the caller's credential is taken away while the block runs."""
    remove = edge.access_watch.add(caller.credential, end)
    try:
        yield
    finally:
        remove()


def check_access(edge: Edge, caller: Caller) -> None:
    """Raises ApiError 401 if the caller's credential was taken away since the request began."""
    if (reason := edge.access_watch.refusal(caller.credential)) is not None:
        raise ApiError(401, reason, {"www-authenticate": "Bearer"})


def check_csrf(request: Request) -> str:
    """Returns the header X-CSRF-Token. It must equal a cookie `attn_csrf`, which pages of other sites cannot read.

    Raises ApiError 403 if it does not.
    """
    sent = request.headers.get(CSRF_HEADER, "")
    if not sent or not any(_equal(sent, value) for value in cookie_values(request, CSRF_COOKIE)):
        raise ApiError(403, f"a write with the session cookie needs the header X-CSRF-Token, equal to {CSRF_COOKIE}")
    return sent


async def valid_sessions(request: Request) -> dict[str, Caller]:
    """Returns the valid session cookies of the request (zero or more) with their callers."""
    auth: Authenticator = request.app.state.auth
    try:
        return await auth.sessions(cookie_values(request, SESSION_COOKIE), workspace_choice(request))
    except Unauthorized:
        return {}


async def _check_write(request: Request) -> None:
    """Checks the CSRF header of a write. With several cookies `attn_csrf`, another host of the parent domain set some
    of them, and only a value that belongs to a valid session counts. Raises ApiError 403."""
    sent = check_csrf(request)
    if len(cookie_values(request, CSRF_COOKIE)) == 1:
        return
    if not any(_equal(sent, csrf_of(token)) for token in await valid_sessions(request)):
        raise ApiError(403, f"the browser sent several cookies named {CSRF_COOKIE}: X-CSRF-Token must be the one of "
                            "this session, as GET /org/me names it in its header X-CSRF-Token")


def _equal(sent: str, value: str) -> bool:
    return hmac.compare_digest(sent.encode(), value.encode())


async def _reading_caller(request: Request, caller: Annotated[Caller, Depends(get_caller)]) -> Caller:
    return await acquire_read(request, caller)


async def _reading_key_or_caller(request: Request, caller: Annotated[Caller, Depends(get_caller_or_key)]) -> Caller:
    return await acquire_read(request, caller)


async def acquire_read(request: Request, caller: Caller) -> Caller:
    """Returns the caller of a read after a slot of the read limiter is free. The slot is released when the client has
    received the response (`api.http.middleware.ReleaseMiddleware`). Raises ApiError 429 if too many reads wait."""
    reads = get_edge(request).read_limiter
    try:
        release = await reads.acquire(caller.workspace_id, caller.user)
    except TooManyReads:
        metrics.READS_REFUSED.inc()
        raise ApiError(429, f"too many reads in progress: at most {reads.at_once} at once", {"retry-after": "1"},
                      limit=reads.at_once) from None
    request.scope[RELEASE_CALLBACKS].append(release)
    return caller


def release_read(request: Request) -> None:
    """Releases the slot that `acquire_read` got for this request."""
    request.scope[RELEASE_CALLBACKS].pop()()


async def _writing_caller(request: Request, caller: Annotated[Caller, Depends(get_caller)]) -> Caller:
    """Returns the caller of a write. Checks the CSRF header if the session cookie authenticates the request, then takes
    tokens from the user's bucket. Raises ApiError 403 or 429."""
    if "authorization" not in request.headers:
        await _check_write(request)
    limiter = get_edge(request).rate_limiter
    cost = 1 + len(await request.body()) // _BYTES_PER_WRITE
    if wait := limiter.acquire(caller.workspace_id, caller.user, cost):
        metrics.THROTTLED.inc()
        raise ApiError(429, f"too many writes: at most {limiter.rate:g} a second; {_BYTES_PER_WRITE} bytes of a body "
                      "or 10 ids of a bulk count as one more", {"retry-after": str(wait)},
                      limit=limiter.burst)
    return caller


async def check_sender(request: Request, caller: Annotated[Caller, Depends(get_caller_or_key)]) -> Caller:
    """Returns who sends events: a key, or a user with one of the roles that create keys. Raises ApiError 403."""
    if caller.key is None:
        if caller.role not in KEY_ROLES:
            raise ApiError(403, "events are sent with a key of a source, or by the roles OWNER and ADMIN")
        if "authorization" not in request.headers:
            await _check_write(request)
    return caller


def _if_match_revision(
    if_match: Annotated[str | None, Header(description=(
        'Expected revision of the item, for example `"7"`. '
        "The write is refused with 412 if the item has another revision."))] = None,
) -> int | None:
    if if_match is None or if_match.strip() == "*":
        return None
    match = _REVISION.fullmatch(if_match.strip())
    if match is None:
        raise ApiError(400, 'If-Match: must be a revision of the item in quotes, such as "7"')
    return int(match[1] or match[2])


def _idempotency_key(
    idempotency_key: Annotated[
        str | None, Header(description=(
            "Text of 1 to 255 characters, unique per write. "
            "A repeat within a day returns the outcome of the first request."))
    ] = None,
) -> str | None:
    if idempotency_key is not None and not 0 < len(idempotency_key.strip()) <= _MAX_KEY_LENGTH:
        raise ApiError(400, f"Idempotency-Key: must have 1 to {_MAX_KEY_LENGTH} characters")
    return idempotency_key


def read_cursor(text: str | None) -> int | None:
    """Returns the cursor that a client sent, or None if the text is not a valid cursor. The stream then starts with a
    snapshot."""
    if text is None or not text.isascii() or not text.strip().isdigit() or len(text) > 20:
        return None
    number = int(text)
    return number if number < _MAX_CURSOR else None


def _cursor(
    request: Request,
    last_event_id: Annotated[
        str | None, Query(description="Same as the header Last-Event-ID, which takes precedence.")] = None,
) -> int | None:
    return read_cursor(request.headers.get("last-event-id") or last_event_id)


def json_response(body: bytes, status: int = 200) -> Response:
    """Returns a response with an encoded JSON body."""
    return Response(body, status, NO_STORE, "application/json")


CurrentEdge = Annotated[Edge, Depends(get_edge)]
CurrentCaller = Annotated[Caller, Depends(_reading_caller)]
KeyOrCaller = Annotated[Caller, Depends(_reading_key_or_caller)]
SendingCaller = Annotated[Caller, Depends(check_sender)]
StreamingCaller = Annotated[Caller, Depends(get_caller)]
Cursor = Annotated[int | None, Depends(_cursor)]
WritingCaller = Annotated[Caller, Depends(_writing_caller)]
Revision = Annotated[int | None, Depends(_if_match_revision)]
IdempotencyKey = Annotated[str | None, Depends(_idempotency_key)]
