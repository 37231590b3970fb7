"""Routes of signing in with the issuer: /auth/methods, /auth/login, /auth/callback (CONTRACT §9).

`/auth/login` and `/auth/callback` are for browsers: what fails is a page with one sentence, and a log line with the
cause. Without ATTN_OIDC_ISSUER both are 404.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from api.commands.command_log import CommandUndecided
from api.contract.errors import NO_STORE, ApiError
from api.contract.responses.access import SignInMethods
from api.contract.responses.base import responses_of
from api.edge.services import Edge
from api.http.auth.cookies import cookie_values
from api.http.auth.device import address_of, device_of
from api.http.auth.oidc.errors import SignInError
from api.http.auth.oidc.flow import CALLBACK_PATH, FLOW_SECONDS, Flow, cookie_name, safe_target
from api.http.auth.oidc.renewal import first_refresh_token
from api.http.auth.oidc.sign_in import Answer, NoWorkspace, SignedIn, SignIn
from api.http.auth.session_cookies import set_session_cookies
from api.http.auth.sessions import Grant, Identity, OpenedSession, end_sessions, open_session
from api.http.auth.workspaces import workspace_choice
from api.http.dependencies import CurrentEdge, valid_sessions
from api.http.routes.access.pages import problem_page
from api.readmodel.readers import Reader
from schemas.scalars import SECOND
from streams.core.domain.visibility import roles_of

__all__ = ["get_sign_in", "router"]

_MAX_PARAMETER = 4096  # characters of a parameter of the callback
_PARAMETERS = ("state", "code", "iss", "error", "error_description")
_ITEM = "/#item="
_GONE = "This sign-in was used already, took longer than ten minutes, or began in another browser."

router = APIRouter(tags=["session"])
_log = structlog.get_logger("attn.edge")


def get_sign_in(request: Request) -> SignIn:
    """Returns the sign-in of this edge. Raises ApiError 404 if ATTN_OIDC_ISSUER is not set."""
    sign_in: SignIn | None = request.app.state.sign_in
    if sign_in is None:
        raise ApiError(404, "not found")
    return sign_in


@router.get("/auth/methods", responses=responses_of(SignInMethods))
async def list_methods(request: Request) -> Response:
    """Returns how a person can sign in here. Needs no caller. `issuer`: the service of `Sign in with ...`, which begins
    at `/auth/login`; absent if there is none."""
    sign_in: SignIn | None = request.app.state.sign_in
    return JSONResponse({"issuer": {"name": sign_in.name}} if sign_in is not None else {}, headers=NO_STORE)


@router.get("/auth/login", include_in_schema=False)
async def begin(request: Request) -> Response:
    """Sends the browser to the issuer. `return_to`: where the page goes afterwards, `/` with a query or a fragment.
    `strong`: as those sign in who decide critical risk."""
    sign_in = get_sign_in(request)
    target = safe_target(request.query_params.get("return_to"))
    try:
        base = sign_in.public_url(request.headers.get("host", ""))
        flow, url = await sign_in.begin(target, base, strong="strong" in request.query_params)
    except SignInError as error:
        return _problem(sign_in, error, target)
    response = RedirectResponse(url, 303, NO_STORE | {"referrer-policy": "no-referrer"})
    response.set_cookie(cookie_name(flow.state), sign_in.box.seal_flow(flow), httponly=True, max_age=FLOW_SECONDS,
                        path=CALLBACK_PATH, samesite="lax", secure=base.startswith("https"))
    return response


@router.get(CALLBACK_PATH, include_in_schema=False)
async def finish(request: Request, edge: CurrentEdge) -> Response:
    """Takes the issuer's answer, opens a session, and sends the browser back to the page."""
    sign_in, target = get_sign_in(request), "/"
    answer = Answer()
    try:
        answer = _answer(request)
        flow = _flow(request, sign_in, answer.state, edge.clock())
        target = flow.target
        base = sign_in.public_url(request.headers.get("host", ""))
        response = await _signed_in(request, edge, sign_in, await sign_in.finish(flow, answer, base), target, base)
    except SignInError as error:
        response = _problem(sign_in, error, target)
    except (ApiError, CommandUndecided) as error:
        response = _problem(sign_in, SignInError(f"the session was not opened: {error}", "attn is not ready yet."),
                            target)
    if answer.state:
        response.delete_cookie(cookie_name(answer.state), path=CALLBACK_PATH, samesite="lax", httponly=True)
    return response


