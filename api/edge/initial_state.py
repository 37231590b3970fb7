"""How a replica begins: the rows of `attn.views` so far, and its last batches as batches, so that feeds from before a
restart resume. Pure.

Compaction takes an older record of a key once a newer one is old enough, so what is read does not add up to a state
until everything younger than that is all that is left to read. Hence: records older than `horizon` make up the state to
begin with, and only later ones are batches.

A worker that had lost its partition may have written once more (a batch whose position lies behind), and one may have
died on the way (rows that no position follows). The next owner writes the right rows again, in a batch with a position
of its own. So what is young and lies behind is left out. Of what is old nobody can tell where a batch ended, so there
the last row of a key counts, and the state is *unsure* until its owner has written again.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from api.readmodel.workspace import PREFIXES
from schemas.views import PositionRow, apply_changes, decode_row

__all__ = ["BatchAssembler", "InitialState", "ViewBatch"]

_Rows = list[tuple[bytes, bytes | None]]
_OVERHEAD = 150  # bytes of Python around a record that waits
_POSITION = b"~:"


class ViewBatch(NamedTuple):
    """Rows and the position they lead to; `at` is the timestamp of the first record, milliseconds."""

    timestamp: int
    partition: int
    rows: _Rows
    position: PositionRow
    size: int


class BatchAssembler:
    """Records of one partition -> batches. A batch is whole once its position row has come."""

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._rows: _Rows = []
        self._size = 0
        self._at: int | None = None

    def add(self, key: bytes, value: bytes | None, at: int) -> ViewBatch | None:
        """The batch that this record ends, if it ends one."""
        if key[:2] == _POSITION:
            if value is None:
                return None
            position = decode_row(key, value)
            assert isinstance(position, PositionRow)
            batch = ViewBatch(at if self._at is None else self._at, self._partition, self._rows, position, self._size)
            self._rows, self._size, self._at = [], 0, None
            return batch
        if key[:2] in PREFIXES:
            self._at = at if self._at is None else self._at
            self._rows.append((key, value))
            self._size += len(key) + len(value or b"") + _OVERHEAD
        return None

    def has_unfinished_batch_before(self, horizon: int) -> bool:
        """Whether rows wait for their position that are older than this, milliseconds."""
        return self._at is not None and self._at < horizon


@dataclass
class _PartitionState:
    rows: dict[bytes, bytes] = field(default_factory=dict)
    position: PositionRow = field(default_factory=lambda: PositionRow(next=0))
    uncertain: bool = False


class InitialState:
    """Takes batches of all partitions in any interleaving, each partition's in order.

    `room` is how many bytes of batches are kept as batches, the latest; `horizon` (milliseconds) how old they may be.
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
        """`horizon` as it is now. The partitions whose state is unsure: they need more of their records, up to what
        their next owner writes."""
        self._horizon = horizon
        for number, recent in self._recent.items():
            while recent and (recent[0].timestamp < horizon or not self._follows_state(number, recent[0])):
                self._apply_first(recent)
        return {number for number, part in self._states.items() if part.uncertain}

    def finish(self) -> tuple[dict[int, tuple[dict[bytes, bytes], PositionRow]], Iterator[ViewBatch]]:
        """After `settle`: state by partition, and the batches that lead on from it, oldest first."""
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
            return  # nothing was compacted yet because of it
        apply_changes(part.rows, batch.rows)
        part.uncertain = behind
        if not behind:
            part.position = batch.position
