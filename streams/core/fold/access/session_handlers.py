"""Handlers of sessions and sign-in links: open, end, change, note a use, delete after the end (CONTRACT §9).

Edges keep the rows and check each request against them, so the order of the log decides when a session is valid, and
which of two requests uses a link up. An edge opens sessions and changes them; it has checked who signs in. A user ends
their own sessions, OWNER and ADMIN those of all users of the workspace.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from schemas.facts import Fact
from schemas.log import ChangeSession, Command, CreateLink, EndSessions, OpenSession, SessionUsed
from schemas.scalars import MINUTE, format_timestamp
from schemas.views import LinkRow, SessionRow, UserSessionsRow
from streams.core.domain.keys import command_name, link_key, session_key, user_sessions_key
from streams.core.fold import outcomes
from streams.core.fold.access.key_handlers import KEY_ROLES
from streams.core.fold.context import FoldContext

__all__ = ["MAX_SESSIONS", "SESSION_HANDLERS", "delete_link", "handle_session_use", "session_json", "sessions_expire"]

# Sessions of a user in a workspace, whatever limit the edge names: every edge keeps them in memory.
MAX_SESSIONS = 100

# The row of a terminal's link stays so much longer than the link: edges, whose clocks differ, must not accept a second
# answer.
_LINK_KEPT = 10 * MINUTE

_NOT_FOUND = {"error": "not found"}
_FORBIDDEN = {"error": "sessions of other users are for the roles OWNER and ADMIN"}
_LINK_GONE = {"error": "this sign-in link was used or has expired; ask for a new one"}


def session_json(row: SessionRow) -> dict[str, object]:
    """Returns a session as clients see it, without digest and refresh token. Fields without a value are left out."""
    fields: dict[str, object | None] = {
        "id": row.id, "user_id": row.user, "name": row.name, "role": row.role, "via": row.via,
        "device": row.device or None, "address": row.address or None,
        "created_at": format_timestamp(row.created_at), "last_used": format_timestamp(row.used_at),
        "expires_at": format_timestamp(row.valid_until),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _open(context: FoldContext, command: OpenSession) -> None:
    """Stores a new session: 410 if its link was used, 400 if it has expired, 409 for an id that is taken, or 201."""
    key = session_key(command.ws, command.session)
    link = context.state.get(link_key(command.link)) if command.link is not None else None
    parent = _parent_of(context, link)
    if command.link is not None and not _takes_link(context, command, link, parent):
        outcomes.respond(context, command, 410, _LINK_GONE)
    elif command.expires_at <= context.log_clock:
        outcomes.respond(context, command, 400, {"error": "expires_at must be in the future"})
    elif context.state.get(key) is not None:
        outcomes.respond(context, command, 409, {"error": "a session with this id exists already"})
    else:
        if isinstance(link, LinkRow):
            _use_up(context, link)
        row = SessionRow(
            id=command.session, ws=command.ws, user=command.user, role=command.role, digest=command.digest,
            via=command.via, created_at=command.time, used_at=command.time, expires_at=command.expires_at,
            idle=command.idle, name=command.name, device=command.device, address=command.address,
            issuer=command.issuer, issuer_sid=command.issuer_sid, subject=command.subject,
            auth_time=command.auth_time, acr=command.acr, refresh=command.refresh, rev=context.revision)
        if parent is not None:
            row.parent, row.expires_at = parent.id, min(row.expires_at, parent.expires_at)
            row.auth_time = parent.auth_time if parent.auth_time is not None else parent.created_at
        row.wake = row.valid_until
        context.state.put(key, row)
        _end_oldest(context, command, row.parent)
        _emit_fact(context, command, row, "session.opened", row.via)
        outcomes.respond(context, command, 201, {"session": session_json(row)})


def _takes_link(context: FoldContext, command: OpenSession, row: object, parent: SessionRow | None) -> bool:
    """Returns whether the link is unused, valid, and for this user and role; that of a terminal only as long as the
    session that let it in is there with this role."""
    return (isinstance(row, LinkRow) and row.expires_at > context.log_clock and row.closed is None
            and (row.ws, row.user, row.role) == (command.ws, command.user, command.role)
            and (row.parent is None or (parent is not None and parent.role == row.role)))


def _parent_of(context: FoldContext, link: object) -> SessionRow | None:
    """Returns the session that answered for a terminal, if it has not ended."""
    if not isinstance(link, LinkRow) or link.parent is None:
        return None
    parent = context.state.get(session_key(link.ws, link.parent))
    return parent if isinstance(parent, SessionRow) and parent.user == link.user else None


def _use_up(context: FoldContext, link: LinkRow) -> None:
    """Deletes a link. That of a terminal stays as used."""
    if link.parent is None:
        context.state.delete(link_key(link.id))
    else:
        link.closed, link.rev = "used", context.revision
        context.state.put(link_key(link.id), link)


def _end_oldest(context: FoldContext, command: OpenSession, parent: str | None) -> None:
    """Adds the session to those of its user, and ends the oldest ones above the limit, except its parent."""
    key = user_sessions_key(command.ws, command.user)
    known = context.state.get(key)
    assert known is None or isinstance(known, UserSessionsRow)
    sessions = [*(known.sessions if known is not None else ()), command.session]
    context.state.put(key, UserSessionsRow(command.ws, command.user, sessions))
    surplus = max(len(sessions) - min(max(command.limit, 1), MAX_SESSIONS), 0)
    for oldest in [one for one in sessions[:-1] if one != parent][:surplus]:
        row = context.state.get(session_key(command.ws, oldest))
        if isinstance(row, SessionRow):
            _end(context, command, row, "limit")


def _end_sessions(context: FoldContext, command: EndSessions) -> None:
    """Ends one session (404 if it is not there or not the caller's), or all of a user: 403 or 200."""
    rows = _named(context, command)
    manages = bool(KEY_ROLES.intersection(command.roles))
    if command.session is not None and (not rows or not (manages or rows[0].user == command.user)):
        outcomes.respond(context, command, 404, _NOT_FOUND)
    elif command.of_user not in (None, command.user) and not manages:
        outcomes.respond(context, command, 403, _FORBIDDEN)
    else:
        for row in rows:
            _end(context, command, row, command.reason)
        outcomes.respond(context, command, 200, {"ended": [row.id for row in rows]})


def _named(context: FoldContext, command: EndSessions) -> list[SessionRow]:
    """Returns the rows of the sessions that the command names."""
    ids = [command.session] if command.session is not None else []
    if command.of_user is not None:
        known = context.state.get(user_sessions_key(command.ws, command.of_user))
        ids = [one for one in known.sessions if one != command.keep] if isinstance(known, UserSessionsRow) else []
    rows = (context.state.get(session_key(command.ws, one)) for one in ids)
    return [row for row in rows if isinstance(row, SessionRow)]


def _change(context: FoldContext, command: ChangeSession) -> None:
    """Changes a session: 404 or 200, or 412 if it is not at the revision `if_rev`. Every edge ends its streams if the
    role changes."""
    key = session_key(command.ws, command.session)
    row = context.state.get(key)
    if not isinstance(row, SessionRow):
        outcomes.respond(context, command, 404, _NOT_FOUND)
        return
    if command.if_rev is not None and command.if_rev != row.rev:
        outcomes.respond(context, command, 412, {"error": "the session has changed"})
        return
    before = row.role
    for field in ("role", "name", "expires_at", "auth_time", "acr", "refresh"):
        value = getattr(command, field)
        if value is not None:
            setattr(row, field, value)
    row.rev, row.wake = context.revision, row.valid_until
    context.state.put(key, row)
    if row.role != before:
        _emit_fact(context, command, row, "role.changed", f"was {before}")
        for child in _children(context, row):
            child.role, child.rev = row.role, context.revision
            context.state.put(session_key(child.ws, child.id), child)
            _emit_fact(context, command, child, "role.changed", f"was {before}")
    outcomes.respond(context, command, 200, {"session": session_json(row)})


def handle_session_use(context: FoldContext, used: SessionUsed) -> None:
    """Notes the hour in which a session was used. An unknown session, or an older hour, changes nothing."""
    key = session_key(used.ws, used.session)
    row = context.state.get(key)
    if isinstance(row, SessionRow) and row.used_at < used.time:
        row.used_at, row.rev = used.time, context.revision
        row.wake = row.valid_until
        context.state.put(key, row)


def sessions_expire(context: FoldContext, key: bytes) -> None:
    """Deletes a session that has reached its absolute end, or was not used within its idle time."""
    row = context.state.get(key)
    assert isinstance(row, SessionRow)
    _end(context, None, row, "expired")


def _create_link(context: FoldContext, command: CreateLink) -> None:
    """Stores a link: 403, 400, 409, 410 if the session that answers for a terminal has ended, or 201."""
    key = link_key(command.link)
    if not KEY_ROLES.intersection(command.roles):
        outcomes.respond(context, command, 403, {"error": "sign-in links are for the roles OWNER and ADMIN"})
    elif command.expires_at <= context.log_clock:
        outcomes.respond(context, command, 400, {"error": "expires_at must be in the future"})
    elif context.state.get(key) is not None:
        outcomes.respond(context, command, 409, {"error": "a link with this id exists already"})
    elif command.parent is not None and context.state.get(session_key(command.ws, command.parent)) is None:
        outcomes.respond(context, command, 410, {"error": "the session has ended"})
    else:
        context.state.put(key, LinkRow(
            id=command.link, ws=command.ws, digest=command.digest, user=command.of_user, role=command.role,
            expires_at=command.expires_at, name=command.name, parent=command.parent,
            closed="denied" if command.denied else None, rev=context.revision,
            wake=command.expires_at + (_LINK_KEPT if command.parent is not None else 0)))
        if command.recorded:
            context.emit(Fact(
                ws=command.ws, pos=0, index=0, event_id=command_name(command.id, command.link), time=command.time,
                type="link.created", subject=command.link, at=context.log_clock, actor=command.user, role=command.role,
                title=command.of_user, target_user_id=command.of_user, reason=_kind(command)))
        outcomes.respond(context, command, 201, {"id": command.link})


def _kind(command: CreateLink) -> str | None:
    if command.parent is None:
        return None
    return "terminal denied" if command.denied else "terminal"


def _children(context: FoldContext, row: SessionRow) -> list[SessionRow]:
    """Returns the sessions of terminals that this session let in."""
    known = context.state.get(user_sessions_key(row.ws, row.user))
    ids = known.sessions if isinstance(known, UserSessionsRow) else []
    rows = (context.state.get(session_key(row.ws, one)) for one in ids)
    return [one for one in rows if isinstance(one, SessionRow) and one.parent == row.id]


def delete_link(context: FoldContext, key: bytes) -> None:
    """Deletes a link that was not used in time."""
    context.state.delete(key)


def _end(context: FoldContext, command: Command | None, row: SessionRow, reason: str) -> None:
    """Deletes a session and those of its terminals, and emits their facts. `command` None: the clock ended it."""
    if context.state.get(session_key(row.ws, row.id)) is None:
        return  # it ended with the session that let it in
    context.state.delete(session_key(row.ws, row.id))
    for child in _children(context, row):
        _end(context, command, child, "the session that let it in has ended")
    key = user_sessions_key(row.ws, row.user)
    known = context.state.get(key)
    left = [one for one in known.sessions if one != row.id] if isinstance(known, UserSessionsRow) else []
    if left:
        context.state.put(key, UserSessionsRow(row.ws, row.user, left))
    elif known is not None:
        context.state.delete(key)
    _emit_fact(context, command, row, "session.ended", reason)


def _emit_fact(context: FoldContext, command: Command | None, row: SessionRow, fact_type: str, reason: str) -> None:
    """Emits a fact about a session. Its target is the session's user; its title says from where they signed in."""
    name = command_name(command.id, row.id, fact_type) if command is not None else command_name(
        "expired", row.id, str(row.created_at))
    context.emit(Fact(
        ws=row.ws, pos=0, index=0, event_id=name, time=command.time if command is not None else context.log_clock,
        type=fact_type, subject=row.id, at=context.log_clock,
        title=f"{row.device} ({row.address})" if row.address else row.device or None,
        actor=command.user if command is not None else None, role=row.role, reason=reason, target_user_id=row.user))


SESSION_HANDLERS: dict[type[Command], Callable[[FoldContext, Any], None]] = {
    OpenSession: _open, EndSessions: _end_sessions, ChangeSession: _change, CreateLink: _create_link,
}
