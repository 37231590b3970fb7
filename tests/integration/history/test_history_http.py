"""`attn history` with a ClickHouse server over HTTP that is slow, cuts connections, does not answer, or is killed."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from support.clickhouse.clickhouse_http import ClickHouse
from support.clickhouse.facts import BEGIN, Feeder, answers, assert_exact, send
from support.kafka import brokers
from support.kafka.pipeline import Stack

from ops.process.ports import free_port
from schemas.facts import Fact
from schemas.settings import Settings
from schemas.topics import partition_of
from streams.history import consumer, insert_pipeline
from streams.history.clickhouse import client, migrate
from streams.history.clickhouse.client import ClickHouseUnavailable, RowsRefused
from streams.history.clickhouse.columns import columns
from streams.history.clickhouse.repository import ActivityRepository
from streams.history.main import run
from streams.kafka import topics
from streams.runtime import backoff

pytestmark = pytest.mark.clickhouse
chdb = pytest.importorskip("chdb", reason="chdb is not installed")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ClickHouse]:
    clickhouse = ClickHouse(tmp_path / "server", free_port())
    clickhouse.start()
    yield clickhouse
    clickhouse.kill()


def connect(server: ClickHouse) -> Any:
    """Returns a client for the queries of the test, with a timeout of 60 s. Tests shorten that of the writer."""
    return client.connect(Settings(clickhouse=server.url, _env_file=None), 60)


def test_the_store_over_http(server: ClickHouse) -> None:
    with pytest.raises(ClickHouseUnavailable):
        client.connect(Settings(clickhouse=f"http://127.0.0.1:{free_port()}", _env_file=None))
    clickhouse = connect(server)
    migrate.apply(clickhouse, "attn")
    store, feeder = ActivityRepository(clickhouse, "attn"), Feeder(4)

    def put(facts: list[Fact], token: str) -> None:
        store.insert(columns(facts, [partition_of(fact.ws, 4) for fact in facts]), token)

    # 5000 ids, as many as a batch has, do not fit into a URL.
    put(feeder.some(5000, repeats=False), "first")
    stored = feeder.by_partition[1]
    events = [(fact.ws, fact.event_id) for fact in stored]
    assert store.stored_events(1, events) == set(events)
    assert len(store.stored_at(1, stored)) == len(stored)
    store.wait_for_running_inserts()
    clickhouse.command("TRUNCATE TABLE attn.activity_hourly")
    assert store.repair_hourly_tables(range(4)) > 0
    for number, fault in enumerate(("refuse", "reset", "error", "slow")):
        server.fault(fault)
        facts = feeder.some(50, repeats=False)
        with contextlib.suppress(ClickHouseUnavailable):  # the driver itself retries after some faults
            put(facts, f"t{number}")
        put(facts, f"t{number}")
        assert_exact(answers(clickhouse), feeder.all)
    for bad in ({"index": 1 << 40}, {"title": "\ud800"}):
        with pytest.raises(RowsRefused):
            put([Fact(ws="w", pos=1, time=BEGIN, type="x", subject="s", event_id="e", **({"index": 0} | bad))], "bad")
    assert_exact(answers(clickhouse), feeder.all)
    clickhouse.close()


@brokers.EMBEDDED_ONLY  # only ClickHouse fails here; test_history_faults and test_history_crashes use Apache Kafka too
async def test_history_is_exact_despite_faults_and_kills_of_the_server(
    server: ClickHouse, tmp_path: Path, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_RESPONSE_SECONDS", 1)
    for module in (consumer, insert_pipeline):
        monkeypatch.setattr(module, "Backoff", lambda: backoff.Backoff(0.05, 0.2))
    monkeypatch.setattr(insert_pipeline, "_MAX_RETRY_TIME", 1.0)
    async with stack(
        clickhouse=server.url, log_partitions=4, history_batch_rows=200, history_batch_ms=10, data_dir=tmp_path
    ) as settings:
        await topics.ensure_topics(settings)
        await kill_the_server(server, settings)


async def kill_the_server(server: ClickHouse, settings: Settings) -> None:
    feeder, over, stop, chance = Feeder(4), asyncio.Event(), asyncio.Event(), random.Random(5)

    async def feed() -> None:
        async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as producer:
            while not over.is_set():
                await send(producer, feeder.some(20), 4)
                await asyncio.sleep(0.02)

    feeding, running = asyncio.create_task(feed()), asyncio.create_task(run(settings, stop))
    try:
        for _ in range(3):
            for _ in range(3):
                await asyncio.sleep(0.4)
                await asyncio.to_thread(server.fault, chance.choice(("refuse", "reset", "error", "slow", "lost")), 2)
            await asyncio.sleep(chance.uniform(0, 0.5))
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(0.5)
            assert not running.done()
            await asyncio.to_thread(server.start)
        over.set()
        await feeding
        clickhouse = await asyncio.to_thread(connect, server)
        async with asyncio.timeout(180):
            while await asyncio.to_thread(migrate.pending, clickhouse, "attn"):  # a kill may have interrupted them
                await asyncio.sleep(0.3)
            while len((await asyncio.to_thread(answers, clickhouse))["events"]) < feeder.count:
                await asyncio.sleep(0.3)
        stop.set()
        await asyncio.wait_for(running, 60)
        assert_exact(answers(clickhouse), feeder.all)
        clickhouse.close()
    finally:
        over.set()
        stop.set()
        await asyncio.gather(feeding, running, return_exceptions=True)
