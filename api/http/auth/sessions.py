"""Sessions of attn's own (CONTRACT §9): authenticates their text, opens, changes and ends them.

The text of a session, `attns_{id}_{secret}`, is the value of the cookie `attn_session`, or the bearer token of a
terminal. The view has one row of the session for each workspace that it may enter, with the SHA-256 of the text. The
fold writes the rows for the commands that this module submits, so every edge knows each session and its end.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import structlog

from api.commands.command_log import CommandLog
from api.contract.errors import ApiError, NotReady
from api.edge.services import Edge
from api.http.auth.device import clean_text
from api.http.auth.tokens import Caller, Unauthorized, UnknownWorkspace, WorkspaceChoice
from api.readmodel.readers import Reader
from schemas.facts import Outcome
from schemas.log import ChangeSession, Command, EndSessions, OpenSession
from schemas.scalars import DAY, HOUR, SECOND
from schemas.views import SessionRow
from streams.core.domain.visibility import roles_of
from streams.runtime.secret_texts import ENTROPY_BYTES, SESSIONS, secret_digest

__all__ = [
    "EdgeSessions", "Grant", "Identity", "OpenedSession", "SignInFailed", "change_session", "end_rows", "end_sessions",
    "open_session", "refresh_token_of", "system_fields",
]

_RETRY = {"retry-after": "1"}
_SYSTEM_ROLES = ("OWNER",)  # of commands that no user sends: a logout at the issuer, a changed role
_log = structlog.get_logger("attn.edge")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who signs in. The fields after `name` are of an issuer, if one vouches. `auth_time`: seconds since the epoch."""

    user: str
    name: str | None = None
    issuer: str | None = None
    issuer_sid: str | None = None
    subject: str | None = None
    auth_time: float | None = None
    acr: str | None = None
    refresh_token: str | None = None


class Grant(NamedTuple):
    """A workspace that a session may enter, and the role there."""

    workspace: str
    role: str


class OpenedSession(NamedTuple):
    """A session that was just opened. `text`: the value of the cookie, known here only. `expires_at`: the absolute end,
    in microseconds."""

    id: str
    text: str
    workspace: str
    expires_at: int


class SignInFailed(ApiError):
    """The fold refused the session, with this status and error."""


