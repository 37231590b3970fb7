"""Facts -> the columns of table `activity`. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Any

from schemas.facts import Fact
from streams.core.domain.keys import old_name

__all__ = ["COLUMNS", "Place", "as_old", "at", "columns", "digest", "place"]

# Where a fact is from within its partition: position and index (schemas.facts).
Place = tuple[int, int]

COLUMNS = (
    "workspace_id", "occurred_at", "accepted_at", "event_id", "type", "subject", "item_id", "kind", "priority", "title",
    "cluster", "stack", "case_id", "case_state", "session_id", "task_id", "proof_id", "actor", "resolved_action",
    "seconds_open", "target_user_id", "target_role", "is_stale", "opened", "log_partition", "position", "fact_index",
)


def place(fact: Fact) -> Place:
    return (fact.pos, fact.index)


def at(fact: Fact) -> tuple[int, int, str]:
    """A fact by its place and its event. The event by its old name (decision 0037): the row may be of an older attn."""
    return (fact.pos, fact.index, old_name(fact.event_id))


def as_old(places: Iterable[tuple[int, int, str]]) -> set[tuple[int, int, str]]:
    """Places of rows, to be compared with `at`."""
    return {(position, index, old_name(event)) for position, index, event in places}


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
