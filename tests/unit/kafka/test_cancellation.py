"""Closing an aiokafka client does not swallow the cancellation of the calling task."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from faust.types import TP
from mode import Service

from schemas.settings import Settings
from streams.consumer.gap_filler import GapFiller
from streams.fold import agent, partition
from streams.kafka.connection import close_client
from streams.runtime.task_supervisor import TaskSupervisor
from streams.worker import main


class SwallowsCancellation:
    """A client that closes as aiokafka's do: it awaits a cancelled task, and swallows a cancellation of its caller."""

    def __init__(self) -> None:
        self.ending, self.closable = asyncio.Event(), asyncio.Event()
        self.ended = False

    async def stop(self) -> None:
        self.ending.set()
        with contextlib.suppress(asyncio.CancelledError):
            await self.closable.wait()
        self.ended = True


async def test_a_cancellation_during_the_close_of_a_client_is_raised() -> None:
    client = SwallowsCancellation()

    async def work() -> None:
        await close_client(cast("Any", client))
        await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await client.ending.wait()
    task.cancel()
    await asyncio.wait({task}, timeout=60)
    assert task.cancelled()
    assert client.ended


async def test_a_timeout_around_a_client_close_is_raised() -> None:
    client = SwallowsCancellation()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await close_client(cast("Any", client))
    client.closable.set()
    await close_client(cast("Any", client))


async def test_a_client_closes_completely_after_a_cancellation() -> None:
    """`finally: await close_client(...)`: an earlier cancellation does not interrupt the close."""
    client = SwallowsCancellation()
    client.closable.set()
    seen = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await close_client(cast("Any", client))
            seen.append("ended")

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert seen == ["ended"]
    assert task.cancelled()


class _Fencer:
    async def fence(self, partition: int) -> None: ...


