"""Lag of ClickHouse behind `attn.facts`: metrics, readiness, and detection of stalls and truncations."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from schemas.settings import Settings
from schemas.topics import FACTS
from streams.history import metrics
from streams.runtime.lag import ConsumerStalled, LagTracker

__all__ = ["Lag"]

# Seconds.
_INTERVAL = 1.0  # between two requests for end offsets, and two checks for a truncation
_REQUEST_TIMEOUT = 10.0
_MAX_STALL = 90.0  # longer than the timeout of an insert (streams.history.clickhouse.client)
_MAX_CALL = 600.0  # of ClickHouse: a repair of very many hours takes minutes


class Lag:
    """Lag of the assigned partitions. `done`: the offset after the last record in ClickHouse, by partition."""

    def __init__(self, settings: Settings) -> None:
        self.done: dict[int, int] = {}
        self.times: dict[int, float] = {}  # broker's timestamp of the last record before `done`, seconds
        self.tracker = LagTracker(settings, time.monotonic())
        self._checked_at = 0.0

    def own(self, partitions: Collection[int]) -> None:
        """Forgets all partitions but the assigned ones."""
        self.done = {partition: done for partition, done in self.done.items() if partition in partitions}
        self.times = {partition: at for partition, at in self.times.items() if partition in partitions}

    def begin(self, partition: int, offset: int) -> None:
        """Sets the offset of a partition without one, until ClickHouse has been asked."""
        self.done.setdefault(partition, offset)

    def written(self, offsets: Mapping[int, int], times: Mapping[int, float]) -> None:
        """Records that all before these offsets is in ClickHouse."""
        self.done.update(offsets)
        self.times.update(times)

    def due(self, now: float) -> bool:
        """Whether a second has passed since the last call of `find_truncated`."""
        return now - self._checked_at >= _INTERVAL

    def find_truncated(self, consumer: AIOKafkaConsumer, next_offsets: Mapping[int, int]) -> tuple[int, int] | None:
        """Returns a partition that ends before its next offset, and its end offset. None if there is no such one."""
        self._checked_at = time.monotonic()
        for partition, start in next_offsets.items():
            end = consumer.highwater(TopicPartition(FACTS, partition))
            if end is not None and end < start:
                return partition, end
        return None

    def not_ready_reason(self) -> str | None:
        """Returns why the lag makes the history not ready. None if it does not."""
        return self.tracker.not_ready_reason(time.monotonic(), time.time())

    async def watch(
        self, consumer: AIOKafkaConsumer, is_waiting: Callable[[], bool], busy: Callable[[], float]
    ) -> None:
        """Asks the broker for the end offsets every second and updates lag and metrics, until cancelled.

        `busy` returns for how many seconds the current call of ClickHouse has run. Raises ConsumerStalled if that
        exceeds 600 s, or if a partition with a lag has not moved for 90 s while `is_waiting()` was False.
        """
        while True:
            await asyncio.sleep(_INTERVAL)
            if (seconds := busy()) > _MAX_CALL:
                raise ConsumerStalled(f"a call of ClickHouse has not returned for {seconds:.0f} s")
            done = {TopicPartition(FACTS, partition): offset for partition, offset in self.done.items()}
            try:
                async with asyncio.timeout(_REQUEST_TIMEOUT):
                    ends = await consumer.end_offsets(list(done)) if done else await self._ping(consumer)
            except (TimeoutError, KafkaError):
                continue
            self._observe(done, ends, is_waiting())

    async def _ping(self, consumer: AIOKafkaConsumer) -> dict[TopicPartition, int]:
        """Without assigned partitions: checks only that the broker answers."""
        await consumer.end_offsets([TopicPartition(FACTS, 0)])
        return {}

    def _observe(
        self, done: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int], is_waiting: bool
    ) -> None:
        now, wall = time.monotonic(), time.time()
        times = {TopicPartition(FACTS, partition): at for partition, at in self.times.items()}
        self.tracker.observe(now, wall, done, ends, times, paused=done if is_waiting else ())
        metrics.LAG_ROWS.set(self.tracker.lag)
        metrics.LAG_SECONDS.set(self.tracker.oldest_age(wall))
        self.tracker.check_stalled(_MAX_STALL)
