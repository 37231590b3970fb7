"""Routes of signing out: /auth/logout here and at the issuer, and the issuer's own logouts (CONTRACT §9)."""

from __future__ import annotations

import hmac
from urllib.parse import parse_qs, urlsplit

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from api.contract.errors import NO_STORE, ApiError
from api.contract.requests import SESSION_COOKIE
from api.contract.responses.access import SignedOut
from api.contract.responses.base import responses_of
from api.http.auth.cookies import cookie_values
from api.http.auth.oidc.errors import SignInError
from api.http.auth.oidc.sign_in import SignIn
from api.http.auth.session_cookies import delete_session_cookies
from api.http.auth.sessions import end_sessions
from api.http.dependencies import CurrentEdge, check_csrf, valid_sessions
from api.http.routes.access.oidc import get_sign_in

__all__ = ["router"]

_MAX_BODY = 256 << 10  # bytes of a logout token's form

router = APIRouter(tags=["session"])
_log = structlog.get_logger("attn.edge")


@router.post("/auth/logout", responses=responses_of(SignedOut, 403))
async def sign_out(request: Request, edge: CurrentEdge) -> Response:
    """Ends the session of the request in all its workspaces and deletes its cookies. `logout_url`: where the browser
    signs out at the issuer, if the session is from there."""
    if cookie_values(request, SESSION_COOKIE):
        check_csrf(request)
    sign_in: SignIn | None = request.app.state.sign_in
    url = None
    for caller in (await valid_sessions(request)).values():
        if (row := caller.session) is not None:
            await end_sessions(edge, session=row.id, by=caller.user, reason="signed out")
            if sign_in is not None and row.issuer == sign_in.issuer.url:
                try:
                    url = await sign_in.logout_url(sign_in.public_url(request.headers.get("host", "")))
                except SignInError as error:
                    _log.warning("no logout at the issuer", cause=str(error))
    response = JSONResponse({"logout_url": url} if url is not None else {}, headers=NO_STORE)
    delete_session_cookies(request, response)
    return response


@router.post("/auth/backchannel-logout", include_in_schema=False)
async def end_by_issuer(request: Request, edge: CurrentEdge) -> Response:
    """Ends the sessions that a logout token of the issuer names (OpenID Connect Back-Channel Logout 1.0): 200, or 400
    for a token that is not valid, or 503 if the end could not be written; the issuer may send it again then."""
    sign_in = get_sign_in(request)
    try:
        sid, subject = await sign_in.logout(await _logout_token(request))
    except SignInError as error:
        _log.warning("logout of the issuer refused", cause=str(error)[:500])
        raise ApiError(503 if error.status == 503 else 400, "the logout token is not valid") from None
    ended = await end_sessions(edge, issuer=sign_in.issuer.url, issuer_sid=sid, subject=subject, reason="issuer")
    _log.info("logout of the issuer", sessions=len(ended))
    return Response(status_code=200, headers=NO_STORE)


async def _logout_token(request: Request) -> str:
    body = await request.body()
    if len(body) > _MAX_BODY:
        raise SignInError(f"the form has {len(body)} bytes; at most {_MAX_BODY} are accepted")
    try:
        fields = parse_qs(body.decode("ascii"), max_num_fields=20, strict_parsing=True)
    except ValueError:
        raise SignInError("the body is not a form") from None
    if len(tokens := fields.get("logout_token", [])) != 1:
        raise SignInError("one logout_token is expected")
    return tokens[0]


@router.get("/auth/frontchannel-logout", include_in_schema=False)
async def end_in_frame(request: Request, edge: CurrentEdge) -> Response:
    """Ends the sessions with the `sid` of the query (OpenID Connect Front-Channel Logout 1.0). The issuer shows this
    page in a frame, which gets no cookie of attn, so issuer and `sid` name the session."""
    sign_in = get_sign_in(request)
    issuer, sid = request.query_params.get("iss", ""), request.query_params.get("sid", "")
    parts = urlsplit(sign_in.issuer.url)
    headers = NO_STORE | {
        "content-security-policy": f"default-src 'none'; frame-ancestors {parts.scheme}://{parts.netloc}"}
    if not 0 < len(sid) <= 1000 or not hmac.compare_digest(issuer.encode(), sign_in.issuer.url.encode()):
        raise ApiError(400, "iss and sid of the issuer are expected")
    ended = await end_sessions(edge, issuer=issuer, issuer_sid=sid, reason="issuer")
    _log.info("logout of the issuer", sessions=len(ended))
    return HTMLResponse("<!doctype html><title>Signed out</title>", 200, headers)