async def test_a_partition_is_revoked_even_if_its_loading_ignores_the_cancellation(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library may swallow the cancellation: the rebalance does not wait for the fold that is loading."""
    loading = asyncio.Event()

    class Loads(partition.PartitionProcessor):
        async def _start(self, held: Any) -> None:
            loading.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    nothing, fencer = cast("Any", None), cast("Any", _Fencer())
    partitions = agent.AssignedPartitions(
        lambda number, _: Loads(number, Settings(_env_file=None), fencer, nothing, nothing), TaskSupervisor())
    partitions.start([0])
    await loading.wait()
    async with asyncio.timeout(60):
        await partitions.close()
    partitions.release()
    assert partitions.idle(TP("attn.log", 0)) is False


class _Writing(partition.PartitionProcessor):
    """A processor that has loaded, and ends once its write is acknowledged."""

    written: asyncio.Event

    async def run(self, queue_bytes: Any) -> None:
        self.fold = cast("Any", object())
        while not self.closing:
            queue_bytes.release((await self.queue.get()).size)
        await self.written.wait()


def _writing() -> agent.AssignedPartitions:
    _Writing.written = asyncio.Event()
    nothing, fencer = cast("Any", None), cast("Any", _Fencer())
    return agent.AssignedPartitions(
        lambda number, _: _Writing(number, Settings(_env_file=None), fencer, nothing, nothing), TaskSupervisor())


async def test_a_worker_may_be_stopped_while_a_rebalance_revokes_its_partitions() -> None:
    """Stop and rebalance both close the partitions. The second close once failed, and left Faust's threads running: the
    process never ended."""
    partitions = _writing()
    partitions.start([0])
    await asyncio.sleep(0)
    both = [asyncio.create_task(partitions.close()) for _ in range(2)]
    await asyncio.wait(both, timeout=0)
    _Writing.written.set()
    async with asyncio.timeout(60):
        await asyncio.gather(*both)


async def test_records_of_a_revoked_partition_use_no_queue_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faust delivers until the rebalance is over. Records that no processor takes once kept their queue bytes for
    ever."""
    monkeypatch.setattr(agent, "_MAX_QUEUE_BYTES", 10)
    partitions, tp = _writing(), TP("attn.log", 0)
    _Writing.written.set()
    records = [cast("Any", SimpleNamespace(key=None, value=b"0123456789", headers=(), offset=0))]
    partitions.start([0])
    await asyncio.sleep(0)
    await partitions.close()
    await partitions.enqueue(tp, records)  # the group commits its offsets meanwhile
    partitions.release()
    partitions.start([0])
    async with asyncio.timeout(60):
        await partitions.enqueue(tp, records)
    await partitions.close()


async def test_a_rebalance_does_not_wait_for_all_missing_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an outage the missing records may take longer to read than the group's rebalance timeout."""
    taken: list[int] = []

    async def endless(*_: Any) -> AsyncIterator[Any]:
        for offset in itertools.count():
            yield [SimpleNamespace(offset=offset)]
            await asyncio.sleep(0)

    class Reads(partition.PartitionProcessor):
        async def _start(self, held: Any) -> None:
            self.fold = cast("Any", object())
            gaps.start_at(self.tp, 0)

        async def _apply_record(self, record: Any) -> None:
            taken.append(record.offset)

        async def _commit_batch(self) -> None: ...

    gaps = GapFiller(endless)
    nothing, fencer = cast("Any", None), cast("Any", _Fencer())
    partitions = agent.AssignedPartitions(
        lambda number, _: Reads(number, Settings(_env_file=None), fencer, nothing, gaps), TaskSupervisor())
    partitions.start([0])
    partitions.reread(TP("attn.log", 0), 10**9)
    async with asyncio.timeout(60):
        while len(taken) < 3:
            await asyncio.sleep(0)
        await partitions.close()
    assert partitions.processors[0].stopped_cleanly
    assert gaps.next_offsets == {TP("attn.log", 0): taken[-1] + 1}


class _NeverStops(Service):
    async def on_stop(self) -> None:
        await asyncio.Event().wait()


class _AppThatNeverStops(Service):
    """Stops as a Faust app does: it awaits its dependencies, and swallows the cancellation."""

    def on_init_dependencies(self) -> list[Any]:
        return [_NeverStops(), _NeverStops()]


class _ProcessExit(Exception):
    pass


async def test_the_process_exits_even_if_faust_ignores_the_stop_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def exit_process(code: int) -> None:
        raise _ProcessExit(code)

    app = _AppThatNeverStops()
    await app.start()
    monkeypatch.setattr(main.os, "_exit", exit_process)
    monkeypatch.setattr(main.logging, "shutdown", lambda: None)
    part = cast("Any", SimpleNamespace(stop=app.stop, supervisor=TaskSupervisor(), stopped_cleanly=True))
    ending = asyncio.create_task(main._stop(part, None, 0.01))
    await asyncio.wait({ending}, timeout=60)
    assert ending.done()
    with pytest.raises(_ProcessExit, match="0"):
        await ending


async def test_closing_a_client_of_a_silent_broker_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.kafka.connection._CLOSE_SECONDS", 0.01)
    client = SwallowsCancellation()
    await close_client(cast("Any", client))
    assert client.ended


async def test_the_process_exits_though_its_event_loop_is_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    left = threading.Event()
    codes: list[int] = []

    def exit_process(code: int) -> None:
        codes.append(code)
        left.set()

    async def stop() -> None:
        assert left.wait(10)  # blocks the event loop until the process exits

    monkeypatch.setattr(main.os, "_exit", exit_process)
    monkeypatch.setattr(main.logging, "shutdown", lambda: None)
    monkeypatch.setattr(main, "_BLOCKED_SECONDS", 0.05)
    part = cast("Any", SimpleNamespace(stop=stop, supervisor=TaskSupervisor(), stopped_cleanly=False))
    await main._stop(part, None, 0.05)
    assert codes == [70]
