"""The history is stopped while what it asks does not answer: it ends all the same."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from aiokafka import TopicPartition

from schemas.settings import Settings
from schemas.topics import FACTS
from streams.history.background import Background
from streams.history.consumer import Consumer


class Silent:
    """A group's consumer with one partition, whose coordinator is away: aiokafka asks for it for ever."""

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


async def test_a_stop_while_kafka_does_not_say_what_is_committed() -> None:
    kafka, stop, background, nothing = Silent(), asyncio.Event(), Background("test"), cast("Any", None)
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
