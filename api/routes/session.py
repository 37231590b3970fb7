"""Who I am, and the cookies a browser keeps instead of a token (CONTRACT §4, A2)."""

from __future__ import annotations

import secrets
from ipaddress import ip_address
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from api import models
from api.auth import COOKIE, Authenticator, Caller, Unauthorized
from api.deps import CSRF_COOKIE, Asking, EdgeOf, check_csrf
from api.errors import NO_STORE, Problem
from api.models import answers
from api.requests import Session
from schemas.codec import SECOND, from_us

__all__ = ["router"]

router = APIRouter(tags=["session"])


@router.post("/auth/session", responses=answers(models.Me, 403, 413))
async def begin(request: Request, edge: EdgeOf, asked: Session) -> Response:
    """Keeps a token as the session cookie, which scripts can't read, and gives the other cookie that writes must show.

    Not for a page of another site: it could sign somebody in as itself, and read what they then write.
    """
    if request.headers.get("sec-fetch-site") == "cross-site":
        raise Problem(403, "a page of another site can't begin a session here")
    auth: Authenticator = request.app.state.auth
    try:
        caller = await auth.caller(f"Bearer {asked.token}", None)
    except Unauthorized as error:
        raise Problem(401, str(error), {"www-authenticate": "Bearer"}) from None
    answer = JSONResponse(_me(caller), headers=NO_STORE)
    kept: dict[str, Any] = {
        "max_age": int(caller.expires - edge.clock()), "path": "/", "samesite": "lax", "secure": not _is_local(request),
    }
    answer.set_cookie(COOKIE, asked.token, httponly=True, **kept)
    answer.set_cookie(CSRF_COOKIE, secrets.token_urlsafe(24), **kept)
    return answer


@router.delete("/auth/session", status_code=204, responses=answers(None, 403, status=204))
async def end(request: Request) -> Response:
    """Forgets both cookies. Streams that are open with them end when their token does."""
    if COOKIE in request.cookies:
        check_csrf(request)
    answer = Response(status_code=204, headers=NO_STORE)
    for name in (COOKIE, CSRF_COOKIE):
        answer.delete_cookie(name, path="/", samesite="lax", secure=not _is_local(request), httponly=name == COOKIE)
    return answer


@router.get("/org/me", responses=answers(models.Me))
async def me(caller: Asking) -> Response:
    """Who I am here."""
    return JSONResponse(_me(caller), headers=NO_STORE)


def _me(caller: Caller) -> dict[str, Any]:
    named = {"name": caller.name} if caller.name else {}
    return {
        "user_id": caller.user, **named, "workspace_id": caller.ws, "role": caller.role,
        "expires_at": from_us(int(caller.expires) * SECOND),
    }


def _is_local(request: Request) -> bool:
    """Whether the browser came over loopback, where there is no TLS; a proxy on this machine says who it speaks for."""
    host = request.url.hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
