"""How far ClickHouse is behind the topic, for the metrics."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.topics import FACTS
from streams.history import metrics
from streams.history.writer import Batch

__all__ = ["Lag"]

_EVERY = 1.0  # seconds


class Lag:
    """`done`: for each owned partition the offset after the last record that is in ClickHouse."""

    def __init__(self) -> None:
        self.done: dict[int, int] = {}
        self._measured = 0.0
        self._level = time.time()  # when nothing was behind, or how old the oldest record was

    def own(self, partitions: Collection[int]) -> None:
        self.done = {partition: done for partition, done in self.done.items() if partition in partitions}

    def due(self, now: float) -> bool:
        return now - self._measured >= _EVERY

    def measure(
        self, consumer: AIOKafkaConsumer, following: Mapping[int, int], *batches: Batch | None
    ) -> tuple[int, int] | None:
        """While records come in. A partition and its end, if it ends before `following`, what is to be read next."""
        self._measured = time.monotonic()
        ends = {}
        for partition, start in following.items():
            end = consumer.highwater(TopicPartition(FACTS, partition))
            if end is not None and end < start:
                return partition, end
            ends[partition] = end or 0
        oldest = min((batch.oldest for batch in batches if batch is not None and batch.count), default=time.time())
        self._level = max(self._level, oldest)
        self._tell(ends)
        return None

    def waiting(self, ends: Mapping[int, int]) -> None:
        """While nothing is read."""
        self._tell(ends)

    def _tell(self, ends: Mapping[int, int]) -> None:
        rows = sum(max(0, end - self.done.get(partition, 0)) for partition, end in ends.items())
        metrics.LAG_ROWS.set(rows)
        metrics.LAG_SECONDS.set(max(0.0, time.time() - self._level) if rows else 0.0)
