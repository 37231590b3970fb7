"""`attn rebuild` on a broker reports and repairs wrong rows of a view, while workers run and after crashes."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest
from support.clients.feed import Copy
from support.clients.sse import Client
from support.edge.edge_on_broker import edge
from support.edge.edges import until
from support.edge.expected_view import Truth
from support.kafka import pipeline
from support.kafka.pipeline import Stack, caught_up, eventually, look, send, worker
from support.processes import fork_server
from support.processes.cli import clean_env
from support.processes.view_damage import (
    LINES,
    check,
    corrupt,
    differences,
    env_of,
    folded,
    of_later,
    rebuild,
    same,
    with_targets,
)

from api.readmodel.readers import Reader
from schemas.settings import Settings
from streams.core.config import FoldConfig
from streams.core.fold.fold import POSITION_JUMP
from streams.rebuild.rebuild import read_view

pytestmark = pytest.mark.timeout(180)

PROCESS = Path(__file__).parents[2] / "support" / "processes" / "rebuild_process.py"
READER = Reader("ws_01", "ann", frozenset({"OWNER"}))


async def killed(settings: Settings, home: Path, write: int) -> None:
    """Runs `attn rebuild` in a process that kills itself at the write with this number."""
    process = fork_server.start([str(PROCESS), str(write), "rebuild"], cwd=home, env=clean_env(env_of(settings)))
    try:
        assert await asyncio.to_thread(process.wait, 90) == -9
    finally:
        process.kill()


def truth(seen: pipeline.Seen, reader: Reader, limit: int) -> dict[str, Any]:
    rows = {key: raw for rows in seen.rows.values() for key, raw in rows.items()
            if key[:2] in (b"i:", b"m:", b"d:", b"p:", b"a:")}
    return Truth(rows, reader).page(limit)


async def assert_copy(client: Client, expected: dict[str, Any]) -> None:
    """Waits until the copy built from the feed equals `expected`."""
    with contextlib.suppress(AssertionError):
        await until(lambda: copied(client) == expected)
    assert copied(client) == expected


def copied(client: Client) -> dict[str, Any] | None:
    copy = Copy()
    for frame in client.frames:
        copy.apply(frame)
    return copy.page if client.frames else None


async def test_check_reports_exactly_the_corrupt_rows_and_rebuild_repairs_them(stack: Stack) -> None:
    """An edge and two feeds run meanwhile. After the repair the feeds equal the view, and the view equals the log."""
    async with folded(stack) as settings:
        before = await look(settings)
        assert await check(settings) == {}
        async with edge(settings) as base:
            feeds = [Client(base, who=("ann", "OWNER", "ws_01"), params={"limit": limit}) for limit in (3, 500)]
            for feed in feeds:
                await feed.get(1)
            wrong = {number: await corrupt(settings, number) for number in (0, 1)}
            damaged = await look(settings)
            for feed, limit in zip(feeds, (3, 500), strict=True):
                await assert_copy(feed, truth(damaged, READER, limit))
            assert await check(settings) == wrong
            assert (await look(settings)).views == damaged.views, "a check has written to the view"
            assert await rebuild(settings) == 2 * (6 + 1)
            assert await check(settings) == {}
            after = await look(settings)
            for feed, limit in zip(feeds, (3, 500), strict=True):
                await assert_copy(feed, truth(after, READER, limit))
                assert [event for _, event, _ in feed.frames].count("snapshot") == 1
                assert truth(before, READER, limit)["items"] == [
                    item | {"revision": was["revision"]} for item, was in zip(
                        truth(after, READER, limit)["items"], truth(before, READER, limit)["items"], strict=True)]
                await feed.close()
        for number in (0, 1):
            assert not differences(before, after, number), "the repaired view differs from the original one"
            then, now = (pipeline.position(seen.rows[number], number) for seen in (before, after))
            assert (now.next, now.clock, now.position) == (then.next, then.clock, then.position + 1 + POSITION_JUMP)
        assert {number: len(facts) for number, facts in after.facts.items()} == {
            number: len(facts) for number, facts in before.facts.items()}, "the rebuild has written facts"
        assert await rebuild(settings) == 0, "a rebuild of a correct view has written records"


async def test_a_worker_continues_from_the_rebuilt_view(stack: Stack) -> None:
    """A rebuild replaces the view of a running worker. The worker is fenced off and restarts. No event is lost. A fact
    is emitted twice only with a position jump between both, which consumers of facts recognise."""
    async with folded(stack) as settings:
        for number in (0, 1):
            await corrupt(settings, number)
        ended: list[int] = []
        stop, sent = asyncio.Event(), 0

        async def supervised() -> None:
            while not stop.is_set():
                process = pipeline.spawn(settings)
                while process.poll() is None and not stop.is_set():
                    await asyncio.sleep(0.05)
                if stop.is_set():
                    pipeline.kill(process)
                else:
                    ended.append(process.returncode)

        async def sending() -> None:
            nonlocal sent
            for line in later:
                await send(settings, [line])
                sent += 1
                await asyncio.sleep(0.02)
                if ended and sent > 50:
                    return

        later = of_later(3000)
        tasks = [asyncio.create_task(supervised()), asyncio.create_task(sending())]
        try:
            await eventually(lambda: caught_up(settings, len(LINES) + 1), "the worker has folded a new event", 60)
            assert await rebuild(settings) > 0
            await tasks[1]
            seen = await eventually(lambda: caught_up(settings, len(LINES) + sent), "all events are folded", 60)
            assert await check(settings) == {}
        finally:
            stop.set()
            await asyncio.gather(*tasks)
        assert ended, "the worker was not fenced off"
        positions: dict[str, list[int]] = {}
        for fact in seen.unique_facts():
            if not getattr(fact, "derived", True):
                positions.setdefault(fact.event_id, []).append(fact.pos)
        assert len(positions) == len(LINES) + sent
        # The fenced worker had written facts without their rows. The restarted worker emits these facts again, at
        # positions after the jump. The history drops facts that it has from before a jump.
        twice = [both for both in positions.values() if len(both) > 1]
        assert all(len(both) == 2 and both[1] - both[0] > POSITION_JUMP // 2 for both in twice)


async def test_a_rebuild_killed_at_any_write_leaves_the_old_or_the_new_view(stack: Stack, tmp_path: Path) -> None:
    async with folded(stack) as settings:
        other = with_targets(settings, 300)
        old, states = await look(settings), []
        for write in (1, 3, 6):
            await killed(other, tmp_path, write)
            view = await read_view(settings, 0)
            states.append(same(view.rows, old.rows[0]))
            assert states[-1] or 0 not in await check(other), "the view is neither the old one nor the new one"
            async with edge(settings) as base:  # a new edge must show the same view
                feed = Client(base, who=("ann", "OWNER", "ws_02"), params={"limit": 500})
                await feed.get(1)
                seen = await look(settings)
                seen.rows[0] = view.rows
                await assert_copy(feed, truth(seen, Reader("ws_02", "ann", frozenset({"OWNER"})), 500))
                await feed.close()
        assert states == [True, True, True], "a killed rebuild has written its position row"
        async with worker(other):  # repairs the rows of the incomplete batch
            view = await eventually(lambda: repaired_view(settings, 0), "no row of an incomplete batch is left")
            assert same(view.rows, old.rows[0])
        await rebuild(other)
        assert await check(other) == {}


async def repaired_view(settings: Settings, partition: int) -> Any:
    """Returns the view of the partition, or None while it has rows of an incomplete batch."""
    view = await read_view(settings, partition)
    return None if view.stale_keys else view


async def test_a_rebuild_applies_changed_rules_to_the_whole_log(stack: Stack) -> None:
    """With changed fold settings, a rebuild replaces the view by the fold of the whole log under the new settings."""
    async with folded(stack) as settings:
        other = with_targets(settings, 300)
        assert await check(settings) == {}
        assert all(counts["item"]["other"] > 10 for counts in (await check(other)).values())
        await rebuild(other)
        seen = await look(settings)
        for number in (0, 1):
            rows: dict[bytes, bytes] = {}
            fold = pipeline.Fold(rows, number, FoldConfig.from_settings(other))
            for record in seen.log[number]:
                pipeline._refold(fold, rows, [], record)
            assert same(rows, seen.rows[number])
        async with worker(other):
            await send(settings, of_later(30))
            await eventually(lambda: caught_up(settings, len(LINES) + 20), "the worker folds new events")
        assert await check(other) == {}
        assert await check(settings) != {}
