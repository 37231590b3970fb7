"""Makes the dead letters of source records: without reply tokens, in value, key, headers and reason."""

from __future__ import annotations

import traceback
from dataclasses import replace

from schemas.dead_letters import DeadLetter, SourceRecord
from streams.core.asks.blanking import blank_tokens
from streams.kafka.records.batches import Unreadable

__all__ = ["describe_fault", "to_dead_letter", "to_unreadable_letter"]

_MIN_TOKEN = 4  # characters; a shorter text is no secret, and would be replaced in any word


def to_dead_letter(record: SourceRecord, reason: str, cause: str, at: int) -> DeadLetter:
    """Returns the dead letter of a record; its tokens are "" (`streams.core.asks.blanking`). `at`: microseconds."""
    return _without_tokens(DeadLetter.of_record(record, reason, cause, at))


def to_unreadable_letter(record: Unreadable, reason: str, at: int) -> DeadLetter:
    """Returns the dead letter of a batch that could not be parsed. Tokens in text that is not compressed are ""."""
    return _without_tokens(DeadLetter(
        topic=record.topic, partition=record.partition, offset=record.first, reason=reason, at=at,
        value=record.value, size=record.size, cause="unreadable",
    ))


def describe_fault(fault: Exception, value: bytes | None) -> str:
    """Returns the traceback of a fault for the log. Leaves out its text if the record has a token."""
    has_token = bool(value and blank_tokens(value).tokens)
    return "".join([*traceback.format_tb(fault.__traceback__), type(fault).__name__,
                    "" if has_token else f": {fault}"])


def _without_tokens(letter: DeadLetter) -> DeadLetter:
    parts = [letter.value or b"", letter.key or b"", *(raw for _, raw in letter.headers)]
    blanked = [blank_tokens(part) for part in parts]
    tokens = [token for part in blanked for token in part.tokens]
    if not tokens:
        return letter
    reason = letter.reason
    for token in sorted(tokens, key=len, reverse=True):
        for form in (token, repr(token)[1:-1]):
            reason = reason.replace(form, "[redacted]") if len(token) >= _MIN_TOKEN else reason
    value, key, *headers = (part.value for part in blanked)
    full = letter.size and letter.size - len(letter.value or b"") + len(value)
    return replace(
        letter, reason=reason, value=value if letter.value is not None else None, size=full,
        key=key if letter.key is not None else None, blanked=len(tokens),
        headers=[(name, raw) for (name, _), raw in zip(letter.headers, headers, strict=True)],
    )
