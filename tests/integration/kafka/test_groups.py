"""Workers of a consumer group join, leave, crash, freeze and restart under load. No record is lost or doubled. A worker
that lost a partition can no longer write to it (law 8; decision 0018).
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from aiokafka.protocol.produce import ProduceRequest
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
from streams.kafka.fencing import FencedError, PartitionFencer

pytestmark = pytest.mark.timeout(600)

WORKSPACES = tuple(f"ws_{number:02}" for number in range(24))
PARTITIONS = 6


class Workers:
    """Worker processes by instance name."""

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
            process.send_signal(signal.SIGUSR1)  # the worker prints its stack traces
            await asyncio.sleep(1)
            raise
        del self._processes[name]
        return code

    def close(self) -> None:
        for process in self._processes.values():
            kill(process)


class Load:
    """Sends 100 events a second, and checks that each is folded exactly once."""

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
        event_ids = [fact.event_id for fact in seen.unique_facts() if not fact.derived]
        assert len(event_ids) == len(set(event_ids)), "an event was folded twice"
        wanted = {f"{line['value']['source']} {line['value']['id']}" for line in self._lines[:self.sent]}
        assert set(event_ids) == wanted
        assert not seen.letters


@asynccontextmanager
async def under_load(stack: Stack, seed: int) -> AsyncIterator[tuple[Workers, Callable[..., object], Settings]]:
    """Yields the workers, `all_move` and the settings while events are sent. Checks view and facts at the end."""
    async with stack(log_partitions=PARTITIONS) as settings:
        await topics.ensure_topics(settings)
        workers, load = Workers(settings), Load(settings, seed)
        feeding = asyncio.create_task(load.run())

        async def all_move() -> None:
            """Waits until every partition of the view has records that are newer than this call."""
            begun = time.time() * 1000
            await eventually(lambda: _moved(settings, begun), "every partition has new records")

        try:
            yield workers, all_move, settings
            load.enough = True
            await feeding
            seen = await eventually(lambda: caught_up(settings, load.sent), "all events are folded")
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
    """Returns the longest time in seconds between two batches of the same partition of the view."""
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
        for name in ("2", "3"):  # from one worker to three
            workers.start(name)
            await asyncio.sleep(4)
            await all_move()
        workers.kill("2")  # restarted within its session timeout: the group does not rebalance
        await asyncio.sleep(1)
        workers.start("2")
        await all_move()
        for name in ("1", "2", "3"):
            assert await workers.stop(name) == 0
            workers.start(name)
            await asyncio.sleep(2)
            await all_move()
        assert await workers.stop("2") == 0  # from three workers to one
        assert await workers.stop("3") == 0
        await all_move()
        workers.start("2")
        await asyncio.sleep(4)
        workers.kill("1")  # not restarted: the others get its partitions after its session timeout
        await all_move()


@KAFKA_ONLY
async def test_a_frozen_worker_that_lost_its_partitions_is_fenced_off(stack: Stack) -> None:
    """The worker is frozen between two writes of one batch, for longer than its session timeout, and then continues."""
    async with under_load(stack, 32) as (workers, all_move, settings):
        workers.start("1", "freeze:40")
        await eventually(lambda: _state(workers, "1") == "T", "worker 1 is frozen")
        workers.start("2")
        await all_move()
        before = await look(settings)
        workers.signal("1", signal.SIGCONT)
        assert await workers.ended("1") != 0, "a worker must exit when it cannot know which records are durable"
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
    """Kafka refuses every write of an earlier owner of the partition. The test of the frozen worker relies on this."""
    async with stack(log_partitions=2) as settings:
        await topics.ensure_topics(settings)
        row: list[tuple[bytes, bytes | None]] = [(position_key(0), encode_row(PositionRow(next=1)))]
        fencer, next_owner = PartitionFencer(settings), PartitionFencer(settings)
        await asyncio.gather(fencer.producer.start(), next_owner.producer.start())
        first, other = await fencer.fence(0), await fencer.fence(1)
        assert await first.write(VIEWS, row) == first.offset + 1
        await first.write(FACTS, [(b"k", b"{}")])
        second = await next_owner.fence(0)
        assert second.offset == first.offset + 2
        for _ in range(2):
            with pytest.raises(FencedError, match="partition 0"):
                await first.write(VIEWS, row)
        assert await second.write(VIEWS, row) == second.offset + 1
        assert await other.write(VIEWS, row) == other.offset + 1, "the owner of another partition was fenced off"
        await asyncio.gather(fencer.producer.stop(), next_owner.producer.stop())
        seen = await look(settings)
        assert [record.key for record in seen.views[0]] == [
            fence_key(0), position_key(0), fence_key(0), position_key(0)]


async def test_partitions_share_a_request_and_are_fenced_one_by_one(stack: Stack) -> None:
    """A fenced partition does not affect the batches of other partitions in the same request."""
    async with stack(log_partitions=3) as settings:
        await topics.ensure_topics(settings)
        fencer, next_owner = PartitionFencer(settings), PartitionFencer(settings)
        await asyncio.gather(fencer.producer.start(), next_owner.producer.start())
        owned = [await fencer.fence(number) for number in range(3)]
        owned_by_next = await next_owner.fence(1)
        requests: list[set[int]] = []
        send_request = fencer.producer.client.send

        async def record_partitions(node: int, request: Any, **more: Any) -> Any:
            if isinstance(request, ProduceRequest):
                requests.append({partition for _, parts in request._topics for partition, _ in parts})
            return await send_request(node, request, **more)

        fencer.producer.client.send = record_partitions
        for _ in range(3):
            answers = await asyncio.gather(*[
                each.write(VIEWS, [(position_key(each.partition), encode_row(PositionRow(next=1)))])
                for each in owned], return_exceptions=True)
            assert isinstance(answers[1], FencedError)
            assert not isinstance(answers[0], BaseException)
            assert not isinstance(answers[2], BaseException)
        assert {0, 1, 2} in requests
        again = await fencer.fence(1)  # the group assigns the partition to the first worker again
        assert await again.write(VIEWS, [(position_key(1), encode_row(PositionRow(next=1)))]) == again.offset + 1
        with pytest.raises(FencedError, match="partition 1"):
            await owned_by_next.write(VIEWS, [(position_key(1), encode_row(PositionRow(next=2)))])
        await asyncio.gather(fencer.producer.stop(), next_owner.producer.stop())
        seen = await look(settings)
        assert [len(seen.views[number]) for number in range(3)] == [4, 4, 4]
