"""Commands `attn rebuild` and `attn checkpoint`: their output, and views restored from a checkpoint."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from support.kafka import pipeline
from support.kafka.brokers import KAFKA_ONLY
from support.kafka.pipeline import Stack, caught_up, eventually, look, send, worker
from support.processes.cli import attn_here
from support.processes.view_damage import (
    LINES,
    check,
    corrupt,
    differences,
    env_of,
    folded,
    of_later,
    with_targets,
)

from ops.cli.data.checkpoints import Checkpoint
from schemas.settings import Settings
from schemas.topics import LOG, VIEWS
from streams.core.config import FoldConfig
from streams.core.fold.fold import POSITION_JUMP
from streams.kafka import topics
from streams.rebuild.rebuild import PartitionRebuild

pytestmark = pytest.mark.timeout(180)

Attn = Callable[..., Awaitable[str]]


@pytest.fixture
def attn(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Attn:
    """Runs a command in a thread: `await attn(settings, "rebuild", ..., expect=0)`. Returns its output and errors."""

    async def run(settings: Settings, *arguments: str, expect: int = 0) -> str:
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("ATTN_")]:
                patch.delenv(name)
            for name, value in env_of(settings).items():
                patch.setenv(name, value)
            patch.chdir(tmp_path)
            capsys.readouterr()
            code = await asyncio.to_thread(attn_here, *arguments)
        output = "".join(capsys.readouterr())
        assert code == expect, output
        return output

    return run


async def forget(settings: Settings, partition: int, before: int) -> None:
    """Deletes the records of a log partition before the offset `before`, as retention does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(LOG, partition): RecordsToDelete(before_offset=before)})
    finally:
        await admin.close()


@KAFKA_ONLY
async def test_a_log_without_its_first_records_needs_a_checkpoint(stack: Stack, attn: Attn, tmp_path: Path) -> None:
    """Needs Apache Kafka: the embedded broker cannot delete records."""
    file = tmp_path / "views.gz"
    async with folded(stack) as settings:
        await attn(settings, "checkpoint", str(file))
        at = (await look(settings)).log[0][-1].offset + 1
        async with worker(settings):
            later = of_later(100)
            await send(settings, later)
            before = await eventually(lambda: caught_up(settings, len(LINES) + len(later)), "all events are folded")
        wrong = await corrupt(settings, 0)
        await forget(settings, 0, 1)
        for more in ([], ["--check"]):
            output = await attn(settings, "rebuild", *more, expect=1)
            assert "attn.log/0 begins at offset 1: earlier records cannot be folded again" in output
        await forget(settings, 0, at)
        other = with_targets(settings, 9)
        assert "other fold settings (targets)" in await attn(other, "rebuild", "--base", str(file), expect=1)
        bases = dict(Checkpoint(file).bases({0, 1}))
        rebuild = PartitionRebuild(settings, 0, FoldConfig.from_settings(settings), bases[0])
        assert (await rebuild.check()).differing == wrong
        assert "replaced 6 rows" in await attn(settings, "rebuild", "--base", str(file))
        assert not differences(before, await look(settings), 0)
        await forget(settings, 0, at + 1)
        assert f"the checkpoint needs it from {at} on" in await attn(
            settings, "rebuild", "--base", str(file), expect=1)


async def test_a_view_that_is_gone_comes_back_from_a_checkpoint(stack: Stack, attn: Attn, tmp_path: Path) -> None:
    file = tmp_path / "views.gz"
    async with folded(stack) as settings:
        await attn(settings, "checkpoint", str(file))
        before = await look(settings)
        admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
        await admin.start()
        await admin.delete_topics([VIEWS])
        await admin.close()
        await eventually(lambda: created_again(settings), "the topic of views is created again")
        await attn(settings, "rebuild", "--base", str(file))
        after = await look(settings)
        for number in (0, 1):
            assert not differences(before, after, number)
            positions = [pipeline.position(seen.rows[number], number).position for seen in (before, after)]
            assert positions[1] == positions[0] + POSITION_JUMP
        async with worker(settings):
            await send(settings, of_later(30))
            await eventually(lambda: caught_up(settings, len(LINES) + 20), "the worker folds new events")
        assert await check(settings) == {}


async def created_again(settings: Settings) -> bool:
    """Creates missing topics. Returns whether the topic of views exists and is empty."""
    try:
        await topics.ensure_topics(settings)
    except topics.TopicError:
        return False
    return not (await pipeline.read(settings, VIEWS)).get(0, [None])


async def test_the_command_line(stack: Stack, attn: Attn) -> None:
    async with folded(stack) as settings:
        await corrupt(settings, 1)
        output = await attn(settings, "rebuild", "--check", expect=1)
        assert "6 rows differ from the log" in output
        assert "made-up-1" in output
        reports = [json.loads(line) for line in (await attn(settings, "rebuild", "--json")).splitlines()]
        assert [report["written"] for report in reports] == [0, 7]
        assert [report["partition"] for report in reports] == [0, 1]
        checked = json.loads(await attn(settings, "rebuild", "--check", "--json", "--partitions", "1"))
        assert (checked["differ"], checked["checksum"]) == ({}, reports[1]["checksum"])
        assert "the view equals the log; nothing was written" in await attn(settings, "rebuild")
        assert "partitions '7'" in await attn(settings, "rebuild", "--partitions", "7", expect=2)


async def test_views_that_cannot_be_rebuilt_are_reported(stack: Stack, attn: Attn) -> None:
    async with stack(log_partitions=2) as settings:
        assert "no topic attn.facts, attn.log, attn.views" in await attn(settings, "rebuild", "--check", expect=1)
        await topics.ensure_topics(settings)
        assert "the view equals the log" in await attn(settings, "rebuild", "--check"), "empty topics"
        more = settings.model_copy(update={"log_partitions": 8})
        assert "has 2 partitions, ATTN_LOG_PARTITIONS says 8" in await attn(more, "rebuild", expect=1)
