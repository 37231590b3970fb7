"""An idle consumer sends about 50 fetch requests a second, not thousands, to a broker without fetch_max_wait_ms."""

from __future__ import annotations

import asyncio
import time

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.consumer.fetcher import Fetcher

from streams.kafka import idle_fetch


async def test_an_idle_consumer_sends_few_requests_and_gets_new_records_at_once(
    broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = 0
    fetch = Fetcher._proc_fetch_request

    async def counted(self: Fetcher, *request: object) -> bool:
        nonlocal requests
        requests += 1
        return bool(await fetch(self, *request))

    monkeypatch.setattr(Fetcher, "_proc_fetch_request", counted)
    monkeypatch.setattr(idle_fetch, "_installed", False)
    idle_fetch.install_throttle()

    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    await admin.create_topics([NewTopic("patience", 1, 1)])
    await admin.close()
    async with (
        AIOKafkaConsumer("patience", bootstrap_servers=broker, auto_offset_reset="earliest") as consumer,
        AIOKafkaProducer(bootstrap_servers=broker) as producer,
    ):
        await producer.send_and_wait("patience", b"first")
        assert (await consumer.getone()).value == b"first"
        waiting = asyncio.create_task(consumer.getone())
        await asyncio.sleep(0.5)  # the pause between requests grows with the time since the last record
        requests = 0
        begun = time.monotonic()
        await asyncio.sleep(1.0)
        assert requests < 200 * (time.monotonic() - begun)  # without the throttle: 3,500 requests a second
        await producer.send_and_wait("patience", b"second")
        assert (await asyncio.wait_for(waiting, 60)).value == b"second"
