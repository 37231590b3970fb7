"""Fills gaps in what Faust delivers: every record of an assigned partition is processed once, in order.

Faust 0.15 loses input. It clears its queues after it counted the records as read (recovery, rebalance, restart of an
agent), and its own seek to the committed offset overrides any other seek. The gap filler therefore does not trust the
consumer. The owner of a partition sets the start offset. Records before the next expected offset are duplicates and are
dropped. If a delivery starts after the next expected offset, a plain consumer reads the missing range. Seeking Faust's
consumer back does not help, because deliveries in flight undo the seek.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping

from faust.types import TP

from streams.consumer.chunks import RecordChunk, Records
from streams.runtime import metrics
from streams.runtime.lag import LogTruncated

__all__ = ["GapFiller"]

log = logging.getLogger(__name__)

ReadRange = Callable[[TP, int, int], AsyncIterator[Records]]
FirstOffset = Callable[[TP], Awaitable[int]]


class GapFiller:
    """`next_offsets`: for each assigned partition the offset after the last record that was delivered.

    `read(tp, start, end)` yields the records with start <= offset < end. `first_offset(tp)` returns the first offset
    of a partition. It is given for topics that may be deleted and created again: they are then read from the beginning.
    Without `first_offset` a partition that became shorter raises LogTruncated.
    """

    def __init__(self, read: ReadRange, first_offset: FirstOffset | None = None) -> None:
        self.next_offsets: dict[TP, int] = {}
        self.delivered_chunks = 0  # by Faust
        self.reread_records = 0  # read by `read` because Faust did not deliver them
        self._read = read
        self._first_offset = first_offset
        self._last_delivered: dict[TP, int] = {}  # last offset that Faust delivered
        self._committed_floor: dict[TP, int] = {}  # the committed offset; until the first commit, the start offset
        # Of the last call of `find_stalled`: the next offset of partitions with a lag; partitions that were shorter.
        self._behind_before: dict[TP, int] = {}
        self._truncated_before: set[TP] = set()

    def start_at(self, tp: TP, start: int) -> None:
        """Adds a partition, or resets it: `start` is the next offset to deliver."""
        self.next_offsets[tp] = self._committed_floor[tp] = start
        self._last_delivered.pop(tp, None)
        self._behind_before.pop(tp, None)

    def reset(self) -> None:
        """Forgets all partitions: they were revoked."""
        self.next_offsets.clear()

    def set_committed(self, offsets: Mapping[TP, int]) -> None:
        """Notes the group's committed offsets. One beyond the next offset belongs to a topic that was deleted."""
        self._committed_floor.update(
            (tp, offset) for tp, offset in offsets.items() if offset <= self.next_offsets.get(tp, -1))

    async def _was_recreated(self, tp: TP, first: int) -> bool:
        """Whether Faust delivered `first` because the topic was deleted and created again.

        After a rebalance Faust seeks to an offset that was committed shortly before, which is close to the committed
        offset of now. An offset that is closer to the partition's beginning therefore means a new topic.
        """
        floor = self._committed_floor.get(tp, 0)
        if first > self._last_delivered.get(tp, -1):
            return False  # a late delivery: its records were read again in the meantime
        return self._first_offset is not None and first < floor and first - await self._first_offset(tp) < floor - first

    def _restart(self, tp: TP, why: str) -> None:
        log.warning("%s/%d: the topic was created again (%s); reading it from the beginning", *tp, why)
        self.start_at(tp, 0)

    async def deliver(self, chunk: RecordChunk) -> AsyncGenerator[Records, None]:
        """Yields the new records of a chunk in runs, after the records missing before it, which are read from Kafka."""
        tp, records, end, _ = chunk
        first = records[0].offset if records else end
        if records:
            self.delivered_chunks += 1
            if await self._was_recreated(tp, first):
                self._restart(tp, f"offset {first} was delivered, {self.next_offsets[tp]} was next")
            self._last_delivered[tp] = records[-1].offset
        if first > self.next_offsets[tp]:
            async for run in self._read_gap(tp, first):
                yield run
        start = self.next_offsets[tp]
        if end <= start:
            return
        self.next_offsets[tp] = end
        # Offsets missing inside a chunk are missing in the log (compaction, transaction markers): a chunk is one fetch.
        yield records if records[0].offset >= start else [record for record in records if record.offset >= start]

    async def _read_gap(self, tp: TP, end: int) -> AsyncIterator[Records]:
        start, count = self.next_offsets[tp], 0
        async for run in self._read(tp, start, end):
            count += len(run)
            self.reread_records += len(run)
            self.next_offsets[tp] = run[-1].offset + 1
            yield run
        self.next_offsets[tp] = max(self.next_offsets[tp], end)
        if count:
            log.warning("%s/%d: %d records from offset %d were not delivered; read again", *tp, count, start)
            metrics.REREAD_RECORDS.labels(tp.topic).inc(count)
        else:
            log.debug("%s/%d: offsets %d to %d hold no records", *tp, start, end - 1)

    def find_stalled(self, before: Mapping[TP, int], ends: Mapping[TP, int]) -> dict[TP, int]:
        """Returns the end offsets of partitions that did not move since the last call, although they had more records
        then. This detects records lost at the end of a partition, which leave no gap.

        `before`: `next_offsets` at the time when the end offsets were requested. A partition that ends before `before`
        in two calls in a row was truncated (one call may see a new leader that lags). Such a partition is read from its
        beginning if `first_offset` was given. Raises LogTruncated otherwise.
        """
        shorter = {tp for tp, end in ends.items() if end < before.get(tp, 0)}
        truncated = shorter & self._truncated_before
        if truncated and self._first_offset is None:
            tp = min(truncated)
            raise LogTruncated(f"{tp.topic}/{tp.partition} ends at {ends[tp]}, but {before[tp]} was read")
        self._truncated_before = shorter - truncated
        for tp in truncated & self.next_offsets.keys():
            self._restart(tp, f"it ends at {ends[tp]}, {before[tp]} was next")
        stalled = {
            tp: ends[tp] for tp, offset in self.next_offsets.items()
            if tp in ends and self._behind_before.get(tp) == offset
        }
        self._behind_before = {
            tp: offset for tp, offset in self.next_offsets.items() if tp in ends and offset < ends[tp]}
        return stalled | {tp: ends[tp] for tp in truncated}