class EdgeSessions:
    """What an edge knows of sessions and revoked tokens, for the authenticator."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    def looks_like(self, text: str) -> bool:
        """Returns whether the text is meant as a session."""
        return SESSIONS.looks_like(text)

    def refusal(self, caller: Caller) -> str | None:
        """Returns why a bearer token is refused although it is valid, None if it is not refused."""
        index = self._edge.replica.access
        revoked = index.revocations.covers(caller.workspace_id, caller.user, caller.jti, caller.issued_at)
        return "the token was revoked" if revoked else None

    def caller(self, text: str, choice: WorkspaceChoice) -> Caller:
        """Returns the caller of a session in the workspace that the request chooses, and notes the use.

        Raises Unauthorized if the session is unknown or has ended, UnknownWorkspace if it may not enter the workspace
        that the request names, and NotReady if the view has not caught up yet.
        """
        edge, rows = self._edge, self._rows_of(text)
        now = int(edge.clock() * SECOND)
        alive = [row for row in rows if edge.replica.access.sessions.is_alive(row, now)]
        row = _chosen(alive, choice)
        if row is None:
            if alive:
                raise UnknownWorkspace("not found")
            raise Unauthorized("the session has expired: sign in again")
        edge.session_usage.note(row)
        reader = Reader(row.ws, row.user, roles_of(row.role, edge.settings.role_visibility))
        return Caller(row.role, row.name, row.expires_at / SECOND, reader, session=row)

    def _rows_of(self, text: str) -> tuple[SessionRow, ...]:
        """Returns the rows of a session whose text this is."""
        edge, session = self._edge, SESSIONS.id_of(text)
        if session is None:
            raise Unauthorized("not a session: attns_ and 66 more characters are expected, of which the last 6 are a "
                               "checksum")
        if not edge.ready:
            raise NotReady
        rows = edge.replica.access.sessions.of(session)
        if not rows or not hmac.compare_digest(rows[0].digest, secret_digest(text)):
            raise Unauthorized("the session is not known, or has ended: sign in again")
        return rows


def _chosen(rows: Sequence[SessionRow], choice: WorkspaceChoice) -> SessionRow | None:
    """Returns the row of the named workspace, else of the remembered one, else of the one that was used last."""
    if choice.named is not None:
        return next((row for row in rows if row.ws == choice.named), None)
    remembered = next((row for row in rows if row.ws == choice.remembered), None)
    return remembered or max(rows, key=lambda row: (row.used_at, row.ws), default=None)


async def open_session(
    edge: Edge, identity: Identity, grants: Sequence[Grant], *, device: str, via: str, address: str = "",
    seconds: float | None = None, link: str | None = None,
) -> OpenedSession:
    """Opens a session in each of the granted workspaces; the first one is its current workspace.

    `via`: how the user signed in (`oidc`, `link`, `device`). `seconds`: the absolute lifetime, at most
    ATTN_SESSION_DAYS. `link`: id of the sign-in link to use up. The issuer's refresh token is stored sealed, or not at
    all if this edge has no key for it.

    Raises SignInFailed if the fold refuses the session in a workspace; it is then in none. Raises CommandUndecided if
    an outcome does not arrive in time. In a workspace that this edge does not serve, the session begins without an
    answer.
    """
    if not grants:
        raise ValueError("a session needs a workspace")
    made = SESSIONS.new(secrets.token_bytes(ENTROPY_BYTES))
    longest = edge.settings.session_days * DAY
    end = edge.command_log.now() + int(longest if seconds is None else min(seconds * SECOND, longest))
    commands = [OpenSession(
        **system_fields(edge, grant.workspace, identity.user), session=made.id, digest=made.digest, role=grant.role,
        via=via, expires_at=end, idle=int(edge.settings.session_idle_hours * HOUR), limit=edge.settings.max_sessions,
        name=clean_text(identity.name or "", 200) or None, device=clean_text(device, 200),
        address=clean_text(address, 64), issuer=identity.issuer, issuer_sid=identity.issuer_sid,
        subject=identity.subject, auth_time=_microseconds(identity.auth_time), acr=identity.acr,
        refresh=_sealed(edge, made.id, identity.refresh_token), link=link) for grant in grants]
    refused = [outcome for outcome in await _submit(edge, commands) if outcome.status != 201]
    if refused:
        await end_rows(edge, [(grant.workspace, made.id) for grant in grants], identity.user, "refused")
        raise SignInFailed(refused[0].status, _error(refused[0]))
    _log.info("session opened", session=made.id, via=via, user=identity.user, workspaces=len(grants))
    return OpenedSession(made.id, made.text, grants[0].workspace, end)


async def change_session(
    edge: Edge, session: str, ws: str, *, role: str | None = None, refresh_token: str | None = None, **fields: Any,
) -> Outcome:
    """Changes a session in one workspace: its role, its sealed refresh token, `name`, `acr`, and in microseconds
    `expires_at` and `auth_time`. A changed role ends its open streams on every edge."""
    command = ChangeSession(
        **system_fields(edge, ws, "attn"), session=session, role=role,
        refresh=_sealed(edge, session, refresh_token), **fields)
    return await edge.command_log.submit(command)


async def end_sessions(
    edge: Edge, *, session: str | None = None, issuer: str | None = None, issuer_sid: str | None = None,
    subject: str | None = None, by: str = "issuer", reason: str,
) -> list[str]:
    """Ends a session in all its workspaces: the one with this id, or those that an issuer names by `sid`, else by
    `sub`. Returns their ids. Raises CommandUndecided if an outcome does not arrive in time."""
    known = edge.replica.access.sessions
    if session is not None:
        rows: Iterable[SessionRow] = known.of(session)
    elif issuer is not None and (issuer_sid is not None or subject is not None):
        rows = known.of_issuer(issuer, issuer_sid, subject)
    else:
        raise ValueError("name a session, or an issuer with sid or sub")
    names = [(row.ws, row.id) for row in rows]
    await end_rows(edge, names, by, reason)
    return list(dict.fromkeys(name for _, name in names))


async def end_rows(edge: Edge, names: Iterable[tuple[str, str]], by: str, reason: str) -> None:
    """Ends sessions, each by workspace and id. `by`: who ends them, for the history."""
    await _submit(edge, [
        EndSessions(**system_fields(edge, ws, by), session=session, reason=reason) for ws, session in names])


def refresh_token_of(edge: Edge, row: SessionRow) -> str | None:
    """Returns the issuer's refresh token of a session, if there is one. Raises SealError if no key opens it."""
    if row.refresh is None or edge.session_sealer is None:
        return None
    return edge.session_sealer.open(row.refresh, ("session", row.id))


def system_fields(edge: Edge, ws: str, user: str) -> dict[str, Any]:
    """Returns the fields of a command that the edge submits by its own authority."""
    return {"ws": ws, "id": CommandLog.new_id(), "time": edge.command_log.now(), "user": user, "roles": _SYSTEM_ROLES,
            "edge": edge.settings.instance}


async def _submit(edge: Edge, commands: Sequence[Command]) -> list[Outcome]:
    """Submits the commands at once, and returns the outcomes of those in workspaces that this edge serves."""
    for command in commands:
        if not edge.replica.serves(command.ws):
            edge.command_log.post(command)
    awaited = [edge.command_log.submit(command) for command in commands if edge.replica.serves(command.ws)]
    return list(await asyncio.gather(*awaited))


def _sealed(edge: Edge, session: str, token: str | None) -> str | None:
    if token is None or edge.session_sealer is None:
        return None
    return edge.session_sealer.seal(token, ("session", session))


def _microseconds(seconds: float | None) -> int | None:
    return int(seconds * SECOND) if seconds is not None else None


def _error(outcome: Outcome) -> str:
    return str(msgspec.json.decode(outcome.body).get("error", "the session was refused"))
