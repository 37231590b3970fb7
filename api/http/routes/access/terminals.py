"""Routes with which a terminal signs in: `attn login` (CONTRACT §9, RFC 8628, ops/decisions/0069).

The terminal starts a request and polls; a person who is signed in answers on the page. No GET changes anything.
"""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from api.contract.errors import NO_STORE, ApiError, NotReady
from api.contract.requests import DeviceCode, TerminalAnswer, TerminalName, TerminalText
from api.contract.responses.access import StartedTerminal, TerminalAnswered, TerminalDetails, TerminalSession
from api.contract.responses.base import responses_of
from api.edge.services import Edge
from api.http.auth.device import address_of, clean_text
from api.http.auth.session_cookies import page_origin
from api.http.auth.sessions import Grant, Identity, SignInFailed, open_session, system_fields
from api.http.auth.terminals import INTERVAL, SECONDS, TerminalRequest, Terminals
from api.http.dependencies import CurrentEdge, WritingCaller
from schemas.log import CreateLink
from schemas.scalars import SECOND, format_timestamp
from schemas.views import LinkRow, SessionRow

__all__ = ["router"]

_GONE = "this request is not valid: it was answered, or it has expired; run `attn login` again"
_NOT_SET_UP = "not found: `attn login` needs ATTN_SESSION_KEYS or ATTN_JWT_SECRET on every edge"

_MOST = 20  # answers of one user in a workspace, of which the view has a row

router = APIRouter(tags=["sessions"])


def _terminals(request: Request) -> Terminals:
    """Returns the terminals of this edge. Raises ApiError 404 if the settings have no key for them."""
    terminals: Terminals = request.app.state.terminals
    if not terminals.available:
        raise ApiError(404, _NOT_SET_UP)
    return terminals


_KnownTerminals = Depends(_terminals)


@router.post("/auth/device", responses=responses_of(StartedTerminal))
async def start(
    request: Request, edge: CurrentEdge, body: TerminalName, terminals: Terminals = _KnownTerminals,
) -> Response:
    """Starts the sign-in of a terminal (RFC 8628 section 3.1). Needs no caller, and stores nothing.

    The terminal shows `user_code` and `verification_uri`, and polls `POST /auth/device/token`.
    """
    started = terminals.start(clean_text(body.device, 80), address_of(request))
    base = edge.settings.public_url or f"{page_origin(request)[0]}://{request.headers.get('host', '')}"
    return JSONResponse({
        "device_code": started.device_code, "user_code": started.user_code,
        "verification_uri": f"{base.rstrip('/')}/#device={started.sealed}", "expires_in": SECONDS,
        "interval": INTERVAL}, headers=NO_STORE)


@router.post("/auth/device/token", responses=responses_of(TerminalSession))
async def take_session(
    edge: CurrentEdge, body: DeviceCode, terminals: Terminals = _KnownTerminals,
) -> Response:
    """Returns the session once a person has let the terminal in. Until then, and otherwise, 400 with an `error` of RFC
    8628 section 3.5: `authorization_pending`, `slow_down`, `access_denied`, `expired_token`, `invalid_grant`."""
    request = terminals.open_device_code(body.device_code)
    if request is None:
        raise ApiError(400, "invalid_grant")
    if terminals.is_too_early(request):
        raise ApiError(400, "slow_down")
    link = _answered(edge, request)
    parent = edge.replica.access.sessions.get(link.parent or "", link.ws)
    if parent is None:
        raise ApiError(400, "invalid_grant")
    now = edge.clock()
    try:
        opened = await open_session(
            edge, Identity(link.user, link.name), [Grant(link.ws, link.role)], device=request.device,
            address=request.address, via="device", seconds=parent.expires_at / SECOND - now, link=link.id)
    except SignInFailed:  # another edge was faster, or the session that answered has ended
        raise ApiError(400, "invalid_grant") from None
    return JSONResponse({
        "access_token": opened.text, "token_type": "Bearer", "expires_in": int(opened.expires_at / SECOND - now),
        "user_id": link.user, "workspace_id": link.ws, "role": link.role}, headers=NO_STORE)


