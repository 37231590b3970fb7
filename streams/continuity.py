"""Makes what Faust delivers continuous: every record of an owned partition once, in order.

Faust 0.15 skips input: its queues are cleared after records were counted as read (recovery, rebalance, an agent that
restarts), and its own seek to the committed offset overwrites any other. So nothing here trusts the consumer. Who owns
a partition says where it begins; what is delivered before that is a repeat; where it goes on too far, the missing range
is read with a plain consumer. Seeking Faust's consumer back instead is no cure: deliveries on their way undo the seek.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping

from faust.types import TP

from streams import metrics
from streams.chunks import Portion, Records

__all__ = ["Continuity", "LogFellBack"]

log = logging.getLogger(__name__)

ReadRange = Callable[[TP, int, int], AsyncIterator[Records]]


class LogFellBack(Exception):
    """A partition ends before what was read from it: the broker lost records that it had acknowledged."""


class Continuity:
    """`next` is, for each owned partition, the offset after the last record handed on. `read` gives records of a range:
    partition, start, end (excluded)."""

    def __init__(self, read: ReadRange) -> None:
        self.next: dict[TP, int] = {}
        self.delivered = 0  # portions that came from Faust, not by reading again
        self._read = read
        self._behind: dict[TP, int] = {}  # `next` of those that were behind at the last look
        self._back: set[TP] = set()

    def own(self, tp: TP, start: int) -> None:
        self.next[tp] = start
        self._behind.pop(tp, None)

    def disown(self, tp: TP) -> None:
        self.next.pop(tp, None)

    async def follow(self, portion: Portion) -> AsyncGenerator[Records, None]:
        """The records of a portion that are news, with what is missing before them, in runs."""
        tp, records, upto, _ = portion
        first = records[0].offset if records else upto
        if records:
            self.delivered += 1
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

        LogFellBack: a partition ends before `before`, twice in a row (a new leader may lag for a moment).
        """
        back = {tp for tp, end in ends.items() if end < before.get(tp, 0)}
        if twice := back & self._back:
            tp = min(twice)
            raise LogFellBack(f"{tp.topic}/{tp.partition} ends at {ends[tp]}, but {before[tp]} was read")
        self._back = back
        stuck = {tp: ends[tp] for tp, at in self.next.items() if tp in ends and self._behind.get(tp) == at}
        self._behind = {tp: at for tp, at in self.next.items() if tp in ends and at < ends[tp]}
        return stuck
