"""A writer that starts during `attn history --rebuild` is assigned no partition until the rebuild has ended."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from support.clickhouse.clickhouse_http import ClickHouse
from support.clickhouse.facts import Feeder, exact, feed
from support.kafka.brokers import KAFKA_ONLY
from support.kafka.pipeline import Stack

from ops.process.ports import free_port
from schemas.settings import Settings
from streams.history.clickhouse import client
from streams.history.main import run
from streams.history.rebuild.group_lock import GROUP, GroupLock, RebuildError
from streams.history.rebuild.rebuild import _Rebuild, rebuild
from streams.kafka import topics

# On Apache Kafka only: with the embedded broker a rebuild takes the lock of the data directory instead.
pytestmark = [pytest.mark.clickhouse, KAFKA_ONLY]
chdb = pytest.importorskip("chdb", reason="chdb is not installed")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ClickHouse]:
    clickhouse = ClickHouse(tmp_path / "server", free_port())
    clickhouse.start()
    yield clickhouse
    clickhouse.kill()


@pytest.fixture
async def settings(stack: Stack, server: ClickHouse, tmp_path: Path) -> AsyncIterator[Settings]:
    async with stack(
        data_dir=tmp_path, log_partitions=3, history_batch_rows=100, history_batch_ms=10, clickhouse=server.url,
    ) as made:
        await topics.ensure_topics(made)
        yield made


def rows(settings: Settings) -> int:
    """Returns the number of rows of table `activity`; 0 if the table does not exist."""
    sql = "SELECT sum(total_rows) FROM system.tables WHERE database = 'attn' AND name = 'activity'"
    with closing(client.connect(settings)) as connection:
        return int(connection.query(sql).result_rows[0][0] or 0)


async def until_rows(settings: Settings, wanted: int) -> None:
    """Waits until table `activity` has `wanted` rows."""
    async with asyncio.timeout(180):
        while await asyncio.to_thread(rows, settings) < wanted:
            await asyncio.sleep(0.1)


@asynccontextmanager
async def writer(settings: Settings) -> AsyncIterator[asyncio.Task[None]]:
    stop = asyncio.Event()
    running = asyncio.create_task(run(settings, stop))
    try:
        yield running
    finally:
        stop.set()
        await running


async def until_writer_waits(settings: Settings) -> None:
    """Waits until a writer joins the group. The rebalance then waits for the rebuild, the only member."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
    await admin.start()
    try:
        async with asyncio.timeout(120):
            while True:
                (answer,) = await admin.describe_consumer_groups([GROUP])
                if answer.groups[0][2] == "PreparingRebalance":
                    return
                await asyncio.sleep(0.1)
    finally:
        await admin.close()


async def test_a_writer_waits_for_the_table_swap_and_writes_to_the_new_tables(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    feeder = Feeder(3)
    await feed(settings, feeder.some(400))
    async with writer(settings):
        await until_rows(settings, 400)
    with closing(client.connect(settings)) as connection:
        connection.command(
            "ALTER TABLE attn.activity DELETE WHERE workspace_id = 'ws_1'", settings={"mutations_sync": 2})
    swapping, resume, swap = threading.Event(), threading.Event(), _Rebuild._swap

    def held(self: Any) -> None:
        swapping.set()
        resume.wait()
        swap(self)

    monkeypatch.setattr(_Rebuild, "_swap", held)
    making = asyncio.create_task(rebuild(settings))
    try:
        assert await asyncio.to_thread(swapping.wait, 120)
        await feed(settings, feeder.some(150))
        before = rows(settings)
        async with writer(settings):
            await until_writer_waits(settings)
            assert rows(settings) == before
            resume.set()
            report = await making
            assert report.after["activity"].facts == 400
            await until_rows(settings, 550)
    finally:
        resume.set()
    exact(settings, feeder.all)


async def test_a_rebuild_that_loses_the_group_lock_changes_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    feeder = Feeder(3)
    await feed(settings, feeder.some(400))
    async with writer(settings):
        await until_rows(settings, 400)
        with pytest.raises(RebuildError, match=r"`attn history` runs \(1 in group"):
            await rebuild(settings)
    filling, resume, write = asyncio.Event(), asyncio.Event(), _Rebuild._write

    async def held(self: Any, *args: Any) -> None:
        filling.set()
        await resume.wait()
        await write(self, *args)

    noticed, revoked = asyncio.Event(), GroupLock.on_partitions_revoked

    async def on_revoked(self: GroupLock, partitions: Any) -> None:
        """The rebuild notices the rebalance at its next heartbeat. A rebuild that ends earlier is not disturbed."""
        if self._acquired.is_set():
            noticed.set()
        await revoked(self, partitions)

    monkeypatch.setattr(_Rebuild, "_write", held)
    monkeypatch.setattr(GroupLock, "on_partitions_revoked", on_revoked)
    making = asyncio.create_task(rebuild(settings))
    await asyncio.wait_for(filling.wait(), 120)
    await feed(settings, feeder.some(150))
    async with writer(settings):
        await until_writer_waits(settings)
        await asyncio.wait_for(noticed.wait(), 120)
        resume.set()
        with pytest.raises(RebuildError, match="started meanwhile: nothing was changed"):
            await making
        await until_rows(settings, 550)
    exact(settings, feeder.all)


async def test_a_killed_rebuild_does_not_block_writers(settings: Settings) -> None:
    feeder = Feeder(3)
    await feed(settings, feeder.some(400))
    async with writer(settings):
        await until_rows(settings, 400)
    code = (
        "import asyncio, sys\n"
        "from schemas.settings import Settings\n"
        "from streams.history.rebuild import rebuild\n"
        "async def held(*_):\n"
        "    print('holds', flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "rebuild._Rebuild._write = held\n"
        "asyncio.run(rebuild.rebuild(Settings.model_validate_json(sys.argv[1])))\n"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, settings.model_dump_json(), stdout=asyncio.subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert await asyncio.wait_for(child.stdout.readline(), 120) == b"holds\n"
        await feed(settings, feeder.some(150))
        before = rows(settings)
        async with writer(settings):
            await until_writer_waits(settings)
            assert rows(settings) == before
            child.kill()
            await until_rows(settings, 550)
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
    await rebuild(settings)  # the tables of the killed rebuild do not disturb a new one
    exact(settings, feeder.all)
