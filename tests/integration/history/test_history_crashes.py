"""`attn history` loses and repeats no fact when it is killed at random moments, alone or together with the broker."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from support.clickhouse.facts import Feeder, ask, assert_exact, send, start_history
from support.kafka.pipeline import Stack

from ops.embedded.broker import EmbeddedBroker, binary
from ops.process.ports import free_port
from schemas.facts import Fact
from schemas.settings import Settings
from schemas.topics import FACTS
from streams.history.rebuild.rebuild import rebuild
from streams.history.writer import facts_of
from streams.kafka import topics
from streams.kafka.reader import read_offsets

pytestmark = pytest.mark.clickhouse
chdb = pytest.importorskip("chdb", reason="chdb is not installed")

KILLS = 10
# Limits of facts sent while a process starts (1.5 s of CPU), and while it reads until it is killed. Without limits a
# slow machine sends more facts during a start, and these facts make the next start slower.
AT_START, WHILE_READING = 300, 1000
READING = "partitions of attn.facts"


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    broker = EmbeddedBroker(tmp_path)
    await broker.start()
    yield broker
    await broker.stop()


def metric(settings: Settings, name: str) -> float:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{settings.metrics_port}/metrics", timeout=2) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return -1.0
    return next((float(line.split()[1]) for line in lines if line.startswith(name + " ")), -1.0)


async def caught_up(settings: Settings) -> None:
    """Waits until the metrics show a lag of 0 for 2 s. The history measures its lag once a second."""
    calm = 0
    async with asyncio.timeout(90):
        while calm < 4:
            await asyncio.sleep(0.5)
            up, lag = [
                await asyncio.to_thread(metric, settings, f"attn_history_{name}")
                for name in ("clickhouse_up", "lag_rows")
            ]
            calm = calm + 1 if (up, lag) == (1, 0) else 0


async def test_repeated_kills_lose_and_repeat_no_fact(stack: Stack, tmp_path: Path) -> None:
    # Small batches: an insert runs at almost any time, so most kills interrupt one.
    async with stack(log_partitions=4, metrics_port=free_port(), data_dir=tmp_path, history_batch_rows=60,
                     history_batch_ms=1) as settings:
        await topics.ensure_topics(settings)
        await kill_again_and_again(settings, tmp_path / "history.log")


async def kill_again_and_again(settings: Settings, log: Path) -> None:
    feeder, over, limit = Feeder(4), asyncio.Event(), 0

    async def feed() -> None:
        async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as producer:
            while not over.is_set():
                if feeder.count < limit:
                    await send(producer, feeder.some(25), 4)
                await asyncio.sleep(0.025)

    feeding = asyncio.create_task(feed())
    chance = random.Random(7)
    for number in range(KILLS):
        limit += AT_START
        process = start_history(settings, log)
        if number % 4:  # every fourth process is killed while it starts
            await until_reading(log, process)
        limit = feeder.count + WHILE_READING
        await asyncio.sleep(chance.uniform(0, 0.7))
        process.kill()
        await asyncio.to_thread(process.wait)
    over.set()
    await feeding
    settings = settings.model_copy(update={"history_batch_rows": 5000, "history_batch_ms": 50})
    await catch_up_and_stop(settings, log)
    assert_exact(await asyncio.to_thread(ask, settings), feeder.all)
    report = await rebuild(settings)
    assert report.before == report.after, "the tables differ from those built from the topic"
    print(f"{feeder.count} facts, {log.read_text().count('made again')} of {KILLS} kills left hours incomplete")


async def catch_up_and_stop(settings: Settings, log: Path) -> None:
    """Starts a history, waits until it has written all facts, and stops it by SIGTERM."""
    process = start_history(settings, log)
    try:
        await caught_up(settings)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 60) == 0
    finally:
        process.kill()
        process.wait()


async def until_reading(log: Path, process: subprocess.Popen[bytes]) -> None:
    """Waits until the started process logs that it reads partitions."""
    before = log.read_text().count(READING)
    async with asyncio.timeout(90):
        while log.read_text().count(READING) == before:
            assert process.poll() is None, log.read_text()
            await asyncio.sleep(0.02)


@pytest.mark.broker
@pytest.mark.skipif(binary() is None, reason="noida-db is not installed")
async def test_history_is_exact_after_a_broker_kill_truncates_the_topic(
    embedded: EmbeddedBroker, tmp_path: Path
) -> None:
    """The broker loses the end of the topic. The fold has lost some events too: it folds them again, and writes their
    facts at positions after a jump."""
    settings = Settings(
        kafka=embedded.bootstrap, data_dir=embedded.data_dir, log_partitions=4, metrics_port=free_port(),
        history_batch_ms=20, _env_file=None)
    await topics.ensure_topics(settings)
    feeder = Feeder(4)
    log = tmp_path / "history.log"
    sent: list[Fact] = []
    for _ in range(2):
        process = start_history(settings, log)
        try:
            await until_reading(log, process)
            async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as producer:
                for _ in range(10):
                    await send(producer, feeder.some(100), 4)
                sent = feeder.all
                await asyncio.sleep(0.5)
                # The broker is killed right after it acknowledged the last fact, so it loses facts not saved yet.
                await send(producer, feeder.some(500, repeats=False), 4)
                embedded.kill()
        finally:
            process.kill()
            process.wait()
        await embedded.stop()
        await embedded.start()
        kept = await in_topic(settings)
        lost = [fact for fact in feeder.all if (fact.ws, fact.event_id) not in kept]
        feeder.jump()
        async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as producer:
            await send(producer, feeder.some(50), 4)
            # The fold emits all lost facts again, and 300 that are not lost: its view has lost more than the facts.
            # Each fact occurs once: the broker may have lost some of these 300 too.
            repeated = {(fact.ws, fact.event_id): fact for fact in [*sent[-300:], *lost]}
            await send(producer, feeder.again(repeated.values()), 4)
            await send(producer, feeder.some(50), 4)
        print(f"{len(lost)} of {len(feeder.all)} facts were lost and emitted again")
    await catch_up_and_stop(settings, log)
    assert_exact(await asyncio.to_thread(ask, settings), feeder.all)
    assert "log truncated" in log.read_text()


async def in_topic(settings: Settings) -> set[tuple[str, str]]:
    """Returns workspace and event id of each fact in the topic."""
    present = set()
    for partition in range(4):
        tp = TopicPartition(FACTS, partition)
        async with AIOKafkaConsumer(bootstrap_servers=settings.kafka) as consumer:
            end = (await consumer.end_offsets([tp]))[tp]
        async for run in read_offsets(settings, tp, 0, end):
            present |= {(fact.ws, fact.event_id) for fact, _ in facts_of(run, [])}
    return present
