"""Routes that open and end a session, and GET /org/me (CONTRACT §4, §9, A2)."""

from __future__ import annotations

import asyncio
import hmac
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from api.commands.command_log import CommandUndecided
from api.contract.errors import NO_STORE, ApiError, NotReady
from api.contract.requests import SESSION_COOKIE, LinkText, Session
from api.contract.responses.access import Me, SignedIn
from api.contract.responses.base import responses_of
from api.edge.services import Edge
from api.http.auth.cookies import cookie_values, csrf_of
from api.http.auth.device import address_of, device_of
from api.http.auth.session_cookies import check_page, delete_session_cookies, set_session_cookies
from api.http.auth.sessions import Grant, Identity, end_sessions, open_session
from api.http.auth.tokens import Authenticator, Caller, Unauthorized
from api.http.dependencies import CSRF_COOKIE, CSRF_HEADER, CurrentCaller, CurrentEdge, check_csrf, valid_sessions
from schemas.scalars import SECOND, format_timestamp
from schemas.views import LinkRow
from streams.runtime.secret_texts import LINKS, secret_digest

__all__ = ["router"]

# Browsers keep cookies of 4096 bytes; RFC 6265 section 6.1 counts name, value and attributes. The name and all
# attributes of the session cookie take less than 128 bytes.
MAX_TOKEN_BYTES = 4096 - 128
_LINK_SECONDS = 0.5  # wait for a link that this edge does not know
_LINK_GONE = "this sign-in link is not valid: it was used, or it has expired; ask for a new one"

router = APIRouter(tags=["session"])


@router.post("/auth/session", responses=responses_of(Me, 403, 413))
async def create_session(request: Request, edge: CurrentEdge, body: Session) -> Response:
    """Stores the token as the session cookie `attn_session` (HttpOnly), and sets `attn_csrf`, whose value writes must
    repeat in the header X-CSRF-Token.

    A request of another site is refused with 403: that site could sign the user in to its own account. Cases in which a
    browser drops the cookie without an error are refused as well: a token that is too large for a cookie (413), and a
    page loaded over plain http from another host than loopback (400, see ATTN_SESSION_OVER_HTTP).
    """
    if (size := len(body.token.encode())) > MAX_TOKEN_BYTES:
        raise ApiError(413, f"the token has {size} bytes, and a browser keeps at most {MAX_TOKEN_BYTES} as a cookie: "
                            "have its issuer leave claims out, such as groups; programs may send it as "
                            "Authorization: Bearer",
                       size=size, limit=MAX_TOKEN_BYTES)
    check_page(request, edge.settings.session_over_http)
    auth: Authenticator = request.app.state.auth
    try:
        caller = await auth.caller(f"Bearer {body.token}")
    except Unauthorized as error:
        raise ApiError(401, str(error), {"www-authenticate": "Bearer"}) from None
    response = JSONResponse(_describe(edge, caller), headers=NO_STORE)
    response.headers[CSRF_HEADER] = set_session_cookies(
        request, response, body.token, caller.expires - edge.clock())
    return response


@router.post("/auth/link", responses=responses_of(SignedIn, 403, 410))
async def sign_in_by_link(request: Request, edge: CurrentEdge, body: LinkText) -> Response:
    """Uses a sign-in link up and opens a session of attn's own: the cookies `attn_session` and `attn_csrf`.

    `attn up` and `attn link` make such links; each is valid once, for ten minutes. A link that was used, has expired or
    never existed is 410.
    """
    check_page(request, edge.settings.session_over_http)
    row = await _link_row(edge, body.link)
    opened = await open_session(
        edge, Identity(row.user, row.name), [Grant(row.ws, row.role)], device=device_of(request),
        address=address_of(request), via="link", link=row.id)
    response = JSONResponse({"workspace_id": row.ws, "user_id": row.user, "role": row.role}, headers=NO_STORE)
    response.headers[CSRF_HEADER] = set_session_cookies(
        request, response, opened.text, opened.expires_at / SECOND - edge.clock(), opened.workspace)
    return response


async def _link_row(edge: Edge, text: str) -> LinkRow:
    """Returns the row of a link. Raises ApiError 410 if there is none, NotReady if the view has not caught up yet, and
    Misdirected if another edge serves its workspace."""
    if not edge.ready:
        raise NotReady
    link, links = LINKS.id_of(text), edge.replica.access.links
    if link is not None and link not in links:
        await asyncio.sleep(_LINK_SECONDS)  # its creator knows of it before each edge does
    row = links.get(link) if link is not None else None
    valid = row is not None and hmac.compare_digest(row.digest, secret_digest(text))
    if row is None or not valid or row.expires_at <= edge.clock() * SECOND:
        raise ApiError(410, _LINK_GONE)
    edge.require_served(row.ws)
    return row


@router.delete("/auth/session", status_code=204, responses=responses_of(None, 403, status=204))
async def delete_session(request: Request, edge: CurrentEdge) -> Response:
    """Signs out: ends a session of attn's own in all its workspaces, and deletes both cookies, including those that
    were set for a parent domain. Cookies with another path remain: GET /org/me shows whether the browser is still
    signed in. Streams of a session end within a second, those of a token when it expires."""
    response = Response(status_code=204, headers=NO_STORE)
    if cookie_values(request, SESSION_COOKIE):
        check_csrf(request)
        if not await _end_sessions_of(request, edge):
            response = JSONResponse(
                {"error": "signed out in this browser only: the end of the session could not be written; end it in "
                          "the list of sessions"}, 503, NO_STORE | {"retry-after": "1"})
    delete_session_cookies(request, response)
    return response


async def _end_sessions_of(request: Request, edge: Edge) -> bool:
    """Ends the valid sessions of the request. Returns False if that is not known to be durable."""
    try:
        for caller in (await valid_sessions(request)).values():
            if caller.session is not None:
                await end_sessions(edge, session=caller.session.id, by=caller.user, reason="signed out")
    except (CommandUndecided, ApiError):
        return False
    return True


@router.get("/org/me", responses=responses_of(Me))
async def get_me(request: Request, edge: CurrentEdge, caller: CurrentCaller) -> Response:
    """Returns the caller, and the workspaces that they may enter. For a request with the session cookie, the response
    header X-CSRF-Token is the value that writes must send."""
    headers = dict(NO_STORE)
    if "authorization" not in request.headers:
        csrf_cookies = cookie_values(request, CSRF_COOKIE)
        belonging = [csrf for csrf in map(csrf_of, await valid_sessions(request)) if csrf in csrf_cookies]
        headers |= {CSRF_HEADER: belonging[0]} if belonging else {}
    return JSONResponse(_describe(edge, caller), headers=headers)


def _describe(edge: Edge, caller: Caller) -> dict[str, Any]:
    named = {"name": caller.name} if caller.name else {}
    known = edge.replica.access.sessions
    workspaces = [{"id": caller.workspace_id, "role": caller.role}]
    expires, session = int(caller.expires) * SECOND, {}
    if caller.session is not None:
        now = int(edge.clock() * SECOND)
        rows = sorted(known.of(caller.session.id), key=lambda row: row.ws)
        workspaces = [{"id": row.ws, "role": row.role} for row in rows if known.is_alive(row, now)]
        expires, session = known.end_of(caller.session), {"session_id": caller.session.id}
    return {
        "user_id": caller.user, **named, "workspace_id": caller.workspace_id, "role": caller.role,
        "expires_at": format_timestamp(expires), "workspaces": workspaces, **session,
    }
