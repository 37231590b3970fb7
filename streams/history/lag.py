"""How far ClickHouse is behind the topic: for the metrics, for readiness, and to notice that nothing moves."""

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

_EVERY = 1.0  # seconds
_ANSWER = 10.0  # seconds
# Longer than ClickHouse may take for an insert before it counts as away (streams.history.clickhouse.client).
_STUCK = 90.0
_HUNG = 600.0  # a call: making hours again after a crash takes minutes where there are very many


class Lag:
    """`done`: for each owned partition the offset after the last record that is in ClickHouse."""

    def __init__(self, settings: Settings) -> None:
        self.done: dict[int, int] = {}
        self.worked: dict[int, float] = {}  # the broker's time of the last record before `done`, seconds
        self.progress = LagTracker(settings, time.monotonic())
        self._looked = 0.0

    def own(self, partitions: Collection[int]) -> None:
        self.done = {partition: done for partition, done in self.done.items() if partition in partitions}
        self.worked = {partition: at for partition, at in self.worked.items() if partition in partitions}

    def begin(self, partition: int, offset: int) -> None:
        """What is known before ClickHouse has been asked; it may know better."""
        self.done.setdefault(partition, offset)

    def written(self, offsets: Mapping[int, int], times: Mapping[int, float]) -> None:
        self.done.update(offsets)
        self.worked.update(times)

    def due(self, now: float) -> bool:
        """Whether it is time for `fell_back`."""
        return now - self._looked >= _EVERY

    def fell_back(self, consumer: AIOKafkaConsumer, following: Mapping[int, int]) -> tuple[int, int] | None:
        """A partition and its end, if it ends before `following`, what is to be read next."""
        self._looked = time.monotonic()
        for partition, start in following.items():
            end = consumer.highwater(TopicPartition(FACTS, partition))
            if end is not None and end < start:
                return partition, end
        return None

    def unready(self) -> str | None:
        return self.progress.not_ready_reason(time.monotonic(), time.time())

    async def watch(self, consumer: AIOKafkaConsumer, waits: Callable[[], bool], busy: Callable[[], float]) -> None:
        """Asks the broker every moment where the partitions end. Raises ConsumerStalled; not while `waits()`, when it
        is known what nothing moves for. `busy`: seconds since the call of ClickHouse that runs now began."""
        while True:
            await asyncio.sleep(_EVERY)
            if (seconds := busy()) > _HUNG:
                raise ConsumerStalled(f"a call of ClickHouse has not returned for {seconds:.0f} s")
            done = {TopicPartition(FACTS, partition): offset for partition, offset in self.done.items()}
            try:
                async with asyncio.timeout(_ANSWER):
                    ends = await consumer.end_offsets(list(done)) if done else await self._ping(consumer)
            except (TimeoutError, KafkaError):
                continue
            self._look(done, ends, waits())

    async def _ping(self, consumer: AIOKafkaConsumer) -> dict[TopicPartition, int]:
        """Of one that owns nothing: whether the broker answers."""
        await consumer.end_offsets([TopicPartition(FACTS, 0)])
        return {}

    def _look(self, done: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int], waits: bool) -> None:
        now, wall = time.monotonic(), time.time()
        worked = {TopicPartition(FACTS, partition): at for partition, at in self.worked.items()}
        self.progress.observe(now, wall, done, ends, worked, paused=done if waits else ())
        metrics.LAG_ROWS.set(self.progress.lag)
        metrics.LAG_SECONDS.set(self.progress.oldest_age(wall))
        self.progress.check_stalled(_STUCK)
