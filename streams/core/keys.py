"""Identities: derived from what they name, so a replay of the log gives the same ones."""

from __future__ import annotations

from hashlib import blake2b

__all__ = [
    "DIGEST_BYTES", "activity_key", "draft_key", "event_digest", "group_key", "item_id", "item_key", "mark_key",
    "outcome_key", "preferences_key", "proofs_key", "seen_key",
]

# 96 bits: among ten million events of a partition a false repeat (a lost event) has odds of about 1 in 10**15.
DIGEST_BYTES = 12


def _digest(size: int, first: str, second: str, third: str = "", fourth: str = "") -> blake2b:
    # Lengths, not separators: any character may occur in a part, and "a"+"bc" must differ from "ab"+"c".
    text = f"{len(first)}:{first}{len(second)}:{second}{len(third)}:{third}{fourth}"
    return blake2b(text.encode(), digest_size=size)


def event_digest(ws: str, source: str, event_id: str) -> bytes:
    """An event's identity within its workspace: CloudEvents' `source` and `id`."""
    return _digest(DIGEST_BYTES, ws, source, event_id).digest()


def item_id(ws: str, kind: str, source_id: str) -> str:
    return "ibx_" + _digest(16, ws, kind, source_id).hexdigest()


def item_key(item: str) -> bytes:
    return b"i:" + item.encode()


def mark_key(item: str, user: str) -> bytes:
    return b"m:" + item.encode() + b":" + user.encode()


def draft_key(ws: str, draft: str) -> bytes:
    return b"d:" + _digest(16, ws, draft).hexdigest().encode()


def preferences_key(ws: str, user: str) -> bytes:
    return b"p:" + _digest(16, ws, user).hexdigest().encode()


def outcome_key(ws: str, user: str, key: str) -> bytes:
    """Of a command that carries a key of its caller's (Idempotency-Key)."""
    return b"o:" + _digest(16, ws, user, key).hexdigest().encode()


def activity_key(digest: bytes) -> bytes:
    return b"a:" + digest.hex().encode()


def group_key(ws: str, name: str, target_user_id: str | None, target_role: str | None) -> str:
    """The group of failed runs of one name and one target: who may see the members may see their incident."""
    return "g:" + _digest(16, ws, name, target_user_id or "", target_role or "").hexdigest()


def proofs_key(ws: str, case_id: str) -> bytes:
    return b"q:" + _digest(16, ws, case_id).hexdigest().encode()


def seen_key(partition: int, position: int) -> bytes:
    return b"e:%d:%d" % (partition, position)
