"""Producers that send an event again until it is acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from chaos.workload.load import Send, beat
from schemas.settings import Settings

__all__ = ["Beats", "Producer"]

_ON_THEIR_WAY = 500  # unacknowledged sends of one producer
_ANSWER = 12.0  # seconds until an acknowledgement
_CLOSE = 3.0


class Producer:
    """One connection. `again`: sends with an unknown result; such an event may be in its topic twice."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._settings, self._name = settings, name
        self._out: AIOKafkaProducer | None = None
        self.acknowledged = self.again = 0

    async def replay(self, sends: Iterable[Send], seconds: float) -> None:
        """Sends all records evenly over the seconds; later if Kafka was unavailable."""
        waiting = deque(sends)
        pace = len(waiting) / seconds
        begun, sent = time.monotonic(), 0
        while waiting:
            due = int((time.monotonic() - begun) * pace) + 1 - sent
            portion = [waiting.popleft() for _ in range(min(len(waiting), max(due, 0), _ON_THEIR_WAY))]
            sent += len(portion)
            await self.send(portion)
            await asyncio.sleep(0.05 if portion else 1 / pace)

    async def send(self, portion: list[Send]) -> None:
        """Returns when everything is acknowledged."""
        while portion:
            portion = await self._try(portion)
            if portion:
                self.again += len(portion)
                await asyncio.sleep(0.5)

    async def _try(self, portion: list[Send]) -> list[Send]:
        """Returns the sends with an unknown result."""
        try:
            async with asyncio.timeout(_ANSWER):
                out = await self._connected()
                answers: list[Any] = [await out.send(one.topic, one.value, key=one.key) for one in portion]
                results = await asyncio.gather(*answers, return_exceptions=True)
        except (KafkaError, OSError, TimeoutError):
            await self.close()
            return portion
        failed = [one for one, result in zip(portion, results, strict=True) if isinstance(result, BaseException)]
        self.acknowledged += len(portion) - len(failed)
        if failed:  # the sequence numbers of an idempotent producer are unknown after a failure
            await self.close()
        return failed

    async def _connected(self) -> AIOKafkaProducer:
        if self._out is None:
            out = AIOKafkaProducer(
                bootstrap_servers=self._settings.kafka, client_id=f"chaos-{self._name}", acks="all",
                enable_idempotence=True, linger_ms=5, request_timeout_ms=int(_ANSWER * 1000), max_request_size=2 << 20,
            )
            try:
                await out.start()
            except BaseException:
                await _closed(out)
                raise
            self._out = out
        return self._out

    async def close(self) -> None:
        out, self._out = self._out, None
        if out is not None:
            await _closed(out)


async def _closed(out: AIOKafkaProducer) -> None:
    with contextlib.suppress(KafkaError, OSError, TimeoutError):
        async with asyncio.timeout(_CLOSE):
            await out.stop()


class Beats:
    """Sends `rate` events per second in each of these workspaces. Silences of their readers are measured."""

    def __init__(self, settings: Settings, workspaces: list[str], rate: float) -> None:
        self._producers = {ws: Producer(settings, ws) for ws in workspaces}
        self._rate = rate
        self.lines: list[dict[str, Any]] = []

    @property
    def again(self) -> int:
        return sum(one.again for one in self._producers.values())

    async def run(self, stop: asyncio.Event) -> None:
        """Sends until `stop`, then waits until everything is acknowledged."""
        await asyncio.gather(*(self._one(ws, out, stop) for ws, out in self._producers.items()))

    async def _one(self, ws: str, out: Producer, stop: asyncio.Event) -> None:
        number = 0
        last = 0
        try:
            while not stop.is_set():
                last = max(last + 1, time.time_ns() // 1000)  # times are unique
                send, line = beat(ws, number, last)
                self.lines.append(line)
                number += 1
                await out.send([send])
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1 / self._rate):
                        await stop.wait()
        finally:
            await out.close()
