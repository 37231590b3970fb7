"""Topic table: names, keys, partitions, retention and record size limits of all topics (DESIGN: Topics, CONTRACT
§2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from aiokafka.partitioner import murmur2

__all__ = [
    "BATCH_BYTES", "DEAD_LETTERS", "DECISIONS", "DECISION_REPORTS", "FACTS", "LOG", "MAX_DEAD_LETTER_BYTES",
    "MAX_SOURCE_BYTES", "SOURCE_TYPES", "TOPICS", "TOPIC_OF_TYPE", "VIEWS", "RecordTooLarge", "Topic",
    "check_record_sizes", "partition_of", "record_size",
]

# Size limits in bytes. A source topic accepts records above the event limit, so that attn can reject them with a reason
# that their producer can read. A dead letter is such a record with headers.
MAX_SOURCE_BYTES = 16 << 20
MAX_DEAD_LETTER_BYTES = MAX_SOURCE_BYTES + (1 << 20)

LOG = "attn.log"
VIEWS = "attn.views"
FACTS = "attn.facts"
DEAD_LETTERS = "dead-letters"
DECISIONS = "decisions"

SOURCE_TYPES: dict[str, tuple[str, ...]] = {
    "waitpoints": (
        "waitpoint.created", "waitpoint.approved", "waitpoint.rejected", "waitpoint.cancelled", "waitpoint.expired",
    ),
    "escalations": ("escalation.opened", "escalation.updated", "escalation.resolved"),
    "run-failures": ("run.failed", "run.retried", "run.recovered", "run.cancelled"),
    "messages": ("message.posted", "message.withdrawn"),
    "sessions": ("session.started", "session.waiting", "session.resumed", "session.completed", "session.failed"),
    "plans": ("plan.proposed", "plan.approved", "plan.rejected", "plan.superseded"),
    "actions": ("action.requested", "action.confirmed", "action.declined", "action.expired"),
    "drafts": ("draft.edited", "draft.committed", "draft.discarded"),
    "cases": (
        "case.state_changed", "task.blocked", "task.unblocked", "session.verifying", "proof.attached", "proof.expired",
    ),
}
TOPIC_OF_TYPE = {kind: topic for topic, kinds in SOURCE_TYPES.items() for kind in kinds}
# A source says on its own topic what became of a decision that it received (CONTRACT §7).
DECISION_REPORTS = ("decision.applied", "decision.refused")


@dataclass(frozen=True, slots=True)
class Topic:
    """One row of the table. `partitions`: "log" and "source" are settings, "one" is 1."""

    name: str
    key: str
    holds: str
    partitions: Literal["log", "source", "one"]
    cleanup: Literal["delete", "compact"]
    retention: Literal["source", "log", "facts", "dead-letters", "forever"]
    model: str


TOPICS: tuple[Topic, ...] = (
    *(Topic(name, "free", "CloudEvents 1.0", "source", "delete", "source", "schemas.sources") for name in SOURCE_TYPES),
    Topic(LOG, "none; the partition is the workspace's", "packs of events, commands and ticks", "log", "delete", "log",
          "schemas.log.Pack"),
    Topic(VIEWS, "row key", "one row a record, and one position row a batch", "log", "compact", "forever",
          "schemas.views"),
    Topic(FACTS, "workspace", "accepted facts and outcomes of commands", "log", "delete", "facts", "schemas.facts"),
    Topic(DECISIONS, "workspace", "CloudEvents of decisions, for their sources", "log", "delete", "log",
          "schemas.asking.decision_event.DecisionEvent"),
    Topic(DEAD_LETTERS, "source topic", "rejected records with the reason", "one", "delete", "dead-letters",
          "schemas.dead_letters.DeadLetter"),
)

# A batch has all rows of a group of packs (law 3), so the log's topics need larger records than Kafka's default of 1
# MB.
MAX_MESSAGE_BYTES = 8 << 20
# What Kafka limits is the record batch, with its headers.
BATCH_BYTES = MAX_MESSAGE_BYTES - (64 << 10)
_RECORD_OVERHEAD = 64


class RecordTooLarge(Exception):
    """A record that no batch of the topic can hold. Nothing was written."""


def check_record_sizes(topic: str, rows: Iterable[tuple[bytes, bytes | None]]) -> None:
    """Raises RecordTooLarge where one record is more than a batch can hold."""
    for key, value in rows:
        if len(key) + len(value or b"") + _RECORD_OVERHEAD > BATCH_BYTES:
            raise RecordTooLarge(f"{topic}: record {key[:80]!r} has {len(value or b'')} bytes")


def record_size(key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes]]) -> int:
    """The most bytes that a record takes in a batch."""
    return _RECORD_OVERHEAD + len(key or b"") + len(value or b"") + sum(
        10 + len(name.encode(errors="surrogateescape")) + len(raw) for name, raw in headers)


def partition_of(workspace: str, partitions: int) -> int:
    """Returns the log partition of a workspace: Kafka's default partitioner (murmur2) of its UTF-8 name."""
    return int((murmur2(workspace.encode()) & 0x7FFFFFFF) % partitions)
