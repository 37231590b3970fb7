"""Reads the rows of one partition from the records of `attn.views`, batch by batch. Pure."""

from __future__ import annotations

from schemas.views import ROW_TYPES, PositionRow, apply_changes, decode_row, fence_key, position_key

__all__ = ["PartitionView"]


class PartitionView:
    """`rows` without the position row, at `position` (None: the topic has no view). `changed` collects changed keys.

    `stale_keys`: keys whose last record is not the valid row. The record belongs to a batch whose position is not ahead
    (its writer had lost the partition) or to a batch without a position row. Compaction would keep such records.
    """

    def __init__(self, partition: int) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.position: PositionRow | None = None
        self.stale_keys: set[bytes] = set()
        self.changed: set[bytes] = set()
        self._last, self._fence = position_key(partition), fence_key(partition)
        self._batch: list[tuple[bytes, bytes | None]] = []

    def add(self, key: bytes | None, value: bytes | None) -> None:
        """Adds one record. Raises UnsupportedVersion if a newer attn wrote the position row."""
        if key is None or key[:2] not in ROW_TYPES or key == self._fence:
            return
        if key != self._last:
            self._batch.append((key, value))
        elif value is not None:
            position = decode_row(key, value)
            assert isinstance(position, PositionRow)
            self._end_batch(position)

    def discard_incomplete_batch(self) -> None:
        """Treats the rows of a batch without a position row as stale: its writer is fenced and cannot finish it."""
        self.stale_keys.update(key for key, _ in self._batch)
        self._batch = []

    def _end_batch(self, position: PositionRow) -> None:
        waiting, self._batch = self._batch, []
        keys = {key for key, _ in waiting}
        if self.position is not None and position.position <= self.position.position:
            self.stale_keys |= keys
            return
        apply_changes(self.rows, waiting)
        self.position = position
        self.stale_keys -= keys
        self.changed |= keys
