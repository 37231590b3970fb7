"""`attn history` with a failing ClickHouse, during rebalances, and with facts that cannot be stored."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from prometheus_client import REGISTRY
from support.clickhouse.facts import Feeder, answers, assert_exact, send
from support.clickhouse.faulty_client import Faulty, impatient, rows, until
from support.kafka.pipeline import Stack

from ops.process.ports import free_port
from schemas.dead_letters import DeadLetter
from schemas.settings import Settings
from schemas.topics import DEAD_LETTERS, FACTS, partition_of
from streams.history import insert_pipeline, lag
from streams.history.clickhouse import client
from streams.history.main import run
from streams.history.writer import PendingBatch
from streams.kafka import topics
from streams.runtime.lag import ConsumerStalled

pytestmark = pytest.mark.clickhouse
chdb = pytest.importorskip("chdb", reason="chdb is not installed")


@pytest.fixture
async def settings(stack: Stack, tmp_path: Path) -> AsyncIterator[Settings]:
    async with stack(data_dir=tmp_path, log_partitions=4, history_batch_rows=400, history_batch_ms=10) as made:
        await topics.ensure_topics(made)
        yield made


@pytest.fixture
async def clickhouse(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Faulty]:
    """One chdb engine for all writers of a test. chdb allows one process, which may have several writers."""
    real = client.connect(settings)
    faulty = Faulty(real)
    monkeypatch.setattr(client, "connect", lambda settings: faulty)
    yield faulty
    real.close()


@pytest.fixture
async def producer(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as started:
        yield started


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


@pytest.fixture
def gathered(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts, under "records", the records that the history has added to batches."""
    counts = Counter[str]()

    class Counted(PendingBatch):
        def add(self, partition: int, records: Sequence[Any]) -> None:
            super().add(partition, records)
            counts["records"] += len(records)

    monkeypatch.setattr(insert_pipeline, "PendingBatch", Counted)
    return counts


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
    async with asyncio.timeout(120):
        while clickhouse.faults <= 5:  # a slow machine writes few large batches, and few of them fail
            await send(producer, feeder.some(150), 4)
            await asyncio.sleep(0.05)
    clickhouse.fault = "away"
    for _ in range(5):
        await send(producer, feeder.some(400), 4)
        await asyncio.sleep(0.3)
    await until(lambda: clickhouse.faults > 10)
    await until(lambda: REGISTRY.get_sample_value("attn_history_clickhouse_up") == 0)
    assert not task.done()
    clickhouse.fault = "flaky"
    for _ in range(10):
        await send(producer, feeder.some(150), 4)
    clickhouse.fault = ""
    await until(lambda: rows(clickhouse) >= feeder.count)
    await until(lambda: REGISTRY.get_sample_value("attn_history_lag_rows") == 0)
    await until(lambda: REGISTRY.get_sample_value("attn_history_clickhouse_up") == 1)
    stop.set()
    await asyncio.wait_for(task, 60)
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
    await asyncio.wait_for(task_one, 60)
    await asyncio.sleep(1)
    stop_one, task_one = start(one)
    await asyncio.sleep(3)
    task_two.cancel()  # ends without a clean stop
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
        await asyncio.wait_for(task, 60)
    assert_exact(answers(clickhouse.real), feeder.all)


async def test_a_stop_writes_the_buffered_batch(
    settings: Settings, clickhouse: Faulty, producer: AIOKafkaProducer, start: Start, gathered: Counter[str]
) -> None:
    feeder = Feeder(4)
    stop, task = start(settings.model_copy(update={"history_batch_ms": 600_000, "history_batch_rows": 100_000}))
    facts = feeder.some(500)
    await send(producer, facts, 4)
    await until(lambda: gathered["records"] >= len(facts))
    assert rows(clickhouse) == 0
    stop.set()
    await asyncio.wait_for(task, 60)
    assert_exact(answers(clickhouse.real), feeder.all)


