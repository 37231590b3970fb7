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

PATIENCE = 240.0  # seconds: for three JVMs and five processes of ours on a busy machine


class Producer:
    """Sends events without an end, `rate` a second, as a careful producer does: idempotent, acks=all, never giving up.

    Of every event that was handed over `lines` says what it is; `acknowledged` counts those that Kafka has taken.
    """

    def __init__(self, settings: Settings, lines: Iterable[dict[str, Any]], rate: float) -> None:
        self._out = AIOKafkaProducer(
            bootstrap_servers=settings.kafka, client_id="steady", acks="all", enable_idempotence=True,
            # aiokafka gives a batch up after that long without a leader, and has lost count then.
            request_timeout_ms=int(PATIENCE * 1000),
        )
        self._source, self._rate = iter(lines), rate
        self._waiting: set[asyncio.Future[Any]] = set()
        self.lines: list[dict[str, Any]] = []
        self.failed: list[BaseException] = []
        self.acknowledged = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sends meanwhile; at the end all of it is acknowledged."""
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
            # Not awaited: the first record of a partition waits for its leader.
            sent = asyncio.create_task(self._one(
                line["topic"], json.dumps(line["value"]).encode(), None if key is None else key.encode()))
            self.lines.append(line)
            self._waiting.add(sent)
            sent.add_done_callback(self._answered)
            await asyncio.sleep(1 / self._rate)

    async def _one(self, topic: str, value: bytes, key: bytes | None) -> None:
        while True:
            try:
                sent = await self._out.send(topic, value, key=key)
                break
            except KafkaTimeoutError:
                pass  # there was no room for it: nothing was sent yet
        await sent

    def _answered(self, sent: asyncio.Future[Any]) -> None:
        self._waiting.discard(sent)
        if sent.cancelled() or (error := sent.exception()) is None:
            self.acknowledged += not sent.cancelled()
        else:
            self.failed.append(error)
