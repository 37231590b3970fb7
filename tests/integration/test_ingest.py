"""Input that Faust loses on its way, partitions that move between workers, a broker that goes away: nothing is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support import events
from support.pipeline import caught_up, check, eventually, kill, look, send, spawn, stack, worker

from ops.broker import EmbeddedBroker, binary
from schemas.settings import Settings
from streams import topics
from streams.agents.fold import Shards
from streams.agents.ingest import Intake

pytestmark = [
    pytest.mark.broker, pytest.mark.timeout(60),
    pytest.mark.skipif(binary() is None, reason="noida-db is not installed"),
]
WORKSPACES = ("ws_01", "ws_02", "ws_03", "ws_04")


def counted_once(seen: Any, lines: list[events.Line]) -> None:
    told = [fact.event_id for fact in seen.told() if not fact.derived]
    assert len(told) == len(set(told))
    assert set(told) == {f"{line['value']['source']} {line['value']['id']}" for line in lines}


@pytest.mark.parametrize("where", [Intake, Shards])
async def test_what_faust_does_not_deliver_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: type
) -> None:
    """Every third chunk vanishes, some of them the last of their partition."""
    put, chunks = where.put, 0  # type: ignore[attr-defined]

    async def losing(self: Any, tp: Any, records: Any) -> None:
        nonlocal chunks
        chunks += 1
        if chunks % 3:
            await put(self, tp, records)

    monkeypatch.setattr(where, "put", losing)
    lines = events.generate(21, 900, workspaces=WORKSPACES)
    async with stack(tmp_path) as settings:
        await topics.ensure(settings)
        async with worker(settings):
            for at in range(0, len(lines), 60):
                await send(settings, lines[at:at + 60])
                await asyncio.sleep(0.2)
            seen = await eventually(lambda: caught_up(settings, len(lines)), "all folded")
        assert chunks > 10
        check(seen, settings)
        counted_once(seen, lines)
        assert len(seen.events) == len(lines)


async def test_partitions_move_between_workers(tmp_path: Path) -> None:
    """A second worker comes while events flow, one is stopped, one is killed and started again."""
    lines = events.generate(22, 2500, workspaces=WORKSPACES)
    async with stack(tmp_path, log_partitions=4) as settings:
        await topics.ensure(settings)

        async def feed() -> None:
            for at in range(0, len(lines), 30):
                await send(settings, lines[at:at + 30])
                await asyncio.sleep(0.25)

        feeding = asyncio.create_task(feed())
        first, second = (settings.model_copy(update={"instance": name}) for name in ("a", "b"))
        first.model_fields_set.add("instance")
        second.model_fields_set.add("instance")
        processes = [spawn(first)]
        try:
            await asyncio.sleep(4)
            processes.append(spawn(second))
            await asyncio.sleep(8)
            kill(processes[1])
            processes[1] = spawn(second)
            await asyncio.sleep(4)
            processes[0].terminate()
            assert processes[0].wait(6) == 0
            await feeding
            processes[0] = spawn(first)
            seen = await eventually(lambda: caught_up(settings, len(lines)), "all folded", 30)
        finally:
            feeding.cancel()
            for process in processes:
                kill(process)
        check(await look(settings) or seen, settings)
        counted_once(seen, lines)


async def test_a_broker_that_goes_and_comes_back(tmp_path: Path) -> None:
    """It is stopped cleanly under a running worker, which goes on, or ends for its supervisor to start it again."""
    lines = events.generate(23, 800, workspaces=WORKSPACES)
    broker = EmbeddedBroker(tmp_path / "broker")
    await broker.start()
    settings = Settings(kafka=broker.bootstrap, log_partitions=2, source_partitions=2)
    await topics.ensure(settings)
    process = spawn(settings)
    try:
        await send(settings, lines[:300])
        await eventually(lambda: caught_up(settings, 300), "the first part")
        assert await broker.stop()
        await asyncio.sleep(3)
        await broker.start()
        await send(settings, lines[300:])

        async def done() -> Any:
            nonlocal process
            if process.poll() is not None:
                assert process.returncode != 0
                process = spawn(settings)
            return await caught_up(settings, len(lines))

        seen = await eventually(done, "all folded", 40)
    finally:
        kill(process)
        await broker.stop()
    check(seen, settings)
    counted_once(seen, lines)
