"""The history stops while ClickHouse or Kafka does not answer."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError

from schemas.dead_letters import DeadLetter
from schemas.settings import Settings
from schemas.topics import FACTS
from streams.history import main
from streams.history.consumer import Consumer
from streams.runtime.worker_thread import WorkerThread


class SilentConsumer:
    """A group's consumer with one partition whose coordinator does not answer: aiokafka repeats the request without
    end."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.listener: Any = None

    def subscribe(self, topics: list[str], listener: Any) -> None:
        self.listener = listener

    async def beginning_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, 0)

    end_offsets = beginning_offsets

    async def committed(self, place: TopicPartition) -> None:
        self.asked.set()
        await asyncio.Event().wait()


async def test_a_stop_does_not_wait_for_committed_offsets() -> None:
    kafka, stop, background, nothing = SilentConsumer(), asyncio.Event(), WorkerThread("test"), cast("Any", None)
    try:
        consumer = Consumer(Settings(_env_file=None), cast("Any", kafka), nothing, background, nothing)
        running = asyncio.create_task(consumer.run(stop))
        async with asyncio.timeout(10):
            await asyncio.sleep(0)
            await kafka.listener.on_partitions_assigned([TopicPartition(FACTS, 0)])
            await kafka.asked.wait()
            stop.set()
            await running
    finally:
        background.stop()


class Producer:
    """A producer that starts if `started` is set, sends, and never stops: its last record waits for a silent broker."""

    def __init__(self, started: bool = True) -> None:
        self.started, self.ends = started, 0

    async def start(self) -> None:
        if not self.started:
            raise KafkaConnectionError("away")

    async def send(self, *_: Any, **__: Any) -> asyncio.Future[None]:
        sent = asyncio.get_running_loop().create_future()
        sent.set_result(None)
        return sent

    async def stop(self) -> None:
        self.ends += 1
        if self.started:
            await asyncio.Event().wait()

    async def __aenter__(self) -> Producer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


async def test_a_stop_does_not_wait_for_the_producer_of_dead_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Producer()
    monkeypatch.setattr(main.producer, "idempotent_producer", lambda *_: out)
    monkeypatch.setattr(main, "_CLOSE_TIMEOUT", 0.01)
    letter = DeadLetter(topic=FACTS, partition=0, offset=0, reason="", at=0, key=b"", value=b"", headers=[])
    async with asyncio.timeout(10), main._dead_letter_sender(Settings(_env_file=None)) as send:
        await send([letter])
    assert out.ends == 1


async def test_a_dead_letter_producer_without_a_broker_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The history creates a producer per attempt, and an unclosed one would keep its connections."""
    out = Producer(started=False)
    monkeypatch.setattr(main.producer, "idempotent_producer", lambda *_: out)
    async with main._dead_letter_sender(Settings(_env_file=None)) as send:
        with pytest.raises(KafkaConnectionError):
            await send([])
    assert out.ends == 1
