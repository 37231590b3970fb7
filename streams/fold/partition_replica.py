"""Replica of one partition of attn.views in a `RowStore`: complete batches whose position is ahead (law 3).

The owner of a partition loads the partition with it, and a worker that does not own the partition follows it
(`streams.fold.standby`). Both apply one set of rules, so a takeover reads only the records that the follower has not
read yet.
"""

from __future__ import annotations

import logging
import time

from schemas.topics import VIEWS
from schemas.views import ROW_TYPES, PositionRow, decode_row, fence_key, position_key
from streams.consumer.chunks import Records
from streams.fold.row_store import Rows, RowStore

__all__ = ["PartitionReplica", "decode_position"]

log = logging.getLogger(__name__)

# Kafka removes the deletion of a key from a compacted topic a day after it (delete.retention.ms). A replica that was
# not read for so long may miss deletions and begins again.
_MAX_AGE_SECONDS = 6 * 3600.0


def decode_position(raw: bytes | None) -> PositionRow | None:
    """Returns the decoded position row, or None if there is none."""
    row = None if raw is None else decode_row(b"~:", raw)
    assert row is None or isinstance(row, PositionRow)
    return row


def _position(raw: bytes | None) -> int:
    """Returns the position of a position row; -1 if there is none."""
    row = decode_position(raw)
    return -1 if row is None else row.position


class PartitionReplica:
    """Applies the records of one partition to the store, in the order of their offsets.

    `next_offset`: the next offset to read. `stale_keys`: keys whose newest record is stale. Stale are the rows of a
    batch whose position is not ahead (a worker wrote once more after it had lost the partition), and rows without a
    position before the fence of this worker (a worker died between two batches of a large pack). Compaction would keep
    stale records until the key is written again.
    """

    def __init__(self, store: RowStore, partition: int) -> None:
        self.next_offset = 0
        self.stale_keys: set[bytes] = set()
        self.records_read = 0
        self._store = store
        self._partition = partition
        self._position_key, self._fence_key = position_key(partition), fence_key(partition)
        self._batch = Rows()  # rows whose position was not read yet
        self._position: int | None = None  # of the stored rows; None: decode it from them
        self._current_at = time.time()

    @property
    def outdated(self) -> bool:
        """Whether the replica was not current for so long that it may miss deletions."""
        return time.time() - self._current_at > _MAX_AGE_SECONDS

    def mark_current(self) -> None:
        """Notes that every record of the partition was read up to now."""
        self._current_at = time.time()

    def read(self, records: Records) -> None:
        """Applies records. Ignores those before `next_offset`."""
        if records and records[0].offset < self.next_offset:
            records = [record for record in records if record.offset >= self.next_offset]
        position_row, fence_row, batch = self._position_key, self._fence_key, self._batch
        for record in records:
            key = record.key
            if key is None or key[:2] not in ROW_TYPES:
                log.warning(
                    "%s/%d: the record at offset %d is not a row; ignored", VIEWS, self._partition, record.offset)
            elif key != fence_row:
                # Rows before the fence of another owner belong to the next position: compaction may have removed
                # their own. That owner has repaired the rows of a torn batch before its first position.
                batch.append((key, record.value))
                if key == position_row:
                    self._end_batch(record.offset)
                    batch = self._batch
        if records:
            self.next_offset = records[-1].offset + 1
            self.records_read += len(records)

    def read_fence(self, offset: int) -> None:
        """Notes that everything before the fence at `offset` was read. No earlier owner writes after it."""
        self._discard_batch()
        self._store.put(self._partition, [], offset)
        self.next_offset = offset + 1
        self.mark_current()

    def write(self, rows: Rows, offset: int) -> None:
        """Applies a batch that this worker, the owner, has written. `offset`: that of its last row, the position."""
        self._put(rows, offset)
        self._position = None
        self.next_offset = offset + 1
        self.mark_current()

    def _end_batch(self, offset: int) -> None:
        batch, self._batch = self._batch, Rows()
        position = _position(batch[-1][1])
        if self._position is None:
            self._position = _position(self._store.rows(self._partition).get(self._position_key))
        if position > self._position:
            self._put(batch, offset)
            self._position = position
        else:
            self.stale_keys.update(key for key, _ in batch)

    def _put(self, rows: Rows, offset: int) -> None:
        self._store.put(self._partition, rows, offset)
        if self.stale_keys:
            self.stale_keys.difference_update(key for key, _ in rows)

    def _discard_batch(self) -> None:
        self.stale_keys.update(key for key, _ in self._batch)
        self._batch = Rows()
