"""The history with a ClickHouse that fails in every way, with partitions that move, and with facts nobody can store."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from clickhouse_connect.driver.exceptions import OperationalError
from prometheus_client import REGISTRY
from support.history import Feeder, answers, assert_exact, send

from ops.broker import EmbeddedBroker, binary
from schemas.deadletters import DeadLetter
from schemas.settings import Settings
from schemas.topics import DEAD_LETTERS, FACTS, partition_of
from streams import topics
from streams.history import backoff, client, consumer, run

pytestmark = [
    pytest.mark.broker, pytest.mark.clickhouse, pytest.mark.timeout(120),
    pytest.mark.skipif(binary() is None, reason="noida-db is not installed"),
]
chdb = pytest.importorskip("chdb", reason="chdb is not installed")


class Faulty:
    """A client that does as told: `fault` names what the next calls do."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.fault = ""
        self.random = random.Random(3)
        self.faults = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def close(self) -> None:
        pass  # the test asks it afterwards

    def query(self, *args: Any, **kwargs: Any) -> Any:
        self._away()
        return self.real.query(*args, **kwargs)

    def command(self, *args: Any, **kwargs: Any) -> Any:
        self._away()
        return self.real.command(*args, **kwargs)

    def data_insert(self, context: Any) -> Any:
        self._away()
        what = self.random.choice(("", "", "before", "after", "views")) if self.fault == "flaky" else ""
        self.faults += bool(what)
        if what == "before":
            raise OperationalError("connection reset")
        if what == "views":
            return self._without_views(context)
        self.real.data_insert(context)
        if what == "after":
            raise OperationalError("no answer in time")
        return None

    def _without_views(self, context: Any) -> None:
        """The table gets its rows, and what is made of them fails: as a crash between the two leaves it."""
        self.real.command("ALTER TABLE attn.activity_hourly ADD CONSTRAINT full CHECK facts < 0")
        try:
            self.real.data_insert(context)
        finally:
            self.real.command("ALTER TABLE attn.activity_hourly DROP CONSTRAINT full")

    def _away(self) -> None:
        if self.fault == "away":
            self.faults += 1
            raise OperationalError("connection refused")


@pytest.fixture
async def settings(tmp_path: Path) -> AsyncIterator[Settings]:
    broker = EmbeddedBroker(tmp_path)
    await broker.start()
    found = Settings(
        kafka=broker.bootstrap, data_dir=tmp_path, log_partitions=4, history_batch_rows=400, history_batch_ms=10,
        _env_file=None,
    )
    await topics.ensure(found)
    yield found
    await broker.stop()


@pytest.fixture
async def clickhouse(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Faulty]:
    """One engine for all that the test runs: chdb takes one process, not one writer."""
    real = client.connect(settings)
    faulty = Faulty(real)
    monkeypatch.setattr(client, "connect", lambda settings: faulty)
    yield faulty
    real.close()


