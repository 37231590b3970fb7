"""How a replica begins: the rows of `attn.views` so far, and its last batches as batches, so that feeds from before a
restart resume. Pure.

Compaction takes an older record of a key once a newer one is old enough, so what is read does not add up to a state
until everything younger than that is all that is left to read. Hence: records older than `horizon` make up the state to
begin with, and only later ones are batches.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from api.workspace import PREFIXES
from schemas.views import PositionRow, decode

__all__ = ["Assembler", "Batch", "Loading"]

_Rows = list[tuple[bytes, bytes | None]]
_OVERHEAD = 150  # bytes of Python around a record that waits
_POSITION = b"~:"


class Batch(NamedTuple):
    """Rows and the position they lead to; `at` is the timestamp of the first record, milliseconds."""

    at: int
    partition: int
    rows: _Rows
    position: PositionRow
    size: int


class Assembler:
    """Records of one partition -> batches. A batch is whole once its position row has come."""

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._rows: _Rows = []
        self._size = 0
        self._at: int | None = None

    def add(self, key: bytes, value: bytes | None, at: int) -> Batch | None:
        if key[:2] == _POSITION:
            if value is None:
                return None
            position = decode(key, value)
            assert isinstance(position, PositionRow)
            batch = Batch(self._at or at, self._partition, self._rows, position, self._size)
            self._rows, self._size, self._at = [], 0, None
            return batch
        self._at = at if self._at is None else self._at
        if key[:2] in PREFIXES:
            self._rows.append((key, value))
            self._size += len(key) + len(value or b"") + _OVERHEAD
        return None


@dataclass
class _Part:
    rows: dict[bytes, bytes] = field(default_factory=dict)
    position: PositionRow = field(default_factory=lambda: PositionRow(next=0))


class Loading:
    """Takes batches of all partitions in any interleaving, each partition's in order.

    `room` is how many bytes of batches are kept as batches, the latest; `horizon` (milliseconds) how old they may be.
    """

    def __init__(self, room: int, horizon: int) -> None:
        self._room, self._horizon = room, horizon
        self._parts: dict[int, _Part] = {}
        self._recent: dict[int, deque[Batch]] = {}
        self._held = 0

    def add(self, batch: Batch) -> None:
        recent = self._recent.setdefault(batch.partition, deque())
        if not recent and batch.at < self._horizon:
            self._settle(batch)
            return
        recent.append(batch)
        self._held += batch.size
        while self._held > self._room:
            self._settle_oldest()

    def finish(self, horizon: int) -> tuple[dict[int, tuple[dict[bytes, bytes], PositionRow]], Iterator[Batch]]:
        """State by partition, and the batches that lead on from it, oldest first. `horizon` as it is now."""
        for recent in self._recent.values():
            while recent and recent[0].at < horizon:
                self._take(recent)
        state = {number: (part.rows, part.position) for number, part in self._parts.items()}
        return state, heapq.merge(*self._recent.values(), key=lambda batch: batch.at)

    def _settle_oldest(self) -> None:
        self._take(min((recent for recent in self._recent.values() if recent), key=lambda recent: recent[0].at))

    def _take(self, recent: deque[Batch]) -> None:
        batch = recent.popleft()
        self._held -= batch.size
        self._settle(batch)

    def _settle(self, batch: Batch) -> None:
        part = self._parts.setdefault(batch.partition, _Part())
        for key, value in batch.rows:
            if value is None:
                part.rows.pop(key, None)
            else:
                part.rows[key] = value
        part.position = batch.position
