"""The probe sees each append to the embedded broker, by any client, and survives a broker that ends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.consumer.fetcher import Fetcher
from confluent_kafka import Producer

from ops.embedded.broker import EmbeddedBroker
from schemas.settings import Settings
from streams.kafka import doorbell, idle_fetch
from streams.kafka.append_probe import AppendProbe, end_offsets_request

_PARTITIONS = end_offsets_request([("plans", (0, 1)), ("waitpoints", (0, 1))])
_OTHER_ORDER = end_offsets_request([("waitpoints", (1, 0)), ("plans", (1, 0))])
_FEWER = end_offsets_request([("plans", (0, 1))])


@pytest.fixture
async def own_broker(tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    broker = EmbeddedBroker(tmp_path)
    await broker.start()
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic("plans", 2, 1), NewTopic("waitpoints", 2, 1)])
    await admin.close()
    yield broker
    await broker.stop()


async def test_each_append_is_seen_once(own_broker: EmbeddedBroker) -> None:
    probe = AppendProbe("127.0.0.1", own_broker.port, timeout=30.0)
    try:
        assert probe.has_changed(_PARTITIONS), "the first call has nothing to compare with"
        foreign = Producer({"bootstrap.servers": own_broker.bootstrap})
        async with AIOKafkaProducer(bootstrap_servers=own_broker.bootstrap) as producer:
            for topic, partition in (("plans", 1), ("waitpoints", 0), ("waitpoints", 0)):
                assert not probe.has_changed(_OTHER_ORDER), "the order of topics does not matter"
                await producer.send_and_wait(topic, b"x", partition=partition)
                assert probe.has_changed(_PARTITIONS)
                foreign.produce(topic, b"y", partition=partition)
                assert await asyncio.to_thread(foreign.flush, 60) == 0
                assert probe.has_changed(_PARTITIONS)
        assert not probe.has_changed(_PARTITIONS)
        assert probe.has_changed(_FEWER), "other partitions"
    finally:
        probe.close()


async def test_a_broker_that_does_not_answer_in_time_counts_as_a_change(own_broker: EmbeddedBroker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        probe = AppendProbe(*silent.getsockname()[:2])
        assert [probe.has_changed(_PARTITIONS) for _ in range(3)] == [True] * 3
        probe.close()


async def test_a_broker_that_ends_counts_as_a_change(own_broker: EmbeddedBroker) -> None:
    probe = AppendProbe("127.0.0.1", own_broker.port, timeout=30.0)
    try:
        probe.has_changed(_PARTITIONS)
        await own_broker.stop()
        assert probe.has_changed(_PARTITIONS)
        assert probe.has_changed(_PARTITIONS), "nothing to compare with"
        await own_broker.start()
        probe.has_changed(_PARTITIONS)
        assert not probe.has_changed(_PARTITIONS)
    finally:
        probe.close()


async def test_a_foreign_record_after_silence_arrives_long_before_the_next_fetch(
    own_broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The next fetch is 10 minutes away, and no bell rings: only the probe delivers the record."""
    monkeypatch.setattr(idle_fetch, "_installed", False)
    for name in ("_proc_fetch_request", "close"):
        monkeypatch.setattr(Fetcher, name, getattr(Fetcher, name))
    monkeypatch.setattr(idle_fetch, "_MAX_WAIT_PROBED", 600.0)
    monkeypatch.setattr(idle_fetch, "_PROBE_AFTER", 0.0)
    monkeypatch.setattr(idle_fetch, "AppendProbe", partial(AppendProbe, timeout=30.0))  # the machine may be busy
    bells = doorbell.directory(Settings(_env_file=None, data_dir=tmp_path, kafka=own_broker.bootstrap))
    doorbell.make_directory(bells, wanted=True)
    idle_fetch.install_throttle(bells)
    fetches = idle_fetch._EMPTY
    async with (
        AIOKafkaConsumer("plans", bootstrap_servers=own_broker.bootstrap, auto_offset_reset="earliest") as consumer,
        AIOKafkaProducer(bootstrap_servers=own_broker.bootstrap) as producer,
    ):
        for number in range(5):
            waiting = asyncio.create_task(consumer.getone())
            await asyncio.sleep(0.3)
            empty = fetches._value.get()
            await asyncio.sleep(0.5)
            assert fetches._value.get() - empty <= 2  # 16 without the probe
            await producer.send_and_wait("plans", b"%d" % number, partition=number % 2)
            assert (await asyncio.wait_for(waiting, 60)).value == b"%d" % number


async def test_a_consumer_whose_broker_is_down_does_not_probe(tmp_path: Path) -> None:
    """The metadata have no address of a broker that is down."""
    bells = tmp_path / "bells"
    doorbell.make_directory(bells, wanted=True)
    idle = idle_fetch._Idle(0.0, bells)
    request = SimpleNamespace(topics=[("waitpoints", [(0, 0, 0)])])
    await asyncio.wait_for(idle.wait(3600.0, request, None), 60)
    assert idle._probe is None
    idle.close()
