"""Ticks: an empty pack on the log when a row of a partition is due, so that time passes in the log (DESIGN: Rank).

The fold itself never reads a clock. A tick stamped now moves the log's clock, and whoever folds it wakes what is due.
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

_INTERVAL = 0.1  # seconds: how late a tick may be


class TickProducer:
    """`now` gives microseconds. At most one tick a partition is on its way: the next waits until it is folded."""

    def __init__(self, producer: AIOKafkaProducer, now: Callable[[], int] = now_us) -> None:
        self._producer = producer
        self._now = now
        self._last_tick: dict[PartitionProcessor, int] = {}  # offset of the last tick

    async def run(self, processors: Callable[[], Collection[PartitionProcessor]]) -> None:
        while True:
            await self.produce_due_ticks(processors())
            await asyncio.sleep(_INTERVAL)

    async def produce_due_ticks(self, processors: Collection[PartitionProcessor]) -> None:
        """Logs a tick for each shard that is due."""
        # At once, and not with the next tick: a shard holds all its fold knows, and who owns nothing has no next tick.
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
