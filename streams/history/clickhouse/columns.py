"""Facts -> the columns of table `activity`. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Any

from schemas.facts import Fact
from streams.core.domain.keys import legacy_event_name

__all__ = ["COLUMNS", "FactPosition", "columns", "digest", "fact_identity", "fact_position", "with_old_ids"]

# After a log truncation the fold continues at a position that is at least this much higher: POSITION_JUMP of
# streams.core.fold.fold is twice as much. No other gap between the positions of two facts comes near it. Migration
# 0001_activity.sql has the same number: projection `stretches` groups positions by it.
MIN_POSITION_JUMP = 1 << 23

# Position of a fact within its partition of the log, and its index among the facts of that position (schemas.facts).
FactPosition = tuple[int, int]

COLUMNS = (
    "workspace_id", "occurred_at", "accepted_at", "event_id", "type", "subject", "item_id", "kind", "priority", "title",
    "cluster", "stack", "case_id", "case_state", "session_id", "task_id", "proof_id", "actor", "resolved_action",
    "seconds_open", "target_user_id", "target_role", "is_stale", "opened", "log_partition", "position", "fact_index",
)


def fact_position(fact: Fact) -> FactPosition:
    return (fact.pos, fact.index)


def fact_identity(fact: Fact) -> tuple[int, int, str]:
    """A fact by its place and its event. The event by its old name (decision 0037): the row may be of an older attn."""
    return (fact.pos, fact.index, legacy_event_name(fact.event_id))


def with_old_ids(places: Iterable[tuple[int, int, str]]) -> set[tuple[int, int, str]]:
    """Places of rows, to be compared with `at`."""
    return {(position, index, legacy_event_name(event)) for position, index, event in places}


def digest(workspace: str, event_id: str) -> int:
    """CRC-32 of an event's identity; `digest_sql` of the store is the same in ClickHouse."""
    return zlib.crc32(f"{workspace}\n{event_id}".encode("utf-8", "surrogatepass"))


def columns(facts: Sequence[Fact], partitions: Sequence[int]) -> list[Sequence[Any]]:
    """One sequence a column, in the order of COLUMNS. Times stay microseconds, as DateTime64(6) holds them."""
    return [
        [fact.ws for fact in facts],
        [fact.time for fact in facts],
        [fact.at for fact in facts],
        [fact.event_id for fact in facts],
        [fact.type for fact in facts],
        [fact.subject for fact in facts],
        [fact.item or "" for fact in facts],
        [fact.kind or "" for fact in facts],
        [fact.priority or "" for fact in facts],
        [fact.title or "" for fact in facts],
        [fact.cluster or "" for fact in facts],
        [fact.stack or "" for fact in facts],
        [fact.case_id or "" for fact in facts],
        [fact.state or "" for fact in facts],
        [fact.session_id or "" for fact in facts],
        [fact.task_id or "" for fact in facts],
        [fact.proof_id or "" for fact in facts],
        [fact.actor or "" for fact in facts],
        [fact.resolved_action or "" for fact in facts],
        [fact.seconds_open for fact in facts],
        [fact.target_user_id or "" for fact in facts],
        [fact.target_role or "" for fact in facts],
        [fact.stale for fact in facts],
        [fact.opened for fact in facts],
        partitions,
        [fact.pos for fact in facts],
        [fact.index for fact in facts],
    ]
