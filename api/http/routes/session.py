"""Routes of the session cookie, and GET /org/me (CONTRACT §4, A2)."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from api.contract import responses
from api.contract.errors import NO_STORE, ApiError
from api.contract.requests import SESSION_COOKIE, Session
from api.contract.responses import responses_of
from api.http.auth.cookies import cookie_values, csrf_of
from api.http.auth.tokens import Authenticator, Caller, Unauthorized
from api.http.dependencies import CSRF_COOKIE, CSRF_HEADER, CurrentCaller, CurrentEdge, check_csrf, valid_sessions
from schemas.scalars import SECOND, format_timestamp

__all__ = ["router"]

# Browsers keep cookies of 4096 bytes; RFC 6265 section 6.1 counts name, value and attributes. The name and all
# attributes of the session cookie take less than 128 bytes.
MAX_TOKEN_BYTES = 4096 - 128
_MAX_PARENT_DOMAINS = 3  # parent domains of the host whose cookies are deleted

router = APIRouter(tags=["session"])


@router.post("/auth/session", responses=responses_of(responses.Me, 403, 413))
async def create_session(request: Request, edge: CurrentEdge, body: Session) -> Response:
    """Stores the token as the session cookie `attn_session` (HttpOnly), and sets `attn_csrf`, whose value writes must
    repeat in the header X-CSRF-Token.

    A request of another site is refused with 403: that site could sign the user in to its own account. Cases in which a
    browser drops the cookie without an error are refused as well: a token that is too large for a cookie (413), and a
    page loaded over plain http from another host than loopback (400, see ATTN_SESSION_OVER_HTTP).
    """
    if request.headers.get("sec-fetch-site") == "cross-site":
        raise ApiError(403, "a page of another site cannot create a session here")
    if (size := len(body.token.encode())) > MAX_TOKEN_BYTES:
        raise ApiError(413, f"the token has {size} bytes, and a browser keeps at most {MAX_TOKEN_BYTES} as a cookie: "
                            "have its issuer leave claims out, such as groups; programs may send it as "
                            "Authorization: Bearer",
                       size=size, limit=MAX_TOKEN_BYTES)
    scheme, host = _page_origin(request)
    if scheme == "http" and not _is_loopback(host) and not edge.settings.session_over_http:
        raise ApiError(400, f"this page came over plain http from {host}, where a browser drops the session cookie: "
                           "open attn over https, or on its own machine as localhost, or set "
                           "ATTN_SESSION_OVER_HTTP=true, which sends the token over the network unencrypted")
    auth: Authenticator = request.app.state.auth
    try:
        caller = await auth.caller(f"Bearer {body.token}")
    except Unauthorized as error:
        raise ApiError(401, str(error), {"www-authenticate": "Bearer"}) from None
    csrf = csrf_of(body.token)
    response = JSONResponse(_describe(caller), headers={**NO_STORE, CSRF_HEADER: csrf})
    cookie_options: dict[str, Any] = {
        "max_age": int(caller.expires - edge.clock()), "path": "/", "samesite": "lax", "secure": scheme == "https"}
    response.set_cookie(SESSION_COOKIE, body.token, httponly=True, **cookie_options)
    response.set_cookie(CSRF_COOKIE, csrf, **cookie_options)
    return response


@router.delete("/auth/session", status_code=204, responses=responses_of(None, 403, status=204))
async def delete_session(request: Request) -> Response:
    """Deletes both cookies, including those that were set for a parent domain. Cookies with another path remain: GET
    /org/me shows whether the browser is still signed in. Open streams end when their token expires."""
    if cookie_values(request, SESSION_COOKIE):
        check_csrf(request)
    scheme, host = _page_origin(request)
    response = Response(status_code=204, headers=NO_STORE)
    for name in (SESSION_COOKIE, CSRF_COOKIE):
        for domain in (None, *_cookie_domains(host)):
            response.delete_cookie(name, path="/", domain=domain, samesite="lax", secure=scheme == "https",
                                 httponly=name == SESSION_COOKIE)
    return response


@router.get("/org/me", responses=responses_of(responses.Me))
async def get_me(request: Request, caller: CurrentCaller) -> Response:
    """Returns the caller. For a request with the session cookie, the response header X-CSRF-Token is the value that
    writes must send."""
    headers = dict(NO_STORE)
    if "authorization" not in request.headers:
        csrf_cookies = cookie_values(request, CSRF_COOKIE)
        belonging = [csrf for csrf in map(csrf_of, await valid_sessions(request)) if csrf in csrf_cookies]
        headers |= {CSRF_HEADER: belonging[0]} if belonging else {}
    return JSONResponse(_describe(caller), headers=headers)


def _describe(caller: Caller) -> dict[str, Any]:
    named = {"name": caller.name} if caller.name else {}
    return {
        "user_id": caller.user, **named, "workspace_id": caller.workspace_id, "role": caller.role,
        "expires_at": format_timestamp(int(caller.expires) * SECOND),
    }


def _page_origin(request: Request) -> tuple[str, str]:
    """Returns scheme and host of the page that sent the request, by its Origin: the scheme of the request itself may
    differ, because a proxy may terminate TLS. Without an Origin the client is no page; the scheme is then http on
    loopback, else https."""
    for url in (request.headers.get("origin", ""), f"//{request.headers.get('host', '')}"):
        try:
            parts = urlsplit(url)
        except ValueError:  # invalid IPv6 address in brackets
            continue
        if parts.hostname and parts.scheme in ("", "http", "https"):
            return parts.scheme or ("http" if _is_loopback(parts.hostname) else "https"), parts.hostname
    return "https", ""


def _is_loopback(host: str) -> bool:
    """Whether the host is this machine: a loopback address, `localhost`, or a name under `.localhost`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _cookie_domains(host: str) -> list[str]:
    """Returns the domains whose cookies a browser sends to this host: the host and up to three parent domains."""
    parts = host.rstrip(".").split(".")
    if parts[-1].isdigit() or ":" in host or not re.fullmatch(r"[\w.-]{1,253}", host, re.ASCII):
        return []  # an IP address, or not a host name
    return [".".join(parts[first:]) for first in range(min(len(parts) - 1, _MAX_PARENT_DOMAINS + 1))]
