"""Resolving an incident of 500 large runs changes 65 MB of rows, and all of them are written.

The timeout of a write applies to one record batch: a slow broker may take longer for all batches together.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder

from schemas.topics import BATCH_BYTES
from streams.kafka import producer


class _Slow:
    """A producer that takes one batch at a time, each after a delay, as aiokafka does for one partition."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.records: list[int] = []
        self._last: asyncio.Future[Any] | None = None

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder(BATCH_BYTES, 0)

    async def send_batch(self, batch: BatchBuilder, topic: str, partition: int) -> asyncio.Future[Any]:
        if self._last is not None:
            await self._last
        self.records.append(batch.record_count())
        loop = asyncio.get_running_loop()
        future = self._last = loop.create_future()
        answer = type("Answer", (), {"offset": sum(self.records[:-1])})
        loop.call_later(self.seconds, future.set_result, answer)
        return future


async def test_a_write_of_many_batches_may_take_longer_than_the_limit_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producer, "WRITE_SECONDS", 0.8)
    out = _Slow(0.1)
    rows = [(b"i:%d" % number, b"x" * 130_000) for number in range(500)]
    begun = asyncio.get_running_loop().time()
    last = await producer.write_rows(out, "attn.views", 0, rows)  # type: ignore[arg-type]
    assert last == 499
    assert sum(out.records) == 500
    assert asyncio.get_running_loop().time() - begun > 0.8, "all batches together took longer than the timeout of one"


async def test_a_timeout_of_one_batch_ends_the_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producer, "WRITE_SECONDS", 0.05)
    with pytest.raises(TimeoutError, match="not acknowledged"):
        await producer.write_rows(_Slow(5.0), "attn.views", 0, [(b"k", b"x")])  # type: ignore[arg-type]
