"""Handler of revoked bearer tokens (CONTRACT §9): `RevokeTokens`, and the end of a revocation.

Edges keep the rows and refuse the tokens that they name. A revocation is deleted when its tokens have expired. Without
that time it stays, because a token may be valid for years.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from schemas.facts import Fact
from schemas.log import Command, RevokeTokens
from schemas.scalars import format_timestamp
from schemas.views import RevocationCountRow, RevocationRow
from streams.core.domain.keys import command_name, revocation_count_key, revocation_key
from streams.core.fold import outcomes
from streams.core.fold.access.key_handlers import KEY_ROLES
from streams.core.fold.context import FoldContext

__all__ = ["MAX_REVOCATIONS", "TOKEN_HANDLERS", "delete_revocation"]

MAX_REVOCATIONS = 10_000  # of a workspace: every edge keeps them in memory, about 400 bytes each

_FORBIDDEN = {"error": "tokens are revoked by the roles OWNER and ADMIN"}
_TOO_MANY = {
    "error": f"the workspace has {MAX_REVOCATIONS} revocations, which is the most it may have: name `expires_at`, so "
             "that they end, or revoke all tokens of a user at once",
    "limit": MAX_REVOCATIONS,
}


def _revoke(context: FoldContext, command: RevokeTokens) -> None:
    """Stores a revocation: 403, 409 at the limit, or 200. An earlier one of the same token or user is extended."""
    key = revocation_key(command.ws, command.jti, command.of_user)
    known = context.state.get(key)
    assert known is None or isinstance(known, RevocationRow)
    count = context.state.get(revocation_count_key(command.ws)) or RevocationCountRow(command.ws)
    assert isinstance(count, RevocationCountRow)
    if not KEY_ROLES.intersection(command.roles):
        outcomes.respond(context, command, 403, _FORBIDDEN)
    elif known is None and count.count >= MAX_REVOCATIONS:
        outcomes.respond(context, command, 409, _TOO_MANY)
    else:
        row = _merged(context, command, known)
        context.state.put(key, row)
        if known is None:
            count.count += 1
            context.state.put(revocation_count_key(command.ws), count)
        context.emit(Fact(
            ws=command.ws, pos=0, index=0, event_id=command_name(command.id, "tokens"), time=command.time,
            type="tokens.revoked", subject=command.jti or command.of_user or "", at=context.log_clock,
            actor=command.user, reason=_described(row), target_user_id=command.of_user or command.user))
        outcomes.respond(context, command, 200, {"revoked": True, **_named(row)})


def _merged(context: FoldContext, command: RevokeTokens, known: RevocationRow | None) -> RevocationRow:
    """Returns the row of a revocation. It covers what an earlier one of the same token or user covers."""
    before = None if command.jti is not None else command.before if command.before is not None else command.time
    until = command.until
    if known is not None:
        before = max(before, known.before or 0) if before is not None else None
        until = max(until, known.until) if until is not None and known.until is not None else None
    return RevocationRow(
        ws=command.ws, at=command.time, by=command.user, jti=command.jti, user=command.of_user, before=before,
        until=until, rev=context.revision, wake=until)


def _named(row: RevocationRow) -> dict[str, str]:
    if row.jti is not None:
        return {"jti": row.jti}
    return {"sub": row.user or "", "issued_before": format_timestamp(row.before or 0)}


def _described(row: RevocationRow) -> str:
    return "jti" if row.jti is not None else f"sub, issued before {format_timestamp(row.before or 0)}"


def delete_revocation(context: FoldContext, key: bytes) -> None:
    """Deletes a revocation whose tokens have expired."""
    row = context.state.get(key)
    assert isinstance(row, RevocationRow)
    context.state.delete(key)
    count_key = revocation_count_key(row.ws)
    count = context.state.get(count_key)
    if isinstance(count, RevocationCountRow) and count.count > 1:
        count.count -= 1
        context.state.put(count_key, count)
    elif count is not None:
        context.state.delete(count_key)


TOKEN_HANDLERS: dict[type[Command], Callable[[FoldContext, Any], None]] = {RevokeTokens: _revoke}
