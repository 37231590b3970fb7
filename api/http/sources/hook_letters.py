"""Dead letters of webhooks: the original bytes of a delivery, and the field that could not be mapped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers

from api.http.sources.hook_sender import HookSender
from api.http.sources.intake import Rejection
from api.intake.acceptance import AcceptedEvent
from schemas.scalars import SECOND
from schemas.topics import DEAD_LETTERS
from streams.connectors.hooks.hooks_file import Hook
from streams.connectors.hooks.payloads import KEPT_HEADERS, NotJson
from streams.connectors.mappings.mapped import MappingError
from streams.ingest.rejects import to_dead_letter
from streams.kafka.dead_letters import DEAD_LETTERS_SENT
from streams.kafka.topics import dead_letter_bytes

__all__ = ["count_letter", "letter_of", "topic_of"]

_MAX_REASON = 500  # characters, as reasons of rejected events
_SHOWN = 5  # rejected parts that the reason names
_MAX_HEADER = 500  # bytes


@dataclass(slots=True)
class _Body:
    """A request as a rejected record."""

    topic: str
    value: bytes
    headers: Sequence[tuple[str, bytes | None]]
    partition: int = 0
    offset: int = 0
    key: bytes | None = None


def topic_of(hook: Hook) -> str:
    """Returns what a dead letter of a hook has as its topic: `hooks/NAME`."""
    return f"hooks/{hook.name}"


def letter_of(
    sender: HookSender, headers: Headers, body: bytes, refused: MappingError | None, unmapped: Sequence[Rejection],
    at: float,
) -> AcceptedEvent:
    """Returns the record for `dead-letters`. `unmapped`: the rejected parts. `at`: seconds.

    Reply tokens in the body are blanked, as in every dead letter. Headers that authenticate the sender are left out.
    """
    errors = [f"{one['index']}: {one['error']}" if len(unmapped) > 1 else one["error"] for one in unmapped[:_SHOWN]]
    more = len(unmapped) - len(errors)
    reason = "; ".join([*errors, *([f"and {more} more"] if more else [])])[:_MAX_REASON]
    kept: list[tuple[str, bytes | None]] = [
        (name, headers[name].encode("latin-1", "replace")[:_MAX_HEADER])
        for name in KEPT_HEADERS if name in headers]
    record = _Body(topic_of(sender.hook), body, kept)
    letter = to_dead_letter(record, reason, _cause(refused), int(at * SECOND)).fit(dead_letter_bytes())
    return AcceptedEvent(DEAD_LETTERS, letter.value or b"", letter.record_headers())


def count_letter(hook: Hook, refused: MappingError | None, sent: bool) -> None:
    if sent:
        DEAD_LETTERS_SENT.labels(topic_of(hook), _cause(refused)).inc()


def _cause(refused: MappingError | None) -> str:
    return "json" if isinstance(refused, NotJson) else "fields"
