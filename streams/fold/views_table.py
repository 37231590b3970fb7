"""Faust table `views`, whose changelog is the public topic attn.views (DESIGN: Topics, law 3).

Faust's tables send one record per change and do not wait for it. Here the rows of a group of packs are one record
batch, rows first and the partition's position last, written by the partition's fenced producer and acknowledged before
the table changes. Faust's recovery costs 70 µs per row. `load` therefore reads a partition in bulk, and
`LoadedTableManager` (streams.consumer.table_manager) leaves Faust nothing to recover.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import faust
from faust.stores.base import Store
from faust.tables.table import Table
from faust.types import TP, EventT

from schemas.topics import VIEWS
from schemas.views import PositionRow, encode_row, position_key
from streams.consumer.chunks import RawSchema
from streams.consumer.gap_filler import ReadRange
from streams.fold.partition_replica import PartitionReplica, decode_position
from streams.fold.row_store import InMemoryRowStore, Rows, RowStore
from streams.kafka.fencing import FencedProducer

__all__ = ["UnexpectedWrite", "ViewsTable"]

log = logging.getLogger(__name__)

_UNKNOWN = b"~"  # no position row


class UnexpectedWrite(Exception):
    """attn.views has records of another writer between this worker's records, although the partition is fenced: a
    program that is not an attn worker, or a broker that lost the producer epoch. The worker stops; the next `load`
    separates valid rows from stale ones."""


class ViewsTable(Table):  # type: ignore[misc]
    """The fold uses `load` and `commit`; the other methods implement Faust's interface."""

    mundane_level = "debug"

    def __init__(self, app: faust.App, partitions: int, read: ReadRange, store: RowStore | None = None) -> None:
        changelog = app.topic(
            VIEWS, partitions=partitions, schema=RawSchema(), acks=False, compacting=True, internal=True)
        super().__init__(app, name="views", partitions=partitions, changelog_topic=changelog)
        self.store = store if store is not None else InMemoryRowStore()
        self._read = read
        self._data = _ReadOnlyStore(self)
        self._replicas: dict[int, PartitionReplica] = {}
        # The position row at the last write or load of this worker, while it owned the partition.
        self._own_positions: dict[int, bytes | None] = {}

    def replica(self, partition: int) -> PartitionReplica:
        """Returns the replica of a partition; an empty one if the rows have to be read from the beginning."""
        replica = self._replicas.get(partition)
        if replica is None or replica.outdated:
            self.drop(partition)
            replica = self._replicas[partition] = PartitionReplica(self.store, partition)
        return replica

    def commit(self, partition: int, rows: Rows, offset: int) -> None:
        """Updates the table with rows that are durable in attn.views. `offset`: that of the last row, the position.

        Raises UnexpectedWrite if the rows do not follow the records known before.
        """
        known = self.store.offset(partition)
        if known is not None and offset - len(rows) != known:
            raise UnexpectedWrite(
                f"{VIEWS}/{partition}: offsets {known + 1} to {offset - len(rows)} were written by another writer"
            )
        self._replicas[partition].write(rows, offset)
        self._own_positions[partition] = rows[-1][1]

    async def load(self, writer: FencedProducer) -> tuple[Mapping[bytes, bytes], bool]:
        """Reads the partition's durable rows up to the fence; only the tail if the replica has some rows already.

        Returns the rows, and whether they changed (if not, no other worker has written since this worker owned the
        partition). The valid rows of stale keys are written again, because compaction would keep the stale ones.
        """
        tp, end = TP(VIEWS, writer.partition), writer.offset
        replica = self.replica(tp.partition)
        if replica.next_offset > end + 1:  # the topic became shorter
            self.drop(tp.partition)
            replica = self.replica(tp.partition)
        before, read_before = self._own_positions.pop(tp.partition, _UNKNOWN), replica.records_read
        if replica.next_offset < end:  # the reader skips offsets that the topic no longer has
            async for run in self._read(tp, replica.next_offset, end):
                replica.read(run)
        replica.read_fence(end)
        rows = self.store.rows(tp.partition)
        log.info("%s/%d: %d rows loaded, %d records read", *tp, len(rows), replica.records_read - read_before)
        changed = rows.get(position_key(tp.partition)) is not before
        if replica.stale_keys:
            log.error("%s/%d: %d stale rows found; writing the valid rows again", *tp, len(replica.stale_keys))
            repair = self._repair_batch(tp.partition, replica.stale_keys - {position_key(tp.partition)})
            self.commit(tp.partition, repair, await writer.write(VIEWS, repair))
            changed = True
        self._own_positions[tp.partition] = rows.get(position_key(tp.partition))
        return rows, changed

    def _repair_batch(self, partition: int, stale: Iterable[bytes]) -> Rows:
        """Returns the valid rows of `stale` keys as a batch: the same state at the next position, so that every reader
        applies it."""
        position_row, rows = position_key(partition), self.store.rows(partition)
        position = decode_position(rows.get(position_row)) or PositionRow(next=0)
        position.shift += 1
        return [*((key, rows.get(key)) for key in stale), (position_row, encode_row(position))]

    def retain(self, partitions: set[int]) -> None:
        """Drops the rows of all other partitions."""
        for partition in (self.store.partitions() | self._replicas.keys()) - partitions:
            self.drop(partition)

    def drop(self, partition: int) -> None:
        """Drops the rows of a partition, and what is known about its records."""
        self.store.drop(partition)
        self._replicas.pop(partition, None)
        self._own_positions.pop(partition, None)

    def persisted_offset(self, tp: TP) -> None:
        """Nothing is persisted on disk, and Faust's recovery does not run."""
        return


class _ReadOnlyStore(Store[bytes, bytes]):  # type: ignore[misc]
    """The table's store as Faust sees it: read-only access to the rows of all partitions."""

    mundane_level = "debug"

    def __init__(self, views: ViewsTable) -> None:
        super().__init__("memory://", views.app, views)
        self._views = views

    def _maps(self) -> Iterator[Mapping[bytes, bytes]]:
        return (self._views.store.rows(partition) for partition in sorted(self._views.store.partitions()))

    def __getitem__(self, key: bytes) -> bytes:
        for rows in self._maps():
            if key in rows:
                return rows[key]
        raise KeyError(key)

    def __iter__(self) -> Iterator[bytes]:
        return (key for rows in self._maps() for key in rows)

    def __len__(self) -> int:
        return sum(map(len, self._maps()))

    def __setitem__(self, key: bytes, value: bytes) -> None:
        raise TypeError("rows are written by PartitionProcessor, with their position")

    __delitem__ = __setitem__

    def apply_changelog_batch(self, batch: Iterable[EventT], to_key: Any = None, to_value: Any = None) -> None:
        """Not called: Faust has nothing to recover."""
        raise NotImplementedError

    def reset_state(self) -> None: ...

    async def backup_partition(self, tp: Any, flush: bool = True, purge: bool = False, keep: int = 1) -> None:
        raise NotImplementedError

    def restore_backup(self, tp: Any, latest: bool = True, backup_id: int = 0) -> None:
        raise NotImplementedError
