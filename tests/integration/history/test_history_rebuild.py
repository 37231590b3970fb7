"""`attn history --rebuild` builds the tables again, with the same content, from the facts in Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from support.clickhouse.facts import Feeder, exact, feed
from support.processes.cli import attn_here

from ops.embedded.broker import EmbeddedBroker
from schemas.settings import Settings
from schemas.topics import partition_of
from streams.history import metrics
from streams.history.clickhouse import client
from streams.history.clickhouse.columns import columns
from streams.history.clickhouse.repository import ActivityRepository
from streams.history.main import run
from streams.history.rebuild.group_lock import RebuildError, wait_until_group_empty
from streams.history.rebuild.rebuild import rebuild
from streams.kafka import topics

pytestmark = [pytest.mark.clickhouse, pytest.mark.broker]
chdb = pytest.importorskip("chdb", reason="chdb is not installed")
HELD = 10_000  # lowest position of the facts that Kafka still has


@pytest.fixture
async def settings(tmp_path: Path) -> AsyncIterator[Settings]:
    broker = EmbeddedBroker(tmp_path)
    await broker.start()
    made = Settings(kafka=broker.bootstrap, data_dir=tmp_path, log_partitions=3, history_batch_rows=100,
                    _env_file=None)
    await topics.ensure_topics(made)
    yield made
    await broker.stop()


def written() -> float:
    return sum(sample.value for sample in next(iter(metrics.ROWS.collect())).samples if sample.name.endswith("_total"))


@asynccontextmanager
async def history(settings: Settings, rows: int) -> AsyncIterator[None]:
    """Runs the history during the block. The block begins once `rows` more rows are written."""
    stop, until = asyncio.Event(), written() + rows
    running = asyncio.create_task(run(settings, stop))
    try:
        async with asyncio.timeout(90):
            while written() < until:
                await asyncio.sleep(0.05)
        yield
    finally:
        stop.set()
        await running


async def test_damaged_tables_are_rebuilt_and_the_writer_continues(settings: Settings) -> None:
    feeder = Feeder(3)
    await feed(settings, feeder.some(400))
    async with history(settings, feeder.count):
        with pytest.raises(RebuildError, match="`attn history` runs"):
            await wait_until_group_empty(settings, seconds=1)
    with closing(client.connect(settings)) as connection:
        connection.command("TRUNCATE TABLE attn.items_hourly")
        connection.command(
            "ALTER TABLE attn.activity DELETE WHERE workspace_id = 'ws_1'", settings={"mutations_sync": 2})
        connection.command("INSERT INTO attn.activity_hourly SELECT * FROM attn.activity_hourly")
    report = await rebuild(settings)
    assert report.after["activity"].facts == feeder.count > report.before["activity"].facts
    assert report.after["activity"].checksum != report.before["activity"].checksum
    exact(settings, feeder.all)
    assert (await rebuild(settings)).before == report.after  # a second rebuild gives equal checksums
    assert (report.kept, report.refused) == (0, 0)
    await feed(settings, feeder.some(100))
    async with history(settings, 100):
        pass
    exact(settings, feeder.all)


async def test_rows_older_than_the_topic_are_dropped_only_with_the_flag(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    feeder = Feeder(3)
    older = feeder.some(60, repeats=False)
    feeder.positions = [HELD] * 3
    held = feeder.some(100)
    await feed(settings, held)
    async with history(settings, 100):
        pass
    with closing(client.connect(settings)) as connection:
        repository = ActivityRepository(connection, "attn", local=True)
        repository.insert(columns(older, [partition_of(fact.ws, 3) for fact in older]), "older")
    with pytest.raises(RebuildError, match="rows are of facts that Kafka does not hold any more; --missing-facts keep"):
        await rebuild(settings)
    exact(settings, feeder.all)
    report = await rebuild(settings, "keep")
    assert report.kept == 60
    assert report.before == report.after
    exact(settings, feeder.all)
    for name, value in (("ATTN_KAFKA", settings.kafka), ("ATTN_LOG_PARTITIONS", "3"), ("COLUMNS", "150"),
                        ("ATTN_DATA_DIR", str(settings.data_dir))):
        monkeypatch.setenv(name, value)
    assert await asyncio.to_thread(attn_here, "history", "--rebuild", "--older", "drop") == 0
    assert "0 older rows taken over, 0 refused" in capfd.readouterr().err
    exact(settings, [fact for fact in feeder.all if fact.pos > HELD])