def _answered(edge: Edge, request: TerminalRequest) -> LinkRow:
    """Returns the link of a request that a person has allowed. Raises ApiError 400, 503 if the view has not
    caught up yet, and Misdirected if another edge serves the workspace."""
    link = edge.replica.access.links.get(request.id)
    if link is not None and link.closed is not None:
        raise ApiError(400, "access_denied" if link.closed == "denied" else "invalid_grant")
    if request.expires <= edge.clock():
        raise ApiError(400, "expired_token")
    if link is None and not edge.ready:
        raise NotReady(INTERVAL)
    if link is None:
        raise ApiError(400, "authorization_pending")
    edge.require_served(link.ws)
    return link


@router.post("/auth/device/request", responses=responses_of(TerminalDetails, 403, 410, writes=True))
async def show(
    edge: CurrentEdge, caller: WritingCaller, body: TerminalText, terminals: Terminals = _KnownTerminals,
) -> Response:
    """Returns which terminal asks. It is a POST because the text belongs in no log of addresses; it changes nothing."""
    request = _open(edge, terminals, body.request)
    return JSONResponse({
        "device": request.device, "address": request.address,
        "expires_at": format_timestamp(request.expires * SECOND)}, headers=NO_STORE)


@router.post("/auth/device/answer", responses=responses_of(TerminalAnswered, 403, 409, 410, writes=True))
async def answer(
    edge: CurrentEdge, caller: WritingCaller, body: TerminalAnswer, terminals: Terminals = _KnownTerminals,
) -> Response:
    """Lets a terminal in with the caller's user and role in this workspace, or refuses it. One answer counts: a second
    one is 409.

    The caller needs a session of a browser: the terminal's session ends with it and cannot outlive it. A wrong
    `user_code` is 400; after five the request is 410.
    """
    if caller.session is None or caller.session.parent is not None:
        raise ApiError(403, "a terminal is let in by a person who signed in to the page with an account or a link, "
                            "not with a token")
    request = _open(edge, terminals, body.request)
    if body.allow:
        _check_code(terminals, request, body.user_code)
    await edge.workspace(caller.reader)  # raises ApiError 503 if this edge does not serve the workspace
    _check_number(edge, caller.session)
    outcome = await edge.command_log.submit(_link(edge, caller.session, request, denied=not body.allow))
    if outcome.status == 201:
        return JSONResponse({"allowed": body.allow}, headers=NO_STORE)
    if outcome.status == 409:
        raise ApiError(409, "this request was answered already")
    error: dict[str, Any] = msgspec.json.decode(outcome.body)
    raise ApiError(410, str(error.get("error", _GONE)))


def _open(edge: Edge, terminals: Terminals, sealed: str) -> TerminalRequest:
    request = terminals.open(sealed)
    if request is None or request.expires <= edge.clock():
        raise ApiError(410, _GONE)
    return request


def _check_code(terminals: Terminals, request: TerminalRequest, typed: str) -> None:
    right = terminals.check_code(request, typed)
    if right is None:
        raise ApiError(410, "too many wrong codes: run `attn login` again")
    if not right:
        raise ApiError(400, "user_code: is not the code that the terminal shows")


def _check_number(edge: Edge, session: SessionRow) -> None:
    """Raises ApiError 429 if the user has answered too many requests whose rows are still kept."""
    own = (session.ws, session.user)
    if sum(row.parent is not None and (row.ws, row.user) == own for row in edge.replica.access.links.values()) >= _MOST:
        raise ApiError(429, f"too many answers: at most {_MOST} in 20 minutes", {"retry-after": "60"}, limit=_MOST)


def _link(edge: Edge, session: SessionRow, request: TerminalRequest, denied: bool) -> CreateLink:
    """Returns the command that stores the answer. The edge has checked who answers."""
    return CreateLink(
        **system_fields(edge, session.ws, session.user), link=request.id, digest=request.digest, of_user=session.user,
        role=session.role, name=session.name, expires_at=request.expires * SECOND, parent=session.id, denied=denied)
