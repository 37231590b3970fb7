"""A producer that keeps sending while brokers fail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaTimeoutError
from support.kafka.pipeline import eventually

from schemas.settings import Settings

__all__ = ["PATIENCE", "Producer"]

PATIENCE = 240.0  # seconds; long enough for three JVMs and five processes of attn on a busy machine


class Producer:
    """Sends events, `rate` a second: idempotent, with acks=all and unlimited retries.

    `lines` has every event sent so far; `acknowledged` counts those that Kafka acknowledged.
    """

    def __init__(self, settings: Settings, lines: Iterable[dict[str, Any]], rate: float) -> None:
        self._out = AIOKafkaProducer(
            bootstrap_servers=settings.kafka, client_id="steady", acks="all", enable_idempotence=True,
            # aiokafka drops a batch after this time without a leader. Its later sequence numbers are then wrong.
            request_timeout_ms=int(PATIENCE * 1000),
        )
        self._source, self._rate = iter(lines), rate
        self._waiting: set[asyncio.Future[Any]] = set()
        self.lines: list[dict[str, Any]] = []
        self.failed: list[BaseException] = []
        self.acknowledged = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sends until the block ends, then waits until all events are acknowledged."""
        await self._out.start()
        task = asyncio.create_task(self._send())
        try:
            yield
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await eventually(lambda: not self._waiting, "all is acknowledged", PATIENCE)
            assert not self.failed, self.failed
        finally:
            task.cancel()
            with suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await self._out.stop()

    async def _send(self) -> None:
        for line in self._source:
            key = line["key"]
            # Not awaited: the first record of a partition waits for the leader.
            sent = asyncio.create_task(self._send_event(
                line["topic"], json.dumps(line["value"]).encode(), None if key is None else key.encode()))
            self.lines.append(line)
            self._waiting.add(sent)
            sent.add_done_callback(self._answered)
            await asyncio.sleep(1 / self._rate)

    async def _send_event(self, topic: str, value: bytes, key: bytes | None) -> None:
        while True:
            try:
                sent = await self._out.send(topic, value, key=key)
                break
            except KafkaTimeoutError:
                pass  # the buffer was full: the event was not sent
        await sent

    def _answered(self, sent: asyncio.Future[Any]) -> None:
        self._waiting.discard(sent)
        if sent.cancelled() or (error := sent.exception()) is None:
            self.acknowledged += not sent.cancelled()
        else:
            self.failed.append(error)
