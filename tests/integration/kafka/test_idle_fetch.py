"""An idle consumer sends about 50 fetch requests a second, not thousands, to a broker without fetch_max_wait_ms."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.consumer.fetcher import Fetcher

from schemas.settings import Settings
from streams.kafka import doorbell, idle_fetch
from streams.kafka.producer import idempotent_producer


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restores aiokafka's own methods after the test."""
    monkeypatch.setattr(idle_fetch, "_installed", False)
    for name in ("_proc_fetch_request", "close"):
        monkeypatch.setattr(Fetcher, name, getattr(Fetcher, name))


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


async def test_a_write_of_attn_wakes_a_consumer_after_long_silence(
    broker: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The consumer would fetch again after 10 minutes, so only a ring delivers the record.
    monkeypatch.setattr(idle_fetch, "_MAX_WAIT_WOKEN", 600.0)
    monkeypatch.setattr(idle_fetch, "_IDLE_RATIO", 1e6)
    settings = Settings(_env_file=None, data_dir=tmp_path, kafka=broker, kafka_compression="zstd")
    bells = doorbell.directory(settings)
    doorbell.make_directory(bells, wanted=True)
    idle_fetch.install_throttle(bells)

    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    await admin.create_topics([NewTopic("woken", 1, 1)])
    await admin.close()
    consumer = AIOKafkaConsumer("woken", bootstrap_servers=broker, auto_offset_reset="earliest")
    producer = idempotent_producer(settings, "test")
    await consumer.start()
    await producer.start()
    try:
        for number in range(5):
            waiting = asyncio.create_task(consumer.getone())
            async with asyncio.timeout(60):
                while not os.listdir(bells):  # the consumer waits from its first empty fetch on
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            await (await producer.send("woken", b"%d" % number, partition=0))
            assert (await asyncio.wait_for(waiting, 60)).value == b"%d" % number
    finally:
        await producer.stop()
        await consumer.stop()
    assert os.listdir(bells) == [], "the consumer leaves no socket"
