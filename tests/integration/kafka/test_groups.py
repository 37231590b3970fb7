"""Workers in a group join, leave, die, freeze and come back under load. No record is lost or doubled, and a worker
that lost a partition cannot write it any more (law 8; decision 0018).
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from support import events
from support.kafka.brokers import KAFKA_ONLY
from support.kafka.pipeline import (
    Seen,
    Stack,
    caught_up,
    check,
    eventually,
    handles_sigterm,
    kill,
    look,
    send,
    spawn,
)

from schemas.settings import Settings
from schemas.topics import FACTS, VIEWS
from schemas.views import PositionRow, encode_row, fence_key, position_key
from streams.kafka import topics
from streams.kafka.fencing import FencedError, fence_partition

pytestmark = pytest.mark.timeout(600)

WORKSPACES = tuple(f"ws_{number:02}" for number in range(24))
PARTITIONS = 6


class Workers:
    """Processes by their instance."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, point: str = "") -> None:
        self._processes[name] = spawn(self._settings.model_copy(update={"instance": name}), point)

    def kill(self, name: str) -> None:
        kill(self._processes.pop(name))

    def signal(self, name: str, signum: int) -> None:
        self._processes[name].send_signal(signum)

    async def stop(self, name: str) -> int:
        await eventually(lambda: handles_sigterm(self._processes[name]), f"worker {name} handles SIGTERM")
        self.signal(name, signal.SIGTERM)
        return await self.ended(name)

    async def ended(self, name: str) -> int:
        process = self._processes[name]
        try:
            code = await asyncio.to_thread(process.wait, 120)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGUSR1)  # it says where it is
            await asyncio.sleep(1)
            raise
        del self._processes[name]
        return code

    def close(self) -> None:
        for process in self._processes.values():
            kill(process)


class Load:
    """A steady stream of events, and what became of them."""

    def __init__(self, settings: Settings, seed: int) -> None:
        self._settings = settings
        self._lines = events.generate(seed, 12_000, workspaces=WORKSPACES)
        self.sent = 0
        self.enough = False

    async def run(self) -> None:
        while not self.enough and self.sent < len(self._lines):
            self.sent += await send(self._settings, self._lines[self.sent:self.sent + 10])
            await asyncio.sleep(0.1)

    def check(self, seen: Seen) -> None:
        check(seen, self._settings)
        told = [fact.event_id for fact in seen.unique_facts() if not fact.derived]
        assert len(told) == len(set(told)), "an event counted twice"
        wanted = {f"{line['value']['source']} {line['value']['id']}" for line in self._lines[:self.sent]}
        assert set(told) == wanted
        assert not seen.letters


@asynccontextmanager
async def under_load(stack: Stack, seed: int) -> AsyncIterator[tuple[Workers, Callable[..., object], Settings]]:
    """Workers, and `folded(count)`: waits until so many more events than now are visible. Checks all at the end."""
    async with stack(log_partitions=PARTITIONS) as settings:
        await topics.ensure_topics(settings)
        workers, load = Workers(settings), Load(settings, seed)
        feeding = asyncio.create_task(load.run())

        async def all_move() -> None:
            """Returns when each partition has rows younger than this call."""
            begun = time.time() * 1000
            await eventually(lambda: _moved(settings, begun), "every partition moves on")

        try:
            yield workers, all_move, settings
            load.enough = True
            await feeding
            seen = await eventually(lambda: caught_up(settings, load.sent), "all folded")
        finally:
            load.enough = True
            await asyncio.gather(feeding, return_exceptions=True)
            workers.close()
        load.check(await look(settings))
        print(f"\n{load.sent} events; longest pause of a partition {longest_pause(seen):.1f} s")


async def _moved(settings: Settings, since: float) -> bool:
    seen = await look(settings)
    return all(records and records[-1].timestamp > since for records in seen.views.values())


def longest_pause(seen: Seen) -> float:
    """Seconds between two batches of a partition, of those in which the log had something."""
    longest = 0.0
    for partition, records in seen.views.items():
        times = [record.timestamp for record in records if record.key == position_key(partition)]
        longest = max([longest, *(after - before for before, after in pairwise(times))])
    return longest / 1000


@KAFKA_ONLY
async def test_join_leave_crash_and_rolling_restart_under_load(stack: Stack) -> None:
    async with under_load(stack, 31) as (workers, all_move, _):
        workers.start("1")
        await all_move()
        for name in ("2", "3"):  # 1 -> 2 -> 3
            workers.start(name)
            await asyncio.sleep(4)
            await all_move()
        workers.kill("2")  # it comes back within its session: nobody else is disturbed
        await asyncio.sleep(1)
        workers.start("2")
        await all_move()
        for name in ("1", "2", "3"):
            assert await workers.stop(name) == 0
            workers.start(name)
            await asyncio.sleep(2)
            await all_move()
        assert await workers.stop("2") == 0  # 3 -> 1
        assert await workers.stop("3") == 0
        await all_move()
        workers.start("2")
        await asyncio.sleep(4)
        workers.kill("1")  # for good: its session has to run out first
        await all_move()


@KAFKA_ONLY
async def test_a_frozen_worker_that_lost_its_partitions_is_fenced_off(stack: Stack) -> None:
    """Frozen between two writes of one batch, for longer than its session; then it goes on writing."""
    async with under_load(stack, 32) as (workers, all_move, settings):
        workers.start("1", "freeze:40")
        await eventually(lambda: _state(workers, "1") == "T", "frozen")
        workers.start("2")
        await all_move()
        before = await look(settings)
        workers.signal("1", signal.SIGCONT)
        assert await workers.ended("1") != 0, "it can't know what is durable, so it ends"
        workers.start("1")
        await all_move()
        after = await look(settings)
        for partition, records in before.views.items():
            assert [record.offset for record in after.views[partition][:len(records)]] == [
                record.offset for record in records]


def _state(workers: Workers, name: str) -> str:
    with open(f"/proc/{workers._processes[name].pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0]


async def test_a_new_claim_fences_off_the_previous_owner(stack: Stack) -> None:
    """What the zombie above relies on: rows and position of an earlier owner are refused, whenever they come."""
    async with stack(log_partitions=2) as settings:
        await topics.ensure_topics(settings)
        row: list[tuple[bytes, bytes | None]] = [(position_key(0), encode_row(PositionRow(next=1)))]
        first, other = await fence_partition(settings, 0), await fence_partition(settings, 1)
        assert await first.write(VIEWS, row) == first.offset + 1
        await first.write(FACTS, [(b"k", b"{}")])
        second = await fence_partition(settings, 0)
        assert second.offset == first.offset + 2
        for _ in range(2):
            with pytest.raises(FencedError, match="partition 0"):
                await first.write(VIEWS, row)
        assert await second.write(VIEWS, row) == second.offset + 1
        assert await other.write(VIEWS, row) == other.offset + 1, "of another partition"
        for one in (first, second, other):
            await one.close()
        seen = await look(settings)
        assert [record.key for record in seen.views[0]] == [
            fence_key(0), position_key(0), fence_key(0), position_key(0)]
