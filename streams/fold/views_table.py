"""The table `ViewsTable`, whose changelog is the public topic attn.views (DESIGN: Topics, law 3).

Faust's tables send one record a change and don't wait for it. Here a group of packs is one record batch, rows first and
the partition's position last, through the producer of its claim, acknowledged before the table changes. And Faust's
recovery costs 70 µs a row: a partition is loaded in bulk, by whoever folds it, and Faust is told that nothing is left.
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
    """Where the rows of owned partitions are kept. A persistent one keeps rows and offset in one atomic write."""

    def rows(self, partition: int) -> Mapping[bytes, bytes]: ...

    def offset(self, partition: int) -> int | None:
        """The offset in attn.views up to which (included) it was read or written; None: nothing was."""

    def put(self, partition: int, rows: Rows, offset: int) -> None: ...

    def drop(self, partition: int) -> None: ...

    def partitions(self) -> set[int]: ...


class InMemoryRowStore:
    """A dict a partition; recovery reads attn.views."""

    def __init__(self) -> None:
        self._rows: dict[int, dict[bytes, bytes]] = {}
        self._offsets: dict[int, int] = {}

    def rows(self, partition: int) -> Mapping[bytes, bytes]:
        return self._rows.setdefault(partition, {})

    def offset(self, partition: int) -> int | None:
        return self._offsets.get(partition)

    def put(self, partition: int, rows: Rows, offset: int) -> None:
        store = self._rows.setdefault(partition, {})
        apply_changes(store, rows)
        self._offsets[partition] = offset

    def drop(self, partition: int) -> None:
        self._rows.pop(partition, None)
        self._offsets.pop(partition, None)

    def partitions(self) -> set[int]:
        return set(self._rows)


class UnexpectedWrite(Exception):
    """Rows of somebody else between ours, though the partition is claimed: not a worker of attn, or a broker that
    forgot who claimed it. The worker stops; `load` tells right from wrong."""


def _decoded(raw: bytes | None) -> PositionRow | None:
    row = None if raw is None else decode_row(b"~:", raw)
    assert row is None or isinstance(row, PositionRow)
    return row


def _position(raw: bytes | None) -> int:
    """Where a position row stands; -1 without one."""
    row = _decoded(raw)
    return -1 if row is None else row.position


class ViewsTable(Table):  # type: ignore[misc]
    """`write` and `load` are what the fold uses; the rest answers Faust."""

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

    async def write(self, writer: FencedProducer, rows: Rows) -> None:
        """Make rows durable, the position row last, then change the table.

        Any exception, FencedError and UnexpectedWrite included: the caller must not continue.
        """
        partition = writer.partition
        offset = await writer.write(VIEWS, rows)
        store = self.store.offset(partition)
        if store is not None and offset - len(rows) != store:
            raise UnexpectedWrite(
                f"{VIEWS}/{partition}: offsets {store + 1} to {offset - len(rows)} were written by somebody else"
            )
        self.store.put(partition, rows, offset)

    async def load(self, writer: FencedProducer) -> tuple[Mapping[bytes, bytes], bool]:
        """The partition's rows as they are durable: read in bulk, only the tail where some are held already. And
        whether that brought anything: if not, nobody else has written since.

        Left out are batches whose position lies behind (a worker that had lost the partition wrote once more) and rows
        without a position (a worker died between the batches of one large pack). Compaction would keep those rows, so
        the right ones are written again.
        """
        tp = TP(VIEWS, writer.partition)
        end = writer.offset
        store = self.store.offset(tp.partition)
        fresh = store is None or store > end
        if store is None or fresh:
            self.store.drop(tp.partition)
            store = -1  # what the topic no longer has is passed over
        last, rows = position_key(tp.partition), self.store.rows(tp.partition)
        before = rows.get(last)
        wrong = await self._read_rows(tp, store + 1, end) if store + 1 < end else set()
        self.store.put(tp.partition, [], end)  # the claim itself
        if wrong:
            log.error("%s/%d: %d rows had been written out of turn; the right ones are written again", *tp, len(wrong))
            await self.write(writer, self._repair_batch(tp.partition, wrong - {last}))
        return rows, fresh or rows.get(last) is not before

    def _repair_batch(self, partition: int, wrong: Iterable[bytes]) -> Rows:
        """The right rows as a batch of its own: the same state under the next position, so every reader takes it."""
        last, rows = position_key(partition), self.store.rows(partition)
        position = _decoded(rows.get(last)) or PositionRow(next=0)
        position.shift += 1
        return [*((key, rows.get(key)) for key in wrong), (last, encode_row(position))]

    async def _read_rows(self, tp: TP, start: int, end: int) -> set[bytes]:
        """Reads a range into the table. The keys of rows that were left out."""
        key_of_last, key_of_fence = position_key(tp.partition), fence_key(tp.partition)
        waiting, wrong = Rows(), set[bytes]()
        at = _position(self.store.rows(tp.partition).get(key_of_last))
        async for run in self._read(tp, start, end):
            for record in run:
                if record.key is None or record.key[:2] not in ROW_TYPES:
                    log.warning("%s/%d: the record at offset %d is not a row; ignored", *tp, record.offset)
                    continue
                if record.key != key_of_fence:
                    waiting.append((record.key, record.value))
                if record.key == key_of_last:
                    if (position := _position(record.value)) > at:
                        self.store.put(tp.partition, waiting, record.offset)
                        at = position
                    else:
                        wrong.update(key for key, _ in waiting)
                    waiting = Rows()
        wrong.update(key for key, _ in waiting)
        return wrong

    def retain(self, partitions: set[int]) -> None:
        """Forget the rows of all other partitions."""
        for partition in self.store.partitions() - partitions:
            self.store.drop(partition)

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        mine = [tp for tp in assigned if tp.topic == VIEWS]
        self._ends = dict(await self._group.end_offsets(mine)) if mine else {}

    def persisted_offset(self, tp: TP) -> int | None:
        """As if all were held: there is nothing for Faust to recover, `load` does it."""
        end = self._ends.get(tp)
        return None if end is None else end - 1


class _ReadOnlyStore(Store[bytes, bytes]):  # type: ignore[misc]
    """What Faust sees as the table's store: all held rows, to look at."""

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
        raise TypeError("rows are written by ViewsTable.write, with their position")

    __delitem__ = __setitem__

    def apply_changelog_batch(self, batch: Iterable[EventT], to_key: Any = None, to_value: Any = None) -> None:
        """Rows another worker wrote after our look at the end: `load` looks again, later."""

    def reset_state(self) -> None: ...

    async def backup_partition(self, tp: Any, flush: bool = True, purge: bool = False, keep: int = 1) -> None:
        raise NotImplementedError

    def restore_backup(self, tp: Any, latest: bool = True, backup_id: int = 0) -> None:
        raise NotImplementedError