@pytest.fixture
async def producer(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as found:
        yield found


Start = Callable[[Settings], tuple[asyncio.Event, asyncio.Task[None]]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    running: list[asyncio.Task[None]] = []

    def begin(settings: Settings) -> tuple[asyncio.Event, asyncio.Task[None]]:
        stop = asyncio.Event()
        running.append(task := asyncio.create_task(run(settings, stop)))
        return stop, task

    yield begin
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


def rows(faulty: Faulty) -> int:
    sql = "SELECT ifNull(sum(total_rows), 0) FROM system.tables WHERE database = 'attn' AND name = 'activity'"
    return int(faulty.real.query(sql).result_rows[0][0])


async def until(there: Callable[[], bool], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(there):
            await asyncio.sleep(0.05)


def impatient(monkeypatch: pytest.MonkeyPatch, stalled: float) -> None:
    """Shorter waits, and so long until a batch that fails is begun anew."""
    monkeypatch.setattr(consumer, "Backoff", lambda: backoff.Backoff(0.005, 0.02))
    monkeypatch.setattr(consumer, "_STALLED", stalled)


@pytest.mark.parametrize("stalled", [0.03, 60])
async def test_failing_inserts_and_an_outage(
    settings: Settings, clickhouse: Faulty, producer: AIOKafkaProducer, start: Start, monkeypatch: pytest.MonkeyPatch,
    stalled: float,
) -> None:
    impatient(monkeypatch, stalled)
    feeder = Feeder(4)
    stop, task = start(settings)
    clickhouse.fault = "flaky"
    for _ in range(25):
        await send(producer, feeder.some(150), 4)
    await until(lambda: clickhouse.faults > 5)
    clickhouse.fault = "away"
    for _ in range(5):
        await send(producer, feeder.some(400), 4)
        await asyncio.sleep(0.3)
    assert not task.done()
    assert clickhouse.faults > 10
    assert REGISTRY.get_sample_value("attn_history_clickhouse_up") == 0
    clickhouse.fault = "flaky"
    for _ in range(10):
        await send(producer, feeder.some(150), 4)
    clickhouse.fault = ""
    await until(lambda: rows(clickhouse) >= feeder.count)
    await until(lambda: REGISTRY.get_sample_value("attn_history_lag_rows") == 0)
    assert REGISTRY.get_sample_value("attn_history_clickhouse_up") == 1
    stop.set()
    await asyncio.wait_for(task, 5)
    assert_exact(answers(clickhouse.real), feeder.all)


async def test_partitions_move_between_writers(
    settings: Settings, clickhouse: Faulty, producer: AIOKafkaProducer, start: Start, monkeypatch: pytest.MonkeyPatch,
) -> None:
    impatient(monkeypatch, 0.1)
    feeder = Feeder(4)
    over = asyncio.Event()

    async def feed() -> None:
        while not over.is_set():
            await send(producer, feeder.some(40), 4)
            await asyncio.sleep(0.02)

    feeding = asyncio.create_task(feed())
    clickhouse.fault = "flaky"
    one, two = settings, settings.model_copy(update={"instance": "2"})
    stop_one, task_one = start(one)
    await asyncio.sleep(2)
    stop_two, task_two = start(two)
    await asyncio.sleep(3)
    stop_one.set()
    await asyncio.wait_for(task_one, 6)
    await asyncio.sleep(1)
    stop_one, task_one = start(one)
    await asyncio.sleep(3)
    task_two.cancel()  # dies
    await asyncio.gather(task_two, return_exceptions=True)
    stop_two, task_two = start(two)
    await asyncio.sleep(1)
    over.set()
    await feeding
    clickhouse.fault = ""
    await until(lambda: rows(clickhouse) >= feeder.count)
    await asyncio.sleep(0.5)
    for stop, task in ((stop_one, task_one), (stop_two, task_two)):
        stop.set()
        await asyncio.wait_for(task, 6)
    assert_exact(answers(clickhouse.real), feeder.all)


async def test_a_stop_writes_what_is_gathered(
    settings: Settings, clickhouse: Faulty, producer: AIOKafkaProducer, start: Start
) -> None:
    feeder = Feeder(4)
    stop, task = start(settings.model_copy(update={"history_batch_ms": 60_000, "history_batch_rows": 100_000}))
    await send(producer, feeder.some(500), 4)
    await asyncio.sleep(2.5)
    assert rows(clickhouse) == 0
    stop.set()
    begun = time.monotonic()
    await asyncio.wait_for(task, 5)
    assert time.monotonic() - begun < 5
    assert_exact(answers(clickhouse.real), feeder.all)


@pytest.mark.parametrize("from_the_start", [True, False])
async def test_a_stop_does_not_wait_for_clickhouse(
    settings: Settings, clickhouse: Faulty, producer: AIOKafkaProducer, start: Start, from_the_start: bool
) -> None:
    feeder = Feeder(4)
    clickhouse.fault = "away" if from_the_start else ""
    stop, task = start(settings)
    await send(producer, feeder.some(500), 4)
    if not from_the_start:
        await until(lambda: rows(clickhouse) == 500)
        clickhouse.fault = "away"
        await send(producer, feeder.some(500), 4)
    await asyncio.sleep(1)
    assert not task.done()
    stop.set()
    await asyncio.wait_for(task, 5)
    clickhouse.fault = ""
    stop, task = start(settings)
    await until(lambda: rows(clickhouse) >= feeder.count)
    stop.set()
    await asyncio.wait_for(task, 5)
    assert_exact(answers(clickhouse.real), feeder.all)


async def test_what_cannot_be_stored_goes_to_dead_letters(
    settings: Settings, clickhouse: Faulty, producer: AIOKafkaProducer, start: Start
) -> None:
    feeder = Feeder(4)
    await send(producer, feeder.some(300), 4)
    await producer.send_and_wait(FACTS, b"{not json", partition=0, headers=[("trace", b"1")])
    too_far = feeder.fact(index=1 << 40)
    feeder.told[partition_of(too_far.ws, 4)].remove(too_far)
    await send(producer, [too_far], 4)
    await send(producer, feeder.some(300), 4)
    stop, task = start(settings)
    async with AIOKafkaConsumer(
        DEAD_LETTERS, bootstrap_servers=settings.kafka, auto_offset_reset="earliest"
    ) as dead:
        letters = [await asyncio.wait_for(dead.getone(), 20) for _ in range(2)]
    await until(lambda: rows(clickhouse) == len(feeder.all))
    stop.set()
    await asyncio.wait_for(task, 5)
    found = {letter.value: DeadLetter.from_record(letter.key, letter.value, letter.headers) for letter in letters}
    broken = found.pop(b"{not json")
    assert (broken.topic, broken.partition, broken.headers) == (FACTS, 0, [("trace", b"1")])
    assert "not a fact" in broken.reason
    (refused,) = found.values()
    assert "fact_index" in refused.reason
    assert_exact(answers(clickhouse.real), feeder.all)