def _answer(request: Request) -> Answer:
    """Returns the parameters of the callback. Raises SignInError if one is repeated or too long."""
    fields: dict[str, str] = {}
    for name in _PARAMETERS:
        values: Sequence[str] = request.query_params.getlist(name)
        if len(values) > 1 or any(len(value) > _MAX_PARAMETER for value in values):
            raise SignInError(f"{name}: is repeated, or longer than {_MAX_PARAMETER} characters")
        fields[name] = values[0] if values else ""
    return Answer(**fields)


def _flow(request: Request, sign_in: SignIn, state: str, now: float) -> Flow:
    """Returns the flow that this browser began. Raises SignInError if there is none."""
    for value in cookie_values(request, cookie_name(state)):
        if (flow := sign_in.box.open_flow(value, state, now)) is not None:
            return flow
    raise SignInError("no flow of this browser has the state of the answer" if state else "state: is missing", _GONE)


async def _signed_in(
    request: Request, edge: Edge, sign_in: SignIn, who: SignedIn, target: str, base: str,
) -> Response:
    """Opens the session, ends those that the browser had before, and sets the cookies."""
    opened = await _open(request, edge, sign_in, who)
    for caller in (await valid_sessions(request)).values():
        if caller.session is not None:
            await end_sessions(edge, session=caller.session.id, by=caller.user, reason="replaced")
    response = RedirectResponse(target, 303, NO_STORE)
    seconds = opened.expires_at / SECOND - edge.clock()
    workspace = _entered(request, edge, who, target)
    set_session_cookies(request, response, opened.text, seconds, workspace, secure=base.startswith("https"))
    return response


def _entered(request: Request, edge: Edge, who: SignedIn, target: str) -> str:
    """Returns the workspace that the page enters: that of the item in the link, else the remembered one, else the
    first."""
    grants = who.account.grants
    if target.startswith(_ITEM):
        item = unquote(target.removeprefix(_ITEM))
        for grant in grants:
            workspace = edge.replica.find_workspace(grant.workspace)
            roles = roles_of(grant.role, edge.settings.role_visibility)
            reader = Reader(grant.workspace, who.account.user, roles)
            if workspace is not None and workspace.visible_item(reader, item) is not None:
                return grant.workspace
    remembered = workspace_choice(request).remembered
    return remembered if remembered in [grant.workspace for grant in grants] else grants[0].workspace


async def _open(request: Request, edge: Edge, sign_in: SignIn, who: SignedIn) -> OpenedSession:
    account = who.account
    identity = Identity(
        account.user, account.name, issuer=sign_in.issuer.url, issuer_sid=who.text_of("sid"),
        subject=who.claims["sub"], auth_time=who.time_of("auth_time") or who.time_of("iat"), acr=who.text_of("acr"),
        refresh_token=first_refresh_token(edge, who.tokens.refresh_token))
    return await open_session(
        edge, identity, [Grant(grant.workspace, grant.role) for grant in account.grants], device=device_of(request),
        address=address_of(request), via="oidc")


def _problem(sign_in: SignIn, error: SignInError, target: str) -> Response:
    details: dict[str, Any] = {"issuer": sign_in.issuer.url, "cause": str(error)[:500]}
    _log.warning("sign-in failed", **details)
    contact = sign_in.contact if isinstance(error, NoWorkspace) else ""
    return problem_page(error.sentence, error.status, target, contact)