async def test_a_lagging_writer_writes_larger_batches(
    settings: Settings, clickhouse: Faulty, producer: AIOKafkaProducer, start: Start, monkeypatch: pytest.MonkeyPatch,
    gathered: Counter[str],
) -> None:
    sizes, may = list[int](), threading.Event()

    def held(context: Any) -> Any:
        sizes.append(len(context.data[0]))
        may.wait()
        return insert(context)

    insert = clickhouse.data_insert
    monkeypatch.setattr(clickhouse, "data_insert", held)
    feeder = Feeder(4)
    await send(producer, feeder.some(600, repeats=False), 4)
    stop, task = start(settings.model_copy(update={"history_batch_ms": 60_000, "history_batch_rows": 50}))
    try:
        await until(lambda: gathered["records"] >= 250)
        assert not sizes[1:]
    finally:
        may.set()
    await until(lambda: rows(clickhouse) >= feeder.count)
    stop.set()
    await asyncio.wait_for(task, 60)
    assert sizes[:2] == [50, 200], "the batch read during an insert has at most four times as many rows"
    assert max(sizes) == 200
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
    await asyncio.wait_for(task, 60)
    clickhouse.fault = ""
    stop, task = start(settings)
    await until(lambda: rows(clickhouse) >= feeder.count)
    stop.set()
    await asyncio.wait_for(task, 60)
    assert_exact(answers(clickhouse.real), feeder.all)


async def test_facts_that_cannot_be_stored_are_dead_letters(
    settings: Settings, clickhouse: Faulty, producer: AIOKafkaProducer, start: Start
) -> None:
    feeder = Feeder(4)
    await send(producer, feeder.some(300), 4)
    await producer.send_and_wait(FACTS, b"{not json", partition=0, headers=[("trace", b"1")])
    too_far = feeder.fact(index=1 << 40)
    feeder.by_partition[partition_of(too_far.ws, 4)].remove(too_far)
    await send(producer, [too_far], 4)
    await send(producer, feeder.some(300), 4)
    stop, task = start(settings)
    async with AIOKafkaConsumer(
        DEAD_LETTERS, bootstrap_servers=settings.kafka, auto_offset_reset="earliest"
    ) as dead:
        letters = [await asyncio.wait_for(dead.getone(), 60) for _ in range(2)]
    await until(lambda: rows(clickhouse) == len(feeder.all))
    stop.set()
    await asyncio.wait_for(task, 60)
    by_value = {letter.value: DeadLetter.from_record(letter.key, letter.value, letter.headers) for letter in letters}
    broken = by_value.pop(b"{not json")
    assert (broken.topic, broken.partition, broken.headers) == (FACTS, 0, [("trace", b"1")])
    assert "not a fact" in broken.reason
    (refused,) = by_value.values()
    assert "fact_index" in refused.reason
    assert_exact(answers(clickhouse.real), feeder.all)


async def test_history_is_not_ready_with_the_reason_while_clickhouse_is_down(
    settings: Settings, clickhouse: Faulty, producer: AIOKafkaProducer, start: Start, monkeypatch: pytest.MonkeyPatch,
) -> None:
    impatient(monkeypatch, 0.5)
    port = free_port()
    settings = settings.model_copy(update={"metrics_port": port})
    feeder = Feeder(4)
    stop, task = start(settings)

    async def ready() -> httpx.Response | None:
        async with httpx.AsyncClient() as asker:
            with contextlib.suppress(httpx.TransportError):
                return await asker.get(f"http://127.0.0.1:{port}/readyz")
        return None

    async def answers_with(status: int, text: str) -> None:
        async with asyncio.timeout(90):
            while (answer := await ready()) is None or answer.status_code != status or text not in answer.text:
                await asyncio.sleep(0.1)

    await answers_with(200, "ok")
    clickhouse.fault = "away"
    await send(producer, feeder.some(40), 4)
    await answers_with(503, "ClickHouse: OperationalError: connection refused")
    clickhouse.fault = ""
    await answers_with(200, "ok")
    stop.set()
    await asyncio.wait_for(task, 60)


async def test_a_stalled_write_ends_the_history(
    settings: Settings, clickhouse: Faulty, producer: AIOKafkaProducer, start: Start, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lag, "_MAX_STALL", 3.0)
    hung = threading.Event()
    monkeypatch.setattr(Faulty, "data_insert", lambda self, context: hung.wait())
    stop, task = start(settings)
    await send(producer, Feeder(4).some(40), 4)
    with pytest.raises(ConsumerStalled, match=r"attn.facts/\d stays at offset 0"):
        await asyncio.wait_for(task, 60)
    hung.set()
    stop.set()
