"""Stored outcomes of commands with an Idempotency-Key: kept for a day, bounded per user.

A row has the status, a digest of the request, and the part of the response body that neither the request nor the view
has (decision 0040).
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from hashlib import blake2b

import msgspec

from schemas.facts import Outcome
from schemas.log import (
    BatchAnswer,
    Command,
    CreateKey,
    Decide,
    DecideMany,
    Dismiss,
    EndSessions,
    Restore,
    RevokeKey,
    RevokeTokens,
    SetPreferences,
    SetState,
    TakeBack,
)
from schemas.scalars import DAY, format_timestamp
from schemas.views import KeysRow, OutcomeRow, PreferencesRow
from streams.core.domain.keys import outcome_count_key, outcome_key, preferences_key
from streams.core.fold.context import FoldContext

__all__ = [
    "MAX_OUTCOMES_PER_USER", "OUTCOME_TTL", "answer_repeat", "bulk_body", "expire_outcome", "preferences_body",
    "respond",
]

# How long an outcome is kept, in microseconds of the log clock. CONTRACT §4 leaves it open; no client retries for a
# day.
OUTCOME_TTL = DAY
# Stored outcomes per user, about 200 bytes each. A user makes hundreds of writes a day.
MAX_OUTCOMES_PER_USER = 5_000


def find_outcome(context: FoldContext, command: Command) -> OutcomeRow | None:
    """Returns the stored outcome of the command's Idempotency-Key, None if there is none."""
    row = context.state.get(_outcome_key(command)) if command.idempotency_key is not None else None
    return row if isinstance(row, OutcomeRow) else None


def has_too_many_outcomes(context: FoldContext, command: Command) -> bool:
    """Returns whether the command has an Idempotency-Key and its user has MAX_OUTCOMES_PER_USER stored outcomes."""
    if command.idempotency_key is None:
        return False
    row = context.state.get(outcome_count_key(command.ws, command.user))
    return isinstance(row, KeysRow) and row.count >= MAX_OUTCOMES_PER_USER


def store_outcome(context: FoldContext, command: Command, status: int, body: msgspec.Raw) -> None:
    """Keeps the outcome of a command with a key: a short body as it is, else what `answer_of` needs."""
    if command.idempotency_key is None:
        return
    key = outcome_count_key(command.ws, command.user)
    row = context.state.get(key)
    row = row if isinstance(row, KeysRow) else KeysRow(command.ws, command.user)
    row.count += 1
    row.wake = context.log_clock + OUTCOME_TTL + 1
    context.state.put(key, row)
    kept = _compact_body(command, body) if status == 200 else body
    context.state.put(_outcome_key(command), OutcomeRow(
        ws=command.ws, request_digest=_request_digest(command), status=status, body=kept,
        wake=context.log_clock + OUTCOME_TTL, user=command.user,
    ))


def expire_outcome(context: FoldContext, key: bytes) -> None:
    """Deletes an outcome after OUTCOME_TTL, and counts down for its user. Rows of before decision 0040 are not
    counted."""
    row = context.state.get(key)
    assert isinstance(row, OutcomeRow)
    context.state.delete(key)
    if row.user is None:
        return
    count_key = outcome_count_key(row.ws, row.user)
    keys = context.state.get(count_key)
    if isinstance(keys, KeysRow) and keys.count > 1:
        keys.count -= 1
        context.state.put(count_key, keys)
    elif keys is not None:
        context.state.delete(count_key)


def stored_answer(context: FoldContext, command: Command, row: OutcomeRow) -> msgspec.Raw | None:
    """Returns the body of the stored outcome; of preferences the current ones. None if the key was used for another
    request."""
    if row.request_digest != _request_digest(command):
        return None
    raw = bytes(row.body)
    if not raw.startswith(b'"'):  # the complete body
        return row.body
    if isinstance(command, SetState) and command.bulk:
        return _encode_body(_expand_bulk_body(command, msgspec.json.decode(raw, type=str)))
    if isinstance(command, SetState):
        return _encode_body({"id": command.items[0], "state": command.state})
    if isinstance(command, Dismiss):
        until = {"dismissed_until": format_timestamp(command.until)} if command.until is not None else {}
        return _encode_body({"id": command.item, "dismissed": True, **until})
    if isinstance(command, Restore):
        return _encode_body({"id": command.item, "dismissed": False})
    assert isinstance(command, SetPreferences)
    preferences = context.state.get(preferences_key(command.ws, command.user))
    if not isinstance(preferences, PreferencesRow):
        preferences = PreferencesRow("", "")
    return _encode_body(preferences_body(preferences))


