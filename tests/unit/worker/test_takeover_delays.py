"""Delays of Faust and aiokafka that attn removes, because readers see nothing new meanwhile (decision 0071)."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.client import ConnectionGroup
from aiokafka.structs import OffsetAndMetadata
from faust.transport.drivers import aiokafka as driver

from schemas.settings import Settings
from streams.consumer import consumer_thread
from streams.consumer.consumer_thread import LoopConsumer
from streams.consumer.faust_app import create_app
from streams.consumer.table_manager import LoadedTableManager


class Connection:
    closed = False

    def close(self) -> None:
        self.closed = True


async def test_a_rebalance_closes_the_connections_for_fetches_before_partitions_are_revoked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetching, coordinating = Connection(), Connection()
    connections = {(1, ConnectionGroup.DEFAULT): fetching, (1, ConnectionGroup.COORDINATION): coordinating}
    revoked: list[bool] = []

    async def on_partitions_revoked(self: Any, partitions: set[Any]) -> None:
        revoked.append(fetching.closed)

    monkeypatch.setattr(driver.AIOKafkaConsumerThread, "on_partitions_revoked", on_partitions_revoked)
    thread = LoopConsumer.__new__(LoopConsumer)
    fetcher = SimpleNamespace(_fetch_max_wait_ms=1500)
    thread._consumer = SimpleNamespace(_client=SimpleNamespace(_conns=connections), _fetcher=fetcher)
    await thread.on_partitions_revoked(set())
    assert revoked == [True]
    assert fetcher._fetch_max_wait_ms == 50
    assert not coordinating.closed, "the member keeps its connection for heartbeats"
    thread._consumer = None  # a stop during a rebalance
    await thread.on_partitions_revoked(set())
    assert len(revoked) == 2


async def test_empty_fetches_are_short_until_a_rebalance_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async def on_partitions_assigned(self: Any, partitions: set[Any], generation_id: int) -> None: ...

    monkeypatch.setattr(driver.AIOKafkaConsumerThread, "on_partitions_assigned", on_partitions_assigned)
    monkeypatch.setattr(consumer_thread, "_SHORT_WAITS_SECONDS", 0.01)
    fetcher = SimpleNamespace(_fetch_max_wait_ms=50)
    thread = LoopConsumer.__new__(LoopConsumer)
    thread._consumer = SimpleNamespace(_fetcher=fetcher)
    await thread.on_partitions_assigned(set(), 1)
    assert fetcher._fetch_max_wait_ms == 50
    async with asyncio.timeout(30):
        while fetcher._fetch_max_wait_ms != 1500:
            await asyncio.sleep(0.01)


async def test_a_table_manager_starts_without_a_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = create_app("test", Settings()).tables
    assert isinstance(manager, LoadedTableManager)
    calls: list[str] = []

    async def update_channels() -> None:
        calls.append("channels")

    async def start() -> None:
        calls.append("recovery")

    async def sleep(*_: object) -> None:
        raise AssertionError("a sleep delays the subscription")

    monkeypatch.setattr(manager, "_update_channels", update_channels)
    monkeypatch.setattr(manager.recovery, "start", start)
    monkeypatch.setattr(manager, "sleep", sleep)
    await manager.on_start()
    assert calls == ["channels", "recovery"]


def test_a_worker_that_died_is_replaced_after_its_session() -> None:
    conf = create_app("test", Settings()).conf
    assert conf.broker_session_timeout == 6.0, "the shortest session that brokers accept by default"
    assert conf.broker_heartbeat_interval <= 0.5
    longer = create_app("test", Settings(session_seconds=45)).conf
    assert longer.broker_session_timeout == 45.0
    assert longer.broker_request_timeout >= 45.0, "Faust refuses a shorter one"


def test_loaded_tables_leave_nothing_to_recover() -> None:
    manager = create_app("test", Settings()).tables
    manager.data["views"] = object()
    assert not manager, "Faust's recovery then only resumes the streams"



async def test_the_committed_offsets_of_all_partitions_come_in_one_request() -> None:
    """A request per partition takes longer than Faust waits, while a worker loads millions of rows."""
    tps = [TopicPartition("attn.log", number) for number in range(64)]
    requests, sought = [], []

    async def fetch(partitions: list[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
        requests.append(partitions)
        return {tp: OffsetAndMetadata(tp.partition - 1, "") for tp in partitions if tp.partition < 60}

    thread = LoopConsumer.__new__(LoopConsumer)
    thread._consumer = SimpleNamespace(
        _subscription=SimpleNamespace(assigned_partitions=lambda: frozenset(tps)),
        _coordinator=SimpleNamespace(fetch_committed_offsets=fetch),
        _fetcher=SimpleNamespace(seek_to=lambda tp, offset: sought.append((tp.partition, offset))))
    offsets = await thread.seek_to_committed()
    assert [set(partitions) for partitions in requests] == [set(tps)]
    assert [offsets[tp] for tp in tps] == [None, *range(59), None, None, None, None], "as aiokafka's own method"
    assert sorted(sought) == [(number, number - 1) for number in range(2, 60)]
