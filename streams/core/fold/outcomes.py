"""Outcomes of commands that carry an Idempotency-Key: kept for a day, bounded for each user, without their answers.

A row keeps the status, a digest of the request, and the part of the answer that neither the request nor the view gives
(decision 0040).
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from hashlib import blake2b

import msgspec

from schemas.log import Command, Dismiss, Restore, SetPreferences, SetState
from schemas.scalars import DAY, from_us
from schemas.views import KeysRow, OutcomeRow, PreferencesRow
from streams.core.domain.keys import keys_key, outcome_key, preferences_key
from streams.core.fold.context import FoldContext

__all__ = ["KEPT", "MAX_KEYS", "answer_of", "bulk_body", "expire", "full", "keep", "known", "preferences_body"]

# How long an outcome is kept for its key, by the log's clock (CONTRACT §4 leaves it open; a day outlives any retry).
KEPT = DAY
# Outcomes of one user at a time: some 200 bytes each. A person makes hundreds of writes a day.
MAX_KEYS = 5_000


def known(context: FoldContext, command: Command) -> OutcomeRow | None:
    row = context.state.get(_key(command)) if command.idempotency_key is not None else None
    return row if isinstance(row, OutcomeRow) else None


def full(context: FoldContext, command: Command) -> bool:
    """Whether the command has a key and its user has no room for another outcome."""
    row = context.state.get(keys_key(command.ws, command.user)) if command.idempotency_key is not None else None
    return isinstance(row, KeysRow) and row.count >= MAX_KEYS


def keep(context: FoldContext, command: Command, status: int, body: msgspec.Raw) -> None:
    """Keeps the outcome of a command with a key: a short body as it is, else what `answer_of` needs."""
    if command.idempotency_key is None:
        return
    key = keys_key(command.ws, command.user)
    row = context.state.get(key)
    row = row if isinstance(row, KeysRow) else KeysRow(command.ws, command.user)
    row.count += 1
    row.wake = context.log_clock + KEPT + 1
    context.state.put(key, row)
    kept = _mark(command, body) if status == 200 else body
    context.state.put(_key(command), OutcomeRow(
        ws=command.ws, asked=_asked(command), status=status, body=kept, wake=context.log_clock + KEPT,
        user=command.user,
    ))


def expire(context: FoldContext, key: bytes) -> None:
    """The outcome's day is over. Rows of before decision 0040 are not counted."""
    row = context.state.get(key)
    assert isinstance(row, OutcomeRow)
    context.state.drop(key)
    if row.user is None:
        return
    count_key = keys_key(row.ws, row.user)
    keys = context.state.get(count_key)
    if isinstance(keys, KeysRow) and keys.count > 1:
        keys.count -= 1
        context.state.put(count_key, keys)
    elif keys is not None:
        context.state.drop(count_key)


def answer_of(context: FoldContext, command: Command, row: OutcomeRow) -> msgspec.Raw | None:
    """Returns the answer that was given for the key; preferences as they are now. None: another request's key."""
    if row.asked != _asked(command):
        return None
    raw = bytes(row.body)
    if not raw.startswith(b'"'):  # the whole answer
        return row.body
    if isinstance(command, SetState) and command.bulk:
        return _raw(_bulk_again(command, msgspec.json.decode(raw, type=str)))
    if isinstance(command, SetState):
        return _raw({"id": command.items[0], "state": command.state})
    if isinstance(command, Dismiss):
        until = {"dismissed_until": from_us(command.until)} if command.until is not None else {}
        return _raw({"id": command.item, "dismissed": True, **until})
    if isinstance(command, Restore):
        return _raw({"id": command.item, "dismissed": False})
    assert isinstance(command, SetPreferences)
    found = context.state.get(preferences_key(command.ws, command.user))
    return _raw(preferences_body(found if isinstance(found, PreferencesRow) else PreferencesRow("", "")))


def bulk_body(updated: int, skipped: list[str], not_found: int, state: str) -> dict[str, object]:
    return {"updated": updated, "skipped": len(skipped), "skipped_ids": skipped, "not_found": not_found, "state": state}


def preferences_body(row: PreferencesRow) -> dict[str, object]:
    return {
        "pinned_clusters": row.pinned_clusters,
        "widgets": [{"id": widget.id, "visible": widget.visible} for widget in row.widgets],
    }


def _mark(command: Command, body: msgspec.Raw) -> msgspec.Raw:
    """What stands for an answer: a JSON string. Of bulk: updated, not found, and one bit an id: skipped."""
    if not (isinstance(command, SetState) and command.bulk):
        return _raw("")
    given = msgspec.json.decode(body)
    skipped = set(given["skipped_ids"])
    bits = bytearray((len(command.items) + 7) // 8)
    for number, item in enumerate(command.items):
        if item in skipped:
            bits[number // 8] |= 1 << number % 8
    return _raw(f"{given['updated']} {given['not_found']} {b64encode(bits).decode()}")


def _bulk_again(command: SetState, mark: str) -> dict[str, object]:
    updated, not_found, text = mark.split(" ")
    bits = b64decode(text)
    skipped = [item for number, item in enumerate(command.items) if bits[number // 8] >> number % 8 & 1]
    return bulk_body(int(updated), skipped, int(not_found), command.state)


def _raw(body: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(body))


def _key(command: Command) -> bytes:
    return outcome_key(command.ws, command.user, command.idempotency_key or "")


def _asked(command: Command) -> str:
    """Returns a digest of the request without its time, edge and role."""
    what = msgspec.structs.replace(command, id="", time=0, edge="", roles=())
    return blake2b(msgspec.json.encode(what), digest_size=16).hexdigest()
