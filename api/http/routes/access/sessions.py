"""Routes of sessions and revoked tokens (CONTRACT §9): the caller's own sessions, and for OWNER and ADMIN those of the
users of the workspace."""

from __future__ import annotations

from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Query
from fastapi.responses import Response

from api.contract.errors import ApiError
from api.contract.requests import TokenRevocation
from api.contract.responses.access import EndedSessions, RevokedTokens, SessionList
from api.contract.responses.base import responses_of
from api.edge.services import Edge
from api.http.auth.sessions import end_rows
from api.http.auth.tokens import Caller
from api.http.command_dispatch import command_fields, execute
from api.http.dependencies import CurrentCaller, CurrentEdge, IdempotencyKey, WritingCaller, json_response
from schemas.log import EndSessions, RevokeTokens
from schemas.scalars import SECOND
from schemas.views import SessionRow
from streams.core.fold.access.key_handlers import KEY_ROLES
from streams.core.fold.access.session_handlers import session_json

__all__ = ["router"]

router = APIRouter(tags=["sessions"])

Id = Annotated[str, Path(max_length=200)]
User = Annotated[str, Path(max_length=2000)]
_LISTED = 1000  # sessions per response


@router.get("/org/me/sessions", responses=responses_of(SessionList))
async def list_own_sessions(edge: CurrentEdge, caller: CurrentCaller) -> Response:
    """Returns the caller's sessions in this workspace, the newest first: device, last use, end."""
    await edge.workspace(caller.reader)  # raises ApiError 503 if this edge does not serve the workspace
    return _listed(edge, caller, edge.replica.access.sessions.of_user(caller.workspace_id, caller.user))


@router.delete("/org/me/sessions/{session:id}", responses=responses_of(EndedSessions, 404, writes=True))
async def end_own_session(edge: CurrentEdge, caller: WritingCaller, key: IdempotencyKey, session: Id) -> Response:
    """Ends one of the caller's sessions. Its streams end within a second, on every edge. A request with a session ends
    it in all its workspaces, one with a token in that of the token."""
    row = edge.replica.access.sessions.get(session, caller.workspace_id)
    if row is not None and row.user != caller.user:
        raise ApiError(404, "not found")
    others = [] if row is None else _elsewhere(edge, caller, [row])
    response = await execute(edge, caller, EndSessions(
        **command_fields(edge, caller, key), session=session, reason="revoked by the user"))
    await end_rows(edge, others, caller.user, "revoked by the user")
    return response


@router.delete("/org/me/sessions", responses=responses_of(EndedSessions, writes=True))
async def end_own_sessions(
    edge: CurrentEdge, caller: WritingCaller, key: IdempotencyKey,
    others: Annotated[bool, Query(description="Keeps the session of this request.")] = False,
) -> Response:
    """Ends all of the caller's sessions that may enter this workspace, otherwise as for one."""
    keep = caller.session.id if others and caller.session is not None else None
    rows = [row for row in edge.replica.access.sessions.of_user(caller.workspace_id, caller.user) if row.id != keep]
    elsewhere = _elsewhere(edge, caller, rows)
    response = await execute(edge, caller, EndSessions(
        **command_fields(edge, caller, key), of_user=caller.user, keep=keep, reason="revoked by the user"))
    await end_rows(edge, elsewhere, caller.user, "revoked by the user")
    return response


@router.get("/org/sessions", responses=responses_of(SessionList, 403))
async def list_sessions(
    edge: CurrentEdge, caller: CurrentCaller,
    user: Annotated[str, Query(description="Only the sessions of this user.", max_length=2000)] = "",
) -> Response:
    """Returns the sessions of the workspace, the newest 1000 first. For the roles OWNER and ADMIN."""
    _check_role(caller)
    await edge.workspace(caller.reader)
    known = edge.replica.access.sessions
    rows = known.of_user(caller.workspace_id, user) if user else known.of_workspace(caller.workspace_id)
    return _listed(edge, caller, rows)


@router.delete("/org/users/{user:id}/sessions", responses=responses_of(EndedSessions, 403, writes=True))
async def end_sessions_of_user(edge: CurrentEdge, caller: WritingCaller, key: IdempotencyKey, user: User) -> Response:
    """Ends the sessions of a user in this workspace; in other workspaces they go on. For the roles OWNER and ADMIN.
    Bearer tokens of the user stay valid: see `POST /org/tokens/revoke`."""
    _check_role(caller)
    return await execute(edge, caller, EndSessions(
        **command_fields(edge, caller, key), of_user=user, reason="revoked by an administrator"))


@router.post("/org/tokens/revoke", responses=responses_of(RevokedTokens, 403, 409, writes=True))
async def revoke_tokens(
    edge: CurrentEdge, caller: WritingCaller, key: IdempotencyKey, body: TokenRevocation
) -> Response:
    """Revokes bearer tokens of this workspace: the one with this `jti`, or those of `sub` issued before a time. Every
    edge refuses them within a second and ends their streams. For the roles OWNER and ADMIN.

    A token of `sub` without `iat` counts as issued before. Without `expires_at` the revocation stays for as long as the
    workspace exists.
    """
    _check_role(caller)
    if body.expires_at is not None and body.expires_at <= edge.clock() * SECOND:
        raise ApiError(400, "expires_at must be in the future")
    return await execute(edge, caller, RevokeTokens(
        **command_fields(edge, caller, key), jti=body.jti, of_user=body.sub, before=body.issued_before,
        until=body.expires_at))


def _check_role(caller: Caller) -> None:
    if caller.role not in KEY_ROLES:
        raise ApiError(403, "sessions of other users and revocations are for the roles OWNER and ADMIN")


def _elsewhere(edge: Edge, caller: Caller, rows: list[SessionRow]) -> list[tuple[str, str]]:
    """Returns workspace and id of the same sessions in other workspaces. Only a session of the same issuer reaches over
    to them: a token of this workspace says nothing of others."""
    known, own = edge.replica.access.sessions, caller.session
    if own is None:
        return []
    return [(one.ws, one.id) for row in rows if row.issuer == own.issuer
            for one in known.of(row.id) if one.ws != caller.workspace_id]


def _listed(edge: Edge, caller: Caller, rows: list[SessionRow]) -> Response:
    known, now = edge.replica.access.sessions, int(edge.clock() * SECOND)
    current = caller.session.id if caller.session is not None else None
    entries = [session_json(row) | {"current": row.id == current} for row in rows if known.is_alive(row, now)]
    return json_response(orjson.dumps({"sessions": entries[:_LISTED]}))