TOO_MANY_KEYS = (
    f"too many Idempotency-Keys: at most {MAX_OUTCOMES_PER_USER} of one user are kept, each for a day; wait, "
    "or write without one"
)
_OTHER_REQUEST = {"error": "this Idempotency-Key was used for another request"}


def answer_repeat(context: FoldContext, command: Command) -> bool:
    """Emits the stored outcome of a command whose Idempotency-Key is known, or 429 if its user has too many of them.

    Returns False if the command has to be handled.
    """
    known = find_outcome(context, command)
    if known is not None:
        body = stored_answer(context, command, known)
        status = known.status if body is not None else 422
        emit_outcome(context, command, status, body or _encode_body(_OTHER_REQUEST), [])
        return True
    if has_too_many_outcomes(context, command):
        body = _encode_body({"error": TOO_MANY_KEYS, "limit": MAX_OUTCOMES_PER_USER})
        emit_outcome(context, command, 429, body, [])
        return True
    return False


def respond(
    context: FoldContext, command: Command, status: int, body: object, changed: list[str] | None = None,
) -> None:
    """Stores the outcome for its Idempotency-Key, if it has one, and emits it. `changed`: ids of changed items."""
    raw = _encode_body(body)
    store_outcome(context, command, status, raw)
    emit_outcome(context, command, status, raw, changed or [])


def emit_outcome(context: FoldContext, command: Command, status: int, body: msgspec.Raw, changed: list[str]) -> None:
    state = command.state if isinstance(command, SetState) else None
    context.emit(Outcome(
        ws=command.ws, pos=0, index=0, command=command.id, edge=command.edge, user=command.user, status=status,
        body=body, items=changed, state=state, bulk=isinstance(command, SetState) and command.bulk,
    ))


def bulk_body(updated: int, skipped: list[str], not_found: int, state: str) -> dict[str, object]:
    """Returns the response body of a bulk change."""
    return {"updated": updated, "skipped": len(skipped), "skipped_ids": skipped, "not_found": not_found, "state": state}


def preferences_body(row: PreferencesRow) -> dict[str, object]:
    """Returns the response body of preferences."""
    return {
        "pinned_clusters": row.pinned_clusters,
        "widgets": [{"id": widget.id, "visible": widget.visible} for widget in row.widgets],
    }


def _compact_body(command: Command, body: msgspec.Raw) -> msgspec.Raw:
    """Returns what is stored of a successful body: a JSON string. Of bulk: updated, not found, and one bit per id: 1
    if it was skipped, in base64."""
    if isinstance(command, Decide | TakeBack | DecideMany | RevokeKey | EndSessions | RevokeTokens):
        return body  # its decision may have changed until the request is repeated, and its key or session is gone
    if not (isinstance(command, SetState) and command.bulk):
        return _encode_body("")
    fields = msgspec.json.decode(body)
    skipped = set(fields["skipped_ids"])
    bits = bytearray((len(command.items) + 7) // 8)
    for number, item in enumerate(command.items):
        if item in skipped:
            bits[number // 8] |= 1 << number % 8
    return _encode_body(f"{fields['updated']} {fields['not_found']} {b64encode(bits).decode()}")


def _expand_bulk_body(command: SetState, compact: str) -> dict[str, object]:
    """Returns the bulk body that `_compact_body` returned."""
    updated, not_found, text = compact.split(" ")
    bits = b64decode(text)
    skipped = [item for number, item in enumerate(command.items) if bits[number // 8] >> number % 8 & 1]
    return bulk_body(int(updated), skipped, int(not_found), command.state)


def _encode_body(body: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(body))


def _outcome_key(command: Command) -> bytes:
    return outcome_key(command.ws, command.user, command.idempotency_key or "")


def _request_digest(command: Command) -> str:
    """Returns the digest of what the client requested, in hexadecimal: the command without id, time, edge and claims.

    A fence or a key that the edge filled in is left out: it may differ when the client repeats its request.
    """
    request = msgspec.structs.replace(command, id="", time=0, edge="", roles=())
    if isinstance(request, Decide):
        request = msgspec.structs.replace(
            request, role="", name=None, viewed=None, digest="" if request.by_edge else request.digest)
    elif isinstance(request, DecideMany):
        answers = tuple(BatchAnswer(one.item, 0 if one.by_edge else one.rev, one.by_edge) for one in request.answers)
        request = msgspec.structs.replace(request, role="", name=None, answers=answers)
    elif isinstance(request, CreateKey):
        request = msgspec.structs.replace(request, key="", digest="")
    return blake2b(msgspec.json.encode(request), digest_size=16).hexdigest()
