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

__all__ = ["GapFiller", "LogTruncated"]

log = logging.getLogger(__name__)

ReadRange = Callable[[TP, int, int], AsyncIterator[Records]]
Begin = Callable[[TP], Awaitable[int]]


class LogTruncated(Exception):
    """A partition ends before what was read from it: the broker lost records that it had acknowledged."""


class GapFiller:
    """`next` is, for each owned partition, the offset after the last record handed on. `read` gives records of a range:
    partition, start, end (excluded). `begin` gives the first offset of a partition whose topic may be deleted and
    created again: it is read from its beginning then. Without `begin` that raises LogTruncated."""

    def __init__(self, read: ReadRange, begin: Begin | None = None) -> None:
        self.next: dict[TP, int] = {}
        self.delivered = 0  # portions that came from Faust, not by reading again
        self.reread = 0  # records that did not
        self._read = read
        self._begin = begin
        self._last: dict[TP, int] = {}  # delivered by Faust
        self._floor: dict[TP, int] = {}  # what the group has committed; before it, the start
        self._behind: dict[TP, int] = {}  # `next` of those that were behind at the last look
        self._back: set[TP] = set()

    def own(self, tp: TP, start: int) -> None:
        self.next[tp] = self._floor[tp] = start
        self._last.pop(tp, None)
        self._behind.pop(tp, None)

    def committed(self, offsets: Mapping[TP, int]) -> None:
        """The group has committed these offsets. Those beyond `next` are of a topic that is no more."""
        self._floor.update((tp, offset) for tp, offset in offsets.items() if offset <= self.next.get(tp, -1))

    async def _is_new(self, tp: TP, first: int) -> bool:
        """Whether `first` was delivered because the partition begins anew. Faust seeks to what the group had committed
        a moment ago, which is as near to what it has committed now as that moment was short."""
        floor = self._floor.get(tp, 0)
        if first > self._last.get(tp, -1):
            return False  # Faust goes on: it was late, and was read again meanwhile
        return self._begin is not None and first < floor and first - await self._begin(tp) < floor - first

    def _renew(self, tp: TP, why: str) -> None:
        log.warning("%s/%d was created again (%s): it is read from its beginning", *tp, why)
        self.own(tp, 0)

    def disown(self, tp: TP) -> None:
        self.next.pop(tp, None)

    async def follow(self, portion: RecordChunk) -> AsyncGenerator[Records, None]:
        """The records of a portion that are news, with what is missing before them, in runs."""
        tp, records, upto, _ = portion
        first = records[0].offset if records else upto
        if records:
            self.delivered += 1
            if await self._is_new(tp, first):
                self._renew(tp, f"offset {first} was delivered, {self.next[tp]} was next")
            self._last[tp] = records[-1].offset
        if first > self.next[tp]:
            async for run in self._missing(tp, first):
                yield run
        start = self.next[tp]
        if upto <= start:
            return
        self.next[tp] = upto
        # Holes inside are the log's own (compaction, markers): one fetch brought these records, without Faust.
        yield records if records[0].offset >= start else [record for record in records if record.offset >= start]

    async def _missing(self, tp: TP, end: int) -> AsyncIterator[Records]:
        start, found = self.next[tp], 0
        async for run in self._read(tp, start, end):
            found += len(run)
            self.reread += len(run)
            self.next[tp] = run[-1].offset + 1
            yield run
        self.next[tp] = max(self.next[tp], end)
        if found:
            log.warning("%s/%d: %d records from offset %d on were not delivered; read again", *tp, found, start)
            metrics.SKIPPED.labels(tp.topic).inc(found)
        else:
            log.debug("%s/%d: offsets %d to %d hold no records", *tp, start, end - 1)

    def stalled(self, before: Mapping[TP, int], ends: Mapping[TP, int]) -> dict[TP, int]:
        """Partition -> end, where nothing moved since the last look though there was more to read already then: a
        swallowed tail shows no gap. `before` is what `next` was when the ends were asked for.

        LogTruncated: a partition ends before `before`, twice in a row (a new leader may lag for a moment). A partition
        whose topic may be created again is read from its beginning then.
        """
        back = {tp for tp, end in ends.items() if end < before.get(tp, 0)}
        twice = back & self._back
        if twice and self._begin is None:
            tp = min(twice)
            raise LogTruncated(f"{tp.topic}/{tp.partition} ends at {ends[tp]}, but {before[tp]} was read")
        self._back = back - twice
        for tp in twice & self.next.keys():
            self._renew(tp, f"it ends at {ends[tp]}, {before[tp]} was next")
        stuck = {tp: ends[tp] for tp, at in self.next.items() if tp in ends and self._behind.get(tp) == at}
        self._behind = {tp: at for tp, at in self.next.items() if tp in ends and at < ends[tp]}
        return stuck | {tp: ends[tp] for tp in twice}
