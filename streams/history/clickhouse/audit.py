"""The audit trail: which facts belong to it, and a reader of them in the order of the log, in chunks.

A fact has a place in the log: partition, position, index (schemas.facts). The history inserts later facts at higher
positions. A cursor with the last place in each partition is therefore exact: facts that arrive later come after it,
whatever times they have (decision 0068).
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from streams.history.clickhouse.client import translate_errors

__all__ = [
    "ACCESS_TYPES", "AUDIT_TYPES", "DECISION_TYPES", "FIELDS", "AuditFact", "AuditFilter", "Cursor", "format_cursor",
    "parse_cursor", "read_audit",
]

# Sign-ins, roles, keys, tokens. `target_user_id` of these facts is the user whose session, role or tokens it was.
ACCESS_TYPES = (
    "session.opened", "session.ended", "role.changed", "tokens.revoked", "link.created", "key.created", "key.revoked",
)
# Who decided, and what became of it.
DECISION_TYPES = (
    "vote.cast", "decision.made", "decision.taken_back", "decision.expired", "decision.sending", "decision.delivered",
    "decision.applied", "decision.refused", "decision.undeliverable", "decision.unconfirmed",
)
AUDIT_TYPES = ACCESS_TYPES + DECISION_TYPES

# Columns of `activity` that a fact of the audit trail has, in the order of the export.
FIELDS = (
    "occurred_at", "accepted_at", "workspace_id", "type", "actor", "role", "target_user_id", "target_role", "subject",
    "title", "reason", "item_id", "kind", "decision_id", "option", "does", "viewed", "is_stale", "event_id",
)
_TIMES = ("occurred_at", "accepted_at")

CHUNK = 2000  # rows of one query: a few MB at most; one chunk of each partition is in memory
_PLACE = re.compile(r"(\d{1,5}):(\d{1,20})\.(\d{1,10})", re.ASCII)

_PARTITIONS = """
SELECT log_partition, min(position), max(position), count() FROM $activity
WHERE $condition GROUP BY log_partition ORDER BY log_partition
"""
_FACTS = """
SELECT position, fact_index, $columns FROM $activity
WHERE $condition AND log_partition = {partition:UInt16} AND position >= {low:UInt64} AND position < {high:UInt64}
  AND (position > {low:UInt64} OR fact_index > {index:Int64})
ORDER BY position, fact_index LIMIT {chunk:UInt32}
"""
_SELECTED = ", ".join(f"toUnixTimestamp64Micro({name})" if name in _TIMES else name for name in FIELDS)

# Partition -> position and index of the last fact that was read.
Cursor = Mapping[int, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Facts to read. `since` (inclusive) and `until` (exclusive) limit `occurred_at`, in microseconds. `user`: what the
    user did, and what was done to the user's sessions, roles and tokens. None: no limit."""

    workspace: str | None = None
    since: int | None = None
    until: int | None = None
    user: str | None = None
    types: tuple[str, ...] = AUDIT_TYPES

    @property
    def condition(self) -> str:
        """The condition of a query, with the parameters of `parameters`."""
        parts = ["type IN {types:Array(String)}"]
        if self.workspace is not None:
            parts.append("workspace_id = {workspace:String}")
        if self.since is not None:
            parts.append("occurred_at >= fromUnixTimestamp64Micro({since:Int64}, 'UTC')")
        if self.until is not None:
            parts.append("occurred_at < fromUnixTimestamp64Micro({until:Int64}, 'UTC')")
        if self.user is not None:
            concerned = "target_user_id = {user:String} AND type IN {access:Array(String)}"
            parts.append(f"(actor = {{user:String}} OR ({concerned}))")
        return " AND ".join(parts)

    @property
    def parameters(self) -> dict[str, Any]:
        given = {"workspace": self.workspace, "since": self.since, "until": self.until, "user": self.user}
        return {name: value for name, value in given.items() if value is not None} | {
            "types": list(self.types), "access": list(ACCESS_TYPES)}


class AuditFact(NamedTuple):
    """One fact. `values`: those of FIELDS, with times in microseconds."""

    partition: int
    position: int
    fact_index: int
    values: tuple[Any, ...]

    @property
    def accepted_at(self) -> int:
        return int(self.values[1])


def format_cursor(cursor: Cursor) -> str:
    """Returns a cursor as text, such as `0:1042.0,3:77.2`."""
    return ",".join(f"{partition}:{position}.{index}" for partition, (position, index) in sorted(cursor.items()))


def parse_cursor(text: str) -> dict[int, tuple[int, int]]:
    """Returns the cursor of a text that `format_cursor` made. Raises ValueError for any other text."""
    cursor: dict[int, tuple[int, int]] = {}
    for part in text.split(","):
        match = _PLACE.fullmatch(part)
        numbers = [int(number) for number in match.groups()] if match is not None else []
        if not numbers or numbers[0] in cursor or any(
            number >= limit for number, limit in zip(numbers, (1 << 16, 1 << 63, 1 << 32), strict=True)
        ):
            raise ValueError(f"{part[:40]!r} is not a place in the log such as 3:1042.0")
        cursor[numbers[0]] = (numbers[1], numbers[2])
    return cursor


def read_audit(client: Any, database: str, chosen: AuditFilter, after: Cursor | None = None) -> Iterator[AuditFact]:
    """Yields the facts after the cursor, those of one partition in the order of the log, those of several merged by
    `accepted_at`. Facts that arrive after the first query are not read. Raises ClickHouseUnavailable."""
    table = f"`{database}`.activity"
    query = _PARTITIONS.replace("$activity", table).replace("$condition", chosen.condition)
    with translate_errors():
        partitions = client.query(query, parameters=chosen.parameters).result_rows
    readers = []
    for partition, first, last, count in partitions:
        start = max((first, -1), (after or {}).get(partition, (0, -1)))
        width = max(1, (last - first + 1) * CHUNK // count)  # positions that have about one chunk of facts
        readers.append(_read_partition(client, table, chosen, partition, start, last, width))
    return heapq.merge(*readers, key=lambda fact: fact.accepted_at)


def _read_partition(
    client: Any, table: str, chosen: AuditFilter, partition: int, start: tuple[int, int], last: int, width: int,
) -> Iterator[AuditFact]:
    """Yields the facts of a partition after the place `start`, up to the position `last`. Each query reads `width`
    positions, so that the index of positions limits what ClickHouse scans."""
    query = _FACTS.replace("$activity", table).replace("$columns", _SELECTED).replace("$condition", chosen.condition)
    low, index = start
    while low <= last:
        high = min(low + width, last + 1)
        given = {"partition": partition, "low": low, "high": high, "index": index, "chunk": CHUNK}
        with translate_errors():
            rows = client.query(query, parameters=chosen.parameters | given).result_rows
        for position, fact_index, *values in rows:
            yield AuditFact(partition, position, fact_index, tuple(values))
        if len(rows) == CHUNK:
            width = max(1, rows[-1][0] - low)
            low, index = rows[-1][:2]
        else:
            low, index = high, -1
            width *= 16 if not rows else 2 if len(rows) < CHUNK // 2 else 1
