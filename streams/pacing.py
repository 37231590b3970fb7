"""A consumer that rests between empty fetches.

Kafka holds a fetch until there is something or `fetch_max_wait_ms` is over. The embedded broker answers at once, so a
consumer that waits asks five hundred times a second and burns a quarter of a core for nothing.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

__all__ = ["PacedConsumer"]

_FETCH_MS = 4  # long enough for one fetch to be answered


class PacedConsumer(AIOKafkaConsumer):  # type: ignore[misc]
    """`rest`: seconds to ask for nothing after a fetch that brought nothing; 0 for a broker that holds fetches."""

    def __init__(self, *topics: str, rest: float = 0.0, **options: Any) -> None:
        super().__init__(*topics, **options)
        self._rest = rest

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int = 0, max_records: int | None = None
    ) -> dict[TopicPartition, list[ConsumerRecord[bytes, bytes]]]:
        if not self._rest:
            return await super().getmany(*partitions, timeout_ms=timeout_ms, max_records=max_records)  # type: ignore[no-any-return]
        clock = asyncio.get_running_loop().time
        until = clock() + timeout_ms / 1000
        while True:
            found = await super().getmany(*partitions, timeout_ms=min(timeout_ms, _FETCH_MS), max_records=max_records)
            if found or clock() + self._rest >= until:
                return found  # type: ignore[no-any-return]
            await self._sleep()

    async def _sleep(self) -> None:
        """Partitions that the caller paused stay paused."""
        resting = self.assignment() - self.paused()
        self.pause(*resting)
        try:
            await asyncio.sleep(self._rest)
        finally:
            self.resume(*(resting & self.assignment()))
