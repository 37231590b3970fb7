"""Handlers of the keys of sources: create, revoke, note a use, delete after the expiry (CONTRACT §8).

Edges keep the rows and check each request against them, so the order of the log decides when a key is valid. An expired
key is refused by the edge's clock; its row stays for the retention, so that lists show it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from schemas.facts import Fact
from schemas.log import Command, CreateKey, KeyUsed, RevokeKey
from schemas.scalars import format_timestamp
from schemas.views import SourceKeyCountRow, SourceKeyRow
from streams.core.domain.keys import command_name, source_key_count_key, source_key_key
from streams.core.fold import outcomes
from streams.core.fold.context import FoldContext

__all__ = ["KEY_HANDLERS", "KEY_ROLES", "MAX_KEYS", "delete_expired", "handle_use", "key_json"]

KEY_ROLES = frozenset({"OWNER", "ADMIN"})  # roles that manage keys
MAX_KEYS = 200  # keys of a workspace: every edge keeps them in memory, about 400 bytes each

_NOT_FOUND = {"error": "not found"}
_FORBIDDEN = {"error": "keys are for the roles OWNER and ADMIN"}
_TOO_MANY = {
    "error": f"the workspace has {MAX_KEYS} keys, which is the most it may have: revoke one that is not used",
    "limit": MAX_KEYS,
}


def key_json(row: SourceKeyRow) -> dict[str, object]:
    """Returns a key as clients see it, without its digest. Fields without a value are left out."""
    fields: dict[str, object | None] = {
        "id": row.id, "name": row.name, "topics": list(row.topics), "source": row.source,
        "created_at": format_timestamp(row.created_at), "created_by": row.created_by,
        "expires_at": _time(row.expires_at), "last_used": _time(row.last_used),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _time(time: int | None) -> str | None:
    return format_timestamp(time) if time is not None else None


def _create(context: FoldContext, command: CreateKey) -> None:
    """Stores a new key: 403, 409 at the limit or for an id that is taken, 400 if it has expired, or 201."""
    count = context.state.get(source_key_count_key(command.ws)) or SourceKeyCountRow(command.ws)
    assert isinstance(count, SourceKeyCountRow)
    key = source_key_key(command.key)
    if not KEY_ROLES.intersection(command.roles):
        outcomes.respond(context, command, 403, _FORBIDDEN)
    elif count.count >= MAX_KEYS:
        outcomes.respond(context, command, 409, _TOO_MANY)
    elif context.state.get(key) is not None:
        outcomes.respond(context, command, 409, {"error": "a key with this id exists already"})
    elif command.expires_at is not None and command.expires_at <= context.log_clock:
        outcomes.respond(context, command, 400, {"error": "expires_at must be in the future"})
    else:
        expires = command.expires_at
        row = SourceKeyRow(
            id=command.key, ws=command.ws, digest=command.digest, name=command.name, topics=command.topics,
            source=command.source, expires_at=expires, created_at=command.time, created_by=command.user,
            rev=context.revision, wake=expires + context.config.retention if expires is not None else None)
        context.state.put(key, row)
        _count(context, command.ws, 1)
        _emit_fact(context, command, row, "key.created", _scope(row))
        outcomes.respond(context, command, 201, {"key": key_json(row)})


def _revoke(context: FoldContext, command: RevokeKey) -> None:
    """Deletes a key: 403, 404 or 200. Every edge refuses the key from then on."""
    key = source_key_key(command.key)
    row = context.state.get(key)
    if not KEY_ROLES.intersection(command.roles):
        outcomes.respond(context, command, 403, _FORBIDDEN)
    elif not isinstance(row, SourceKeyRow) or row.ws != command.ws:
        outcomes.respond(context, command, 404, _NOT_FOUND)
    else:
        context.state.delete(key)
        _count(context, command.ws, -1)
        _emit_fact(context, command, row, "key.revoked")
        outcomes.respond(context, command, 200, {"id": command.key, "revoked": True})


def handle_use(context: FoldContext, used: KeyUsed) -> None:
    """Notes the hour in which a key was used. An unknown key, or an older hour, changes nothing."""
    key = source_key_key(used.key)
    row = context.state.get(key)
    if isinstance(row, SourceKeyRow) and row.ws == used.ws and (row.last_used is None or row.last_used < used.time):
        row.last_used, row.rev = used.time, context.revision
        context.state.put(key, row)


def delete_expired(context: FoldContext, key: bytes) -> None:
    """Deletes a key whose expiry is longer ago than the retention."""
    row = context.state.get(key)
    assert isinstance(row, SourceKeyRow)
    context.state.delete(key)
    _count(context, row.ws, -1)


def _count(context: FoldContext, ws: str, step: int) -> None:
    key = source_key_count_key(ws)
    row = context.state.get(key) or SourceKeyCountRow(ws)
    assert isinstance(row, SourceKeyCountRow)
    row.count += step
    if row.count > 0:
        context.state.put(key, row)
    else:
        context.state.delete(key)


def _emit_fact(
    context: FoldContext, command: Command, row: SourceKeyRow, fact_type: str, reason: str | None = None
) -> None:
    """Emits the fact of a created or revoked key, so that the history names who did it. Its target is that user."""
    context.emit(Fact(
        ws=command.ws, pos=0, index=0, event_id=command_name(command.id, row.id), time=command.time, type=fact_type,
        subject=row.id, at=context.log_clock, title=row.name, actor=command.user, reason=reason,
        target_user_id=command.user))


def _scope(row: SourceKeyRow) -> str:
    """Returns what the key may do and until when, for the history."""
    source = "any source" if row.source is None else f"source {row.source}"
    expiry = "never expires" if row.expires_at is None else f"expires {format_timestamp(row.expires_at)}"
    return f"topics {','.join(row.topics)}; {source}; {expiry}"


KEY_HANDLERS: dict[type[Command], Callable[[FoldContext, Any], None]] = {CreateKey: _create, RevokeKey: _revoke}
