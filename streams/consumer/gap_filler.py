"""Makes what Faust delivers continuous: every record of an owned partition once, in order.

Faust 0.15 skips input: its queues are cleared after records were counted as read (recovery, rebalance, an agent that
restarts), and its own seek to the committed offset overwrites any other. So nothing here trusts the consumer. Who owns
a partition says where it begins; what is delivered before that is a repeat; where it goes on too far, the missing range
is read with a plain consumer. Seeking Faust's consumer back instead is no cure: deliveries on their way undo the seek.
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
    """`next_offsets` is, for each owned partition, the offset after the last record handed on. `read` gives
    records of a range:
    partition, start, end (excluded). `first_offset` gives the first offset of a partition whose topic may be
    deleted and created again: it is read from its beginning then. Without `first_offset` that raises LogTruncated."""

    def __init__(self, read: ReadRange, first_offset: FirstOffset | None = None) -> None:
        self.next_offsets: dict[TP, int] = {}
        self.delivered_chunks = 0  # portions that came from Faust, not by reading again
        self.reread_records = 0  # records that did not
        self._read = read
        self._first_offset = first_offset
        self._last_delivered: dict[TP, int] = {}  # delivered by Faust
        self._committed_floor: dict[TP, int] = {}  # what the group has committed; before it, the start
        self._behind_before: dict[TP, int] = {}  # `next_offsets` of those that were behind at the last look
        self._truncated_before: set[TP] = set()

    def start_at(self, tp: TP, start: int) -> None:
        self.next_offsets[tp] = self._committed_floor[tp] = start
        self._last_delivered.pop(tp, None)
        self._behind_before.pop(tp, None)

    def reset(self) -> None:
        """Forgets all partitions: they were revoked."""
        self.next_offsets.clear()

    def set_committed(self, offsets: Mapping[TP, int]) -> None:
        """The group has committed these offsets. Those beyond `next_offsets` are of a topic that is no more."""
        self._committed_floor.update(
            (tp, offset) for tp, offset in offsets.items() if offset <= self.next_offsets.get(tp, -1))

    async def _was_recreated(self, tp: TP, first: int) -> bool:
        """Whether `first` was delivered because the partition begins anew. Faust seeks to what the group had committed
        a moment ago, which is as near to what it has committed now as that moment was short."""
        floor = self._committed_floor.get(tp, 0)
        if first > self._last_delivered.get(tp, -1):
            return False  # Faust goes on: it was late, and was read again meanwhile
        return self._first_offset is not None and first < floor and first - await self._first_offset(tp) < floor - first

    def _restart(self, tp: TP, why: str) -> None:
        log.warning("%s/%d was created again (%s): it is read from its beginning", *tp, why)
        self.start_at(tp, 0)

    async def deliver(self, chunk: RecordChunk) -> AsyncGenerator[Records, None]:
        """The records of a portion that are news, with what is missing before them, in runs."""
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
        # Holes inside are the log's own (compaction, markers): one fetch brought these records, without Faust.
        yield records if records[0].offset >= start else [record for record in records if record.offset >= start]

    async def _read_gap(self, tp: TP, end: int) -> AsyncIterator[Records]:
        start, found = self.next_offsets[tp], 0
        async for run in self._read(tp, start, end):
            found += len(run)
            self.reread_records += len(run)
            self.next_offsets[tp] = run[-1].offset + 1
            yield run
        self.next_offsets[tp] = max(self.next_offsets[tp], end)
        if found:
            log.warning("%s/%d: %d records from offset %d on were not delivered; read again", *tp, found, start)
            metrics.REREAD_RECORDS.labels(tp.topic).inc(found)
        else:
            log.debug("%s/%d: offsets %d to %d hold no records", *tp, start, end - 1)

    def find_stalled(self, before: Mapping[TP, int], ends: Mapping[TP, int]) -> dict[TP, int]:
        """Partition -> end, where nothing moved since the last look though there was more to read already then: a
        swallowed tail shows no gap. `before` is what `next_offsets` was when the ends were asked for.

        LogTruncated: a partition ends before `before`, twice in a row (a new leader may lag for a moment). A partition
        whose topic may be created again is read from its beginning then.
        """
        back = {tp for tp, end in ends.items() if end < before.get(tp, 0)}
        twice = back & self._truncated_before
        if twice and self._first_offset is None:
            tp = min(twice)
            raise LogTruncated(f"{tp.topic}/{tp.partition} ends at {ends[tp]}, but {before[tp]} was read")
        self._truncated_before = back - twice
        for tp in twice & self.next_offsets.keys():
            self._restart(tp, f"it ends at {ends[tp]}, {before[tp]} was next")
        stuck = {
            tp: ends[tp] for tp, at in self.next_offsets.items() if tp in ends and self._behind_before.get(tp) == at}
        self._behind_before = {tp: at for tp, at in self.next_offsets.items() if tp in ends and at < ends[tp]}
        return stuck | {tp: ends[tp] for tp in twice}
