"""Ticks: an empty pack on the log when a row of a partition is due, so that time passes in the log (DESIGN: Rank).

The fold itself never reads a clock. A tick stamped now moves the log's clock, and whoever folds it wakes what is due.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection

from aiokafka import AIOKafkaProducer

from schemas.log import Pack, encode_pack
from schemas.topics import LOG
from streams.fold.partition import PartitionProcessor
from streams.kafka.producer import wait_acknowledged
from streams.runtime import metrics

__all__ = ["TickProducer"]

_INTERVAL = 0.1  # seconds: how late a tick may be


class TickProducer:
    """`now` gives microseconds. At most one tick a partition is on its way: the next waits until it is folded."""

    def __init__(self, out: AIOKafkaProducer, now: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        self._out = out
        self._now = now
        self._logged: dict[PartitionProcessor, int] = {}  # offset of the last tick

    async def run(self, shards: Callable[[], Collection[PartitionProcessor]]) -> None:
        while True:
            await self.look(shards())
            await asyncio.sleep(_INTERVAL)

    async def look(self, shards: Collection[PartitionProcessor]) -> None:
        """Logs a tick for each shard that is due."""
        # At once, and not with the next tick: a shard holds all its fold knows, and who owns nothing has no next tick.
        self._logged = {shard: offset for shard, offset in self._logged.items() if shard in shards}
        now = self._now()
        due = [shard for shard in shards if self._is_due(shard, now)]
        if not due:
            return
        value = encode_pack(Pack(now))
        sent = [await self._out.send(LOG, value, partition=shard.tp.partition) for shard in due]
        answers = await wait_acknowledged(sent)
        self._logged.update(zip(due, (answer.offset for answer in answers), strict=True))
        metrics.TICKS.inc(len(due))

    def _is_due(self, shard: PartitionProcessor, now: int) -> bool:
        if shard.fold is None or shard.done <= self._logged.get(shard, -1):
            return False
        wake = shard.fold.next_wake()
        return wake is not None and wake <= now
