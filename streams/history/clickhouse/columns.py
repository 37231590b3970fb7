"""Facts -> columns of table `activity`. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from schemas.facts import Fact
from streams.core.domain.keys import legacy_event_name

__all__ = ["COLUMNS", "MIN_POSITION_JUMP", "FactPosition", "columns", "digest", "fact_identity", "fact_position",
           "with_old_ids"]

# After a log truncation the fold continues at a position that is at least this much higher: POSITION_JUMP of
# streams.core.fold.fold is twice as much. No other gap between the positions of two facts comes near it. Migration
# 0001_activity.sql has the same number: projection `stretches` groups positions by it.
MIN_POSITION_JUMP = 1 << 23

# Position of a fact within its partition of the log, and its index among the facts of that position (schemas.facts).
FactPosition = tuple[int, int]

# Column -> its values. List comprehensions: `operator.attrgetter` takes twice as long, 1.0 instead of 0.5 us for the
# 35 columns of a fact. Times are microseconds, as DateTime64(6) holds them.
_COLUMNS: dict[str, Callable[[Sequence[Fact], Sequence[int]], Sequence[Any]]] = {
    "workspace_id": lambda facts, _: [fact.ws for fact in facts],
    "occurred_at": lambda facts, _: [fact.time for fact in facts],
    "accepted_at": lambda facts, _: [fact.at for fact in facts],
    "event_id": lambda facts, _: [fact.event_id for fact in facts],
    "type": lambda facts, _: [fact.type for fact in facts],
    "subject": lambda facts, _: [fact.subject for fact in facts],
    "item_id": lambda facts, _: [fact.item or "" for fact in facts],
    "kind": lambda facts, _: [fact.kind or "" for fact in facts],
    "priority": lambda facts, _: [fact.priority or "" for fact in facts],
    "title": lambda facts, _: [fact.title or "" for fact in facts],
    "cluster": lambda facts, _: [fact.cluster or "" for fact in facts],
    "stack": lambda facts, _: [fact.stack or "" for fact in facts],
    "case_id": lambda facts, _: [fact.case_id or "" for fact in facts],
    "case_state": lambda facts, _: [fact.state or "" for fact in facts],
    "session_id": lambda facts, _: [fact.session_id or "" for fact in facts],
    "task_id": lambda facts, _: [fact.task_id or "" for fact in facts],
    "proof_id": lambda facts, _: [fact.proof_id or "" for fact in facts],
    "actor": lambda facts, _: [fact.actor or "" for fact in facts],
    "resolved_action": lambda facts, _: [fact.resolved_action or "" for fact in facts],
    "seconds_open": lambda facts, _: [fact.seconds_open for fact in facts],
    "decision_id": lambda facts, _: [fact.decision or "" for fact in facts],
    "option": lambda facts, _: [fact.option or "" for fact in facts],
    "does": lambda facts, _: [fact.does or "" for fact in facts],
    "reason": lambda facts, _: [fact.reason or "" for fact in facts],
    "role": lambda facts, _: [fact.role or "" for fact in facts],
    "viewed": lambda facts, _: [fact.viewed for fact in facts],
    "seconds_to_decide": lambda facts, _: [fact.seconds_to_decide for fact in facts],
    "seconds_to_apply": lambda facts, _: [fact.seconds_to_apply for fact in facts],
    "target_user_id": lambda facts, _: [fact.target_user_id or "" for fact in facts],
    "target_role": lambda facts, _: [fact.target_role or "" for fact in facts],
    "is_stale": lambda facts, _: [fact.stale for fact in facts],
    "opened": lambda facts, _: [fact.opened for fact in facts],
    "log_partition": lambda _, partitions: partitions,
    "position": lambda facts, _: [fact.pos for fact in facts],
    "fact_index": lambda facts, _: [fact.index for fact in facts],
}
COLUMNS = tuple(_COLUMNS)


def columns(facts: Sequence[Fact], partitions: Sequence[int]) -> list[Sequence[Any]]:
    """Returns one sequence of values per column, in the order of COLUMNS. `partitions`: partition of each fact."""
    return [values(facts, partitions) for values in _COLUMNS.values()]


def fact_position(fact: Fact) -> FactPosition:
    """Returns position and index of a fact. They increase within a partition."""
    return (fact.pos, fact.index)


def fact_identity(fact: Fact) -> tuple[int, int, str]:
    """Returns position, index, and event of a fact. The event has its old name (decision 0037), because an older attn
    may have written the row."""
    return (fact.pos, fact.index, legacy_event_name(fact.event_id))


def with_old_ids(rows: Iterable[tuple[int, int, str]]) -> set[tuple[int, int, str]]:
    """Returns position, index, and event of rows in the form of `fact_identity`."""
    return {(position, index, legacy_event_name(event)) for position, index, event in rows}


def digest(workspace: str, event_id: str) -> int:
    """Returns the CRC-32 of an event's identity. Query _DIGESTS of the repository computes the same in ClickHouse."""
    return zlib.crc32(f"{workspace}\n{event_id}".encode("utf-8", "surrogatepass"))
