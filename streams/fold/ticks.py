"""Appends a tick to the log when a row timer of a partition is due (DESIGN: Rank).

The fold never reads a clock. A tick is an empty pack with the current time: it advances the log clock, and the fold
that applies it runs the due timers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from aiokafka import AIOKafkaProducer

from schemas.log import Pack, encode_pack
from schemas.topics import LOG
from streams.fold.partition import PartitionProcessor
from streams.kafka.producer import wait_acknowledged
from streams.runtime import metrics
from streams.runtime.clock import now_us

__all__ = ["TickProducer"]

_INTERVAL = 0.1  # seconds between two checks; a tick may be late by as much


class TickProducer:
    """Produces ticks. `now` returns the current time in microseconds.

    At most one tick per partition is in flight: the next one is produced after that one is folded.
    """

    def __init__(self, producer: AIOKafkaProducer, now: Callable[[], int] = now_us) -> None:
        self._producer = producer
        self._now = now
        self._last_tick: dict[PartitionProcessor, int] = {}  # offset of the last tick

    async def run(self, processors: Callable[[], Collection[PartitionProcessor]]) -> None:
        """Produces due ticks every 100 ms; does not return. `processors` returns those of the assigned partitions."""
        while True:
            await self.produce_due_ticks(processors())
            await asyncio.sleep(_INTERVAL)

    async def produce_due_ticks(self, processors: Collection[PartitionProcessor]) -> None:
        """Appends a tick for each partition with a due timer and waits until the ticks are acknowledged."""
        # Drops revoked partitions in every call, because a processor keeps all rows of its fold in memory. A worker
        # without partitions produces no further tick.
        self._last_tick = {
            processor: offset for processor, offset in self._last_tick.items() if processor in processors}
        now = self._now()
        due = [processor for processor in processors if self._is_due(processor, now)]
        if not due:
            return
        value = encode_pack(Pack(now))
        sent = [await self._producer.send(LOG, value, partition=processor.tp.partition) for processor in due]
        answers = await wait_acknowledged(sent)
        self._last_tick.update(zip(due, (answer.offset for answer in answers), strict=True))
        metrics.TICKS.inc(len(due))

    def _is_due(self, processor: PartitionProcessor, now: int) -> bool:
        if processor.fold is None or processor.next_offset <= self._last_tick.get(processor, -1):
            return False
        wake = processor.fold.next_timer()
        return wake is not None and wake <= now
