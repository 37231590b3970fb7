"""Row keys, item ids, event digests and fact names. All are derived from what they name: a replay of the log gives the
same ones (law 1).
"""

from __future__ import annotations

from hashlib import blake2b

__all__ = [
    "DIGEST_BYTES", "activity_key", "batch_key", "command_digest", "command_name", "decision_fact_name",
    "decision_key", "draft_key", "event_digest", "event_name", "group_key", "is_event_digest", "item_id", "item_key",
    "legacy_event_name", "link_key", "mark_key", "outcome_count_key", "outcome_key", "parse_event_name",
    "preferences_key", "proof_expiring_name", "proofs_key", "revocation_count_key", "revocation_key", "seen_key",
    "session_key", "source_key_count_key", "source_key_key", "user_sessions_key",
]

# 96 bits: with ten million events per partition, the probability of a collision (a lost event) is about 1 in 10**15.
DIGEST_BYTES = 12


def _digest(size: int, first: str, second: str, third: str = "", fourth: str = "") -> blake2b:
    # Lengths, not separators: any character may occur in a part, and "a"+"bc" must differ from "ab"+"c".
    text = f"{len(first)}:{first}{len(second)}:{second}{len(third)}:{third}{fourth}"
    return blake2b(text.encode(), digest_size=size)


def event_digest(ws: str, source: str, event_id: str) -> bytes:
    """Returns the digest of an event's identity: workspace, and `source` and `id` of the CloudEvent."""
    if source.startswith("\0"):  # the prefix of commands
        source = "\0" + source
    return _digest(DIGEST_BYTES, ws, source, event_id).digest()


def command_digest(ws: str, command: str) -> bytes:
    """Returns the digest of a command's identity, which no event can have."""
    return _digest(DIGEST_BYTES, ws, "\0command", command).digest()


# First words of fact names that do not belong to source events.
_COMMAND, _EXPIRING, _DECISION = "command", "proof.expiring", "decision.state"


def event_name(source: str, event_id: str) -> str:
    """Returns the `event_id` of a fact, unique per pair of source and id (decision 0037).

    Source and id are joined by a space. If that is ambiguous (a space in the source, or the first word of another kind
    of fact), a space and the length of the source come first: no other name begins with a space.
    """
    if " " in source or source in (_COMMAND, _EXPIRING, _DECISION):
        return f" {len(source)} {source} {event_id}"
    return f"{source} {event_id}"


def parse_event_name(name: str) -> tuple[str, str]:
    """Returns source and id of an event name; of an ambiguous one (before decision 0037) the shortest source."""
    if name.startswith(" "):
        length, _, rest = name[1:].partition(" ")
        if length.isdecimal():
            return rest[:int(length)], rest[int(length) + 1:]
    source, _, event_id = name.partition(" ")
    return source, event_id


def legacy_event_name(name: str) -> str:
    """Returns the name that attn before decision 0037 gave the same event."""
    return " ".join(parse_event_name(name)) if name.startswith(" ") else name


def command_name(command: str, *items: str) -> str:
    """Returns the `event_id` of a fact of a command. Item ids contain no space."""
    return " ".join((_COMMAND, command, *items))


def proof_expiring_name(item: str, opened_at: int) -> str:
    return f"{_EXPIRING} {item} {opened_at}"


def decision_fact_name(decision: str, verb: str, at: int) -> str:
    """Returns the `event_id` of a fact about a decision, which enters a state at most once per time `at` (µs)."""
    return f"{_DECISION} {decision} {verb} {at}"


def is_event_digest(text: str) -> bool:
    """Returns whether the text is an event digest in hexadecimal; command ids have another length."""
    return len(text) == 2 * DIGEST_BYTES


def item_id(ws: str, kind: str, source_id: str) -> str:
    return "ibx_" + _digest(16, ws, kind, source_id).hexdigest()


def item_key(item: str) -> bytes:
    return b"i:" + item.encode()


def mark_key(item: str, user: str) -> bytes:
    return b"m:" + item.encode() + b":" + user.encode()


def decision_key(decision: str) -> bytes:
    return b"c:" + decision.encode()


def batch_key(ws: str, source: str, key: str) -> bytes:
    """Returns the key of the row of an ask's batch: questions of one source that name the same batch."""
    return b"b:" + _digest(16, ws, source, key).hexdigest().encode()


def draft_key(ws: str, draft: str) -> bytes:
    return b"d:" + _digest(16, ws, draft).hexdigest().encode()


def preferences_key(ws: str, user: str) -> bytes:
    return b"p:" + _digest(16, ws, user).hexdigest().encode()


def outcome_key(ws: str, user: str, key: str) -> bytes:
    """Returns the key of the outcome of a command with an Idempotency-Key."""
    return b"o:" + _digest(16, ws, user, key).hexdigest().encode()


def outcome_count_key(ws: str, user: str) -> bytes:
    """Returns the key of the row that counts the stored outcomes of a user."""
    return b"k:" + _digest(16, ws, user).hexdigest().encode()


def source_key_key(key: str) -> bytes:
    """Returns the row key of a source's key with this id."""
    return b"x:" + key.encode()


def source_key_count_key(ws: str) -> bytes:
    """Returns the key of the row that counts the keys of a workspace."""
    return b"n:" + _digest(16, ws, "").hexdigest().encode()


def session_key(ws: str, session: str) -> bytes:
    """Returns the row key of a session in one workspace. Two of its workspaces may be in the same partition."""
    return b"s:" + session.encode() + b":" + _digest(8, ws, session).hexdigest().encode()


def user_sessions_key(ws: str, user: str) -> bytes:
    return b"u:" + _digest(16, ws, user).hexdigest().encode()


def link_key(link: str) -> bytes:
    return b"l:" + link.encode()


def revocation_key(ws: str, jti: str | None, user: str | None) -> bytes:
    """Returns the row key of the revoked token with this `jti`, or of the revoked tokens of a user."""
    kind, value = ("jti", jti) if jti is not None else ("sub", user or "")
    return b"r:" + _digest(16, ws, kind, value).hexdigest().encode()


def revocation_count_key(ws: str) -> bytes:
    return b"v:" + _digest(16, ws, "").hexdigest().encode()


def activity_key(digest: bytes) -> bytes:
    return b"a:" + digest.hex().encode()


def group_key(ws: str, name: str, target_user_id: str | None, target_role: str | None) -> str:
    """Returns the key of a group of failed runs of one name and one target: members and incident have the same
    readers."""
    return "g:" + _digest(16, ws, name, target_user_id or "", target_role or "").hexdigest()


def proofs_key(ws: str, case_id: str) -> bytes:
    return b"q:" + _digest(16, ws, case_id).hexdigest().encode()


def seen_key(partition: int, position: int) -> bytes:
    return b"e:%d:%d" % (partition, position)
