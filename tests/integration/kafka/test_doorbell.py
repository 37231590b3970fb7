"""Bells between processes: a ring wakes a waiting consumer. Lost, full, stale and foreign sockets are harmless."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from schemas.settings import Settings
from streams.kafka import doorbell
from streams.kafka.doorbell import Bell, BellDirectory, Ringer

_LONG = 60.0


@pytest.fixture
def bells(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "bells"
    doorbell.make_directory(path, wanted=True)
    return path


def opened(path: Path) -> BellDirectory:
    directory = BellDirectory.open(path)
    assert directory is not None
    return directory


def bell_for(path: Path, *topics: str) -> Bell:
    bell = Bell(opened(path))
    bell.listen(map(doorbell.bell_of, topics))
    return bell


async def waits(bell: Bell, seconds: float = _LONG) -> asyncio.Task[bool]:
    task = asyncio.create_task(bell.wait(seconds))
    await asyncio.sleep(0)
    return task


async def test_a_ring_wakes_the_consumers_of_the_topic_and_no_others(bells: Path) -> None:
    log, views = bell_for(bells, "attn.log"), bell_for(bells, "attn.views")
    for_log, for_views = await waits(log), await waits(views)
    Ringer(opened(bells)).notify("attn.log")
    assert await for_log
    assert not for_views.done()
    for_views.cancel()


async def test_all_source_topics_have_one_bell(bells: Path) -> None:
    waiting = await waits(bell_for(bells, "waitpoints", "escalations"))
    Ringer(opened(bells)).notify("plans")
    assert await waiting
    assert len(os.listdir(bells)) == 1


async def test_a_wait_without_a_ring_ends_by_itself(bells: Path) -> None:
    assert not await bell_for(bells, "attn.log").wait(0.01)


async def test_a_ring_before_the_wait_ends_it_at_once_and_only_once(bells: Path) -> None:
    bell = bell_for(bells, "attn.log")
    Ringer(opened(bells)).notify("attn.log")
    assert await bell.wait(_LONG)
    assert not await bell.wait(0.0)


async def test_several_waits_of_one_consumer_end_with_one_ring(bells: Path) -> None:
    bell = bell_for(bells, "attn.log")
    waiting = [await waits(bell) for _ in range(3)]
    Ringer(opened(bells)).notify("attn.log")
    assert any(await asyncio.gather(*waiting))


async def test_a_cancelled_wait_leaves_the_bell_usable(bells: Path) -> None:
    bell = bell_for(bells, "attn.log")
    waiting = await waits(bell)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    again = await waits(bell)
    Ringer(opened(bells)).notify("attn.log")
    assert await again


async def test_rings_in_quick_succession_are_merged_and_the_last_one_is_not_lost(bells: Path) -> None:
    bell, ringer = bell_for(bells, "attn.log"), Ringer(opened(bells))
    ringer.notify("attn.log")
    assert await bell.wait(_LONG)
    for _ in range(100):
        ringer.notify("attn.log")  # within 1 ms of the first
    assert await bell.wait(_LONG)
    received = await bell.wait(0.05)
    assert not received or not await bell.wait(0.05), "100 writes rang more than three times"


async def test_a_full_socket_neither_blocks_nor_raises(bells: Path) -> None:
    bell = bell_for(bells, "attn.log")
    ringer = Ringer(opened(bells))
    for _ in range(5000):  # more than net.unix.max_dgram_qlen
        ringer._ring("attn.log")
    assert await bell.wait(_LONG)
    assert not await bell.wait(0.0)


async def test_a_socket_of_a_dead_process_is_removed(bells: Path) -> None:
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    dead.bind(opened(bells).address("attn.log@1-0"))
    dead.close()
    alive = await waits(bell_for(bells, "attn.log"))
    Ringer(opened(bells)).notify("attn.log")
    assert await alive
    assert not (bells / "attn.log@1-0").exists()


async def test_a_file_that_is_no_socket_is_harmless(bells: Path) -> None:
    (bells / "attn.log@9-9").write_text("no socket")
    alive = await waits(bell_for(bells, "attn.log"))
    Ringer(opened(bells)).notify("attn.log")
    assert await alive


async def test_a_bell_that_is_removed_while_the_ringer_knows_it_is_harmless(bells: Path) -> None:
    bell, ringer = bell_for(bells, "attn.log"), Ringer(opened(bells))
    ringer.notify("attn.log")
    assert await bell.wait(_LONG)
    bell.close()
    ringer._ring("attn.log")
    assert os.listdir(bells) == []


async def test_a_consumer_that_comes_later_is_rung(bells: Path) -> None:
    ringer = Ringer(opened(bells))
    ringer.notify("attn.log")
    late = await waits(bell_for(bells, "attn.log"))
    await asyncio.sleep(0.01)
    ringer.notify("attn.log")
    assert await late


async def test_a_long_path_of_the_directory_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / ("d" * 100) / ("e" * 100)
    doorbell.make_directory(path, wanted=True)
    waiting = await waits(bell_for(path, "attn.log"))
    Ringer(opened(path)).notify("attn.log")
    assert await waiting


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701], ids=["readable", "group", "others"])
def test_a_directory_that_others_can_use_is_not_used(bells: Path, mode: int) -> None:
    bells.chmod(mode)
    assert BellDirectory.open(bells) is None


def test_a_directory_of_another_user_is_not_used(bells: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert BellDirectory.open(bells) is None


def test_a_symbolic_link_is_not_followed(bells: Path) -> None:
    link = bells.parent / "link"
    link.symlink_to(bells)
    assert BellDirectory.open(link) is None


def test_a_start_removes_old_sockets_and_without_the_embedded_broker_the_directory(bells: Path) -> None:
    (bells / "attn.log@1-0").touch()
    doorbell.make_directory(bells, wanted=True)
    assert os.listdir(bells) == []
    doorbell.make_directory(bells, wanted=False)
    assert not bells.exists()
    doorbell.make_directory(bells, wanted=False)


async def test_without_the_directory_a_producer_is_aiokafkas_own(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path)
    assert type(doorbell.make_producer(settings)) is AIOKafkaProducer
    doorbell.make_directory(doorbell.directory(settings), wanted=True)
    assert type(doorbell.make_producer(settings)) is not AIOKafkaProducer
