"""Faust table `views`, whose changelog is the public topic attn.views (DESIGN: Topics, law 3).

Faust's tables send one record per change and do not wait for it. Here the rows of a group of packs are one record
batch, rows first and the partition's position last, written by the partition's fenced producer and acknowledged before
the table changes. Faust's recovery costs 70 µs per row. `load` therefore reads a partition in bulk, and the table
reports to Faust that nothing is left to recover.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import faust
from faust.stores.base import Store
from faust.tables.table import Table
from faust.types import TP, EventT

from schemas.topics import VIEWS
from schemas.views import ROW_TYPES, PositionRow, apply_changes, decode_row, encode_row, fence_key, position_key
from streams.consumer.chunks import RawSchema
from streams.consumer.gap_filler import ReadRange
from streams.consumer.group_offsets import GroupOffsets
from streams.kafka.fencing import FencedProducer

__all__ = ["InMemoryRowStore", "RowStore", "Rows", "UnexpectedWrite", "ViewsTable"]

log = logging.getLogger(__name__)

Rows = list[tuple[bytes, bytes | None]]


class RowStore(Protocol):
    """Stores the rows of the assigned partitions. A persistent store writes rows and offset atomically."""

    def rows(self, partition: int) -> Mapping[bytes, bytes]: ...

    def offset(self, partition: int) -> int | None:
        """Returns the last offset of attn.views that was read or written, or None if there is none."""

    def put(self, partition: int, rows: Rows, offset: int) -> None: ...

    def drop(self, partition: int) -> None: ...

    def partitions(self) -> set[int]: ...


class InMemoryRowStore:
    """One dict per partition. A restart reads attn.views."""

    def __init__(self) -> None:
        self._rows: dict[int, dict[bytes, bytes]] = {}
        self._offsets: dict[int, int] = {}

    def rows(self, partition: int) -> Mapping[bytes, bytes]:
        return self._rows.setdefault(partition, {})

    def offset(self, partition: int) -> int | None:
        return self._offsets.get(partition)

    def put(self, partition: int, rows: Rows, offset: int) -> None:
        apply_changes(self._rows.setdefault(partition, {}), rows)
        self._offsets[partition] = offset

    def drop(self, partition: int) -> None:
        self._rows.pop(partition, None)
        self._offsets.pop(partition, None)

    def partitions(self) -> set[int]:
        return set(self._rows)


class UnexpectedWrite(Exception):
    """attn.views has records of another writer between this worker's records, although the partition is fenced: a
    program that is not an attn worker, or a broker that lost the producer epoch. The worker stops; the next `load`
    separates valid rows from stale ones."""


def _decoded(raw: bytes | None) -> PositionRow | None:
    row = None if raw is None else decode_row(b"~:", raw)
    assert row is None or isinstance(row, PositionRow)
    return row


def _position(raw: bytes | None) -> int:
    """Returns the position of a position row; -1 if there is none."""
    row = _decoded(raw)
    return -1 if row is None else row.position


class ViewsTable(Table):  # type: ignore[misc]
    """The fold uses `load` and `commit`; the other methods implement Faust's interface."""

    mundane_level = "debug"

    def __init__(
        self, app: faust.App, partitions: int, group: GroupOffsets, read: ReadRange, store: RowStore | None = None
    ) -> None:
        changelog = app.topic(
            VIEWS, partitions=partitions, schema=RawSchema(), acks=False, compacting=True, internal=True)
        super().__init__(app, name="views", partitions=partitions, changelog_topic=changelog)
        self.store = store if store is not None else InMemoryRowStore()
        self._group = group
        self._read = read
        self._data = _ReadOnlyStore(self)
        self._ends: dict[TP, int] = {}

    def commit(self, partition: int, rows: Rows, offset: int) -> None:
        """Updates the table with rows that are durable in attn.views. `offset`: that of the last row.

        Raises UnexpectedWrite if the rows do not follow the records known before.
        """
        known = self.store.offset(partition)
        if known is not None and offset - len(rows) != known:
            raise UnexpectedWrite(
                f"{VIEWS}/{partition}: offsets {known + 1} to {offset - len(rows)} were written by another writer"
            )
        self.store.put(partition, rows, offset)

    async def load(self, writer: FencedProducer) -> tuple[Mapping[bytes, bytes], bool]:
        """Reads the partition's durable rows up to the fence; only the tail if the store has some rows already.

        Returns the rows, and whether they changed (if not, no other worker has written since). Discards stale rows:
        batches whose position is not ahead (a worker wrote once more after it had lost the partition) and rows without
        a position (a worker died between two batches of a large pack). Compaction would keep stale rows, so the valid
        rows are written again.
        """
        tp = TP(VIEWS, writer.partition)
        end = writer.offset
        known = self.store.offset(tp.partition)
        fresh = known is None or known > end
        if known is None or fresh:
            self.store.drop(tp.partition)
            known = -1  # the reader skips offsets that the topic no longer has
        position_row, rows = position_key(tp.partition), self.store.rows(tp.partition)
        before = rows.get(position_row)
        stale = await self._read_rows(tp, known + 1, end) if known + 1 < end else set()
        self.store.put(tp.partition, [], end)  # the fence record
        if stale:
            log.error("%s/%d: %d stale rows found; writing the valid rows again", *tp, len(stale))
            repair = self._repair_batch(tp.partition, stale - {position_row})
            self.commit(tp.partition, repair, await writer.write(VIEWS, repair))
        return rows, fresh or rows.get(position_row) is not before

    def _repair_batch(self, partition: int, stale: Iterable[bytes]) -> Rows:
        """Returns the valid rows of `stale` keys as a batch: the same state at the next position, so that every reader
        applies it."""
        position_row, rows = position_key(partition), self.store.rows(partition)
        position = _decoded(rows.get(position_row)) or PositionRow(next=0)
        position.shift += 1
        return [*((key, rows.get(key)) for key in stale), (position_row, encode_row(position))]

    async def _read_rows(self, tp: TP, start: int, end: int) -> set[bytes]:
        """Reads start <= offset < end into the store, batch by batch. Returns the keys of stale rows."""
        position_row, fence_row = position_key(tp.partition), fence_key(tp.partition)
        batch, stale = Rows(), set[bytes]()
        last_position = _position(self.store.rows(tp.partition).get(position_row))
        async for run in self._read(tp, start, end):
            for record in run:
                if record.key is None or record.key[:2] not in ROW_TYPES:
                    log.warning("%s/%d: the record at offset %d is not a row; ignored", *tp, record.offset)
                    continue
                if record.key != fence_row:
                    batch.append((record.key, record.value))
                if record.key == position_row:
                    if (position := _position(record.value)) > last_position:
                        self.store.put(tp.partition, batch, record.offset)
                        last_position = position
                    else:
                        stale.update(key for key, _ in batch)
                    batch = Rows()
        stale.update(key for key, _ in batch)
        return stale

    def retain(self, partitions: set[int]) -> None:
        """Drops the rows of all other partitions."""
        for partition in self.store.partitions() - partitions:
            self.store.drop(partition)

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        mine = [tp for tp in assigned if tp.topic == VIEWS]
        self._ends = dict(await self._group.end_offsets(mine)) if mine else {}

    def persisted_offset(self, tp: TP) -> int | None:
        """Returns the last offset, so that Faust recovers nothing: `load` reads the rows."""
        end = self._ends.get(tp)
        return None if end is None else end - 1


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
        """Ignores rows that another worker wrote after `on_rebalance`: `load` reads them later."""

    def reset_state(self) -> None: ...

    async def backup_partition(self, tp: Any, flush: bool = True, purge: bool = False, keep: int = 1) -> None:
        raise NotImplementedError

    def restore_backup(self, tp: Any, latest: bool = True, backup_id: int = 0) -> None:
        raise NotImplementedError
