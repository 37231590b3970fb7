"""Assembles the first state of a replica: the rows of `attn.views`, and its latest batches for feeds that resume. Pure.

Compaction removes an older record of a key once the newer record is old enough. Batches that are older than that may
therefore be incomplete, and only their sum is a state. Records older than `horizon` become the base state; later
records become batches.

A worker that lost its partition may have written one more batch, whose position is not ahead. Another worker may have
died in the middle of a batch: rows without a position. The next owner writes the correct rows again, in a batch with a
position of its own. Therefore a recent batch that is not ahead is dropped. In old records the end of a batch is not
known any more: there the last row of a key counts, and the state is uncertain until the owner has written again.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from api.readmodel.access.sessions import ACCESS_PREFIXES
from api.readmodel.workspace import PREFIXES
from schemas.views import PositionRow, apply_changes, decode_row

__all__ = ["KEPT_PREFIXES", "UNSERVED_PREFIXES", "BatchAssembler", "InitialState", "ViewBatch"]

_Rows = list[tuple[bytes, bytes | None]]
_OVERHEAD = 150  # bytes that Python adds to a buffered record
_POSITION = b"~:"

# An edge keeps the rows of access of every partition (`Replica.load_steps`), and all others of those that it serves.
KEPT_PREFIXES = PREFIXES | ACCESS_PREFIXES
UNSERVED_PREFIXES = ACCESS_PREFIXES | {b"x:"}


class ViewBatch(NamedTuple):
    """Rows of one batch and the position after it. `timestamp`: milliseconds, of the first record."""

    timestamp: int
    partition: int
    rows: _Rows
    position: PositionRow
    size: int


class BatchAssembler:
    """Assembles the records of one partition into batches. The position row ends a batch."""

    def __init__(self, partition: int, kept: frozenset[bytes] = KEPT_PREFIXES) -> None:
        """`kept`: prefixes of the keys of the rows that the edge keeps."""
        self._partition, self._kept = partition, kept
        self._rows: _Rows = []
        self._size = 0
        self._at: int | None = None

    def add(self, key: bytes, value: bytes | None, at: int) -> ViewBatch | None:
        """Adds one record. Returns the batch if the record ends one."""
        if key[:2] == _POSITION:
            if value is None:
                return None
            position = decode_row(key, value)
            assert isinstance(position, PositionRow)
            batch = ViewBatch(at if self._at is None else self._at, self._partition, self._rows, position, self._size)
            self._rows, self._size, self._at = [], 0, None
            return batch
        if key[:2] in self._kept:
            self._at = at if self._at is None else self._at
            self._rows.append((key, value))
            self._size += len(key) + len(value or b"") + _OVERHEAD
        return None

    def has_unfinished_batch_before(self, horizon: int) -> bool:
        """Returns whether buffered rows without a position are older than `horizon`, in milliseconds."""
        return self._at is not None and self._at < horizon


@dataclass
class _PartitionState:
    rows: dict[bytes, bytes] = field(default_factory=dict)
    position: PositionRow = field(default_factory=lambda: PositionRow(next=0))
    uncertain: bool = False


class InitialState:
    """Base state and latest batches of all partitions. Batches arrive in order within each partition.

    `room`: bytes of the latest batches that are kept as batches. `horizon`: timestamp in milliseconds; older batches
    become part of the base state.
    """

    def __init__(self, room: int, horizon: int) -> None:
        self._max_bytes, self._horizon = room, horizon
        self._states: dict[int, _PartitionState] = {}
        self._recent: dict[int, deque[ViewBatch]] = {}
        self._recent_bytes = 0

    def add(self, batch: ViewBatch) -> None:
        recent = self._recent.setdefault(batch.partition, deque())
        if not recent and batch.timestamp < self._horizon:
            self._apply(batch)
            return
        recent.append(batch)
        self._recent_bytes += batch.size
        while self._recent_bytes > self._max_bytes:
            self._apply_oldest()

    def advance_horizon(self, horizon: int) -> set[int]:
        """Moves batches older than the new horizon into the base state.

        Returns the partitions whose state is uncertain: they need the records that their next owner writes.
        """
        self._horizon = horizon
        for number, recent in self._recent.items():
            while recent and (recent[0].timestamp < horizon or not self._follows_state(number, recent[0])):
                self._apply_first(recent)
        return {number for number, part in self._states.items() if part.uncertain}

    def finish(self) -> tuple[dict[int, tuple[dict[bytes, bytes], PositionRow]], Iterator[ViewBatch]]:
        """Returns the base state by partition, and the batches after it, the oldest first.

        Call `advance_horizon` before.
        """
        state = {number: (part.rows, part.position) for number, part in self._states.items()}
        return state, heapq.merge(*self._recent.values(), key=lambda batch: batch.timestamp)

    def _follows_state(self, number: int, batch: ViewBatch) -> bool:
        part = self._states.get(number)
        return part is None or (not part.uncertain and batch.position.position > part.position.position)

    def _apply_oldest(self) -> None:
        self._apply_first(min(
            (recent for recent in self._recent.values() if recent), key=lambda recent: recent[0].timestamp))

    def _apply_first(self, recent: deque[ViewBatch]) -> None:
        batch = recent.popleft()
        self._recent_bytes -= batch.size
        self._apply(batch)

    def _apply(self, batch: ViewBatch) -> None:
        part = self._states.setdefault(batch.partition, _PartitionState())
        behind = batch.position.position < part.position.position
        if behind and batch.timestamp >= self._horizon:
            return  # no record was compacted because of this batch yet
        apply_changes(part.rows, batch.rows)
        part.uncertain = behind
        if not behind:
            part.position = batch.position
