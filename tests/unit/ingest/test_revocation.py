"""After source partitions are revoked the worker writes nothing, although Faust still delivers records."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from faust.types import TP

from schemas.settings import Settings
from streams.consumer.chunks import Records
from streams.consumer.gap_filler import GapFiller
from streams.ingest.agent import Ingestor, record_time
from streams.worker.app import build

_TP = TP("waitpoints", 0)


def records(offset: int) -> Records:
    """Returns one record that is rejected, so that the ingestor writes a dead letter."""
    return [cast("Any", SimpleNamespace(
        topic=_TP.topic, partition=_TP.partition, offset=offset, timestamp=0, key=None, value=b"{", headers=[]))]


class Slow:
    """A producer whose broker acknowledges only when the test calls `answer`."""

    def __init__(self, waits: bool = True) -> None:
        self.waits = waits
        self.sent = asyncio.Event()
        self.answers: list[asyncio.Future[None]] = []

    async def send(self, *_: Any, **__: Any) -> asyncio.Future[None]:
        self.answers.append(asyncio.get_running_loop().create_future())
        self.sent.set()
        if not self.waits:
            self.answer()
        return self.answers[-1]

    def answer(self) -> None:
        self.sent.clear()
        self.answers[-1].set_result(None)

    @property
    def busy(self) -> bool:
        return any(not answer.done() for answer in self.answers)


@asynccontextmanager
async def ingesting(out: Slow, read: Any = None) -> AsyncIterator[tuple[Ingestor, asyncio.Task[None]]]:
    ingestor = Ingestor(Settings(_env_file=None), cast("Any", out), GapFiller(read))
    ingestor.start({_TP: 0})
    task = asyncio.create_task(ingestor.run())
    try:
        yield ingestor, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_records_delivered_during_a_revocation_are_not_written() -> None:
    """The agent may wait for room in the queue, and `close` frees it."""
    out = Slow()
    async with asyncio.timeout(10), ingesting(out) as (ingestor, task):
        await ingestor.enqueue(_TP, records(0))
        await out.sent.wait()
        closing = asyncio.create_task(ingestor.close())
        await asyncio.sleep(0)
        for offset in (1, 2):
            await ingestor.enqueue(_TP, records(offset))
        out.answer()
        await closing
        for _ in range(20):  # the group commits its offsets meanwhile
            await asyncio.sleep(0)
        assert not out.busy
        assert ingestor.committable_offsets == {_TP: 1}
        ingestor.release()
        ingestor.start({_TP: 1})
        await ingestor.enqueue(_TP, records(1))
        await out.sent.wait()
        out.answer()
        await ingestor.close()
        assert ingestor.committable_offsets == {_TP: 2}
        assert not task.done()


async def test_a_rebalance_does_not_wait_for_all_missing_records() -> None:
    """After an outage the missing records may take longer to read than the group's rebalance timeout."""
    out, at = Slow(waits=False), 0

    async def endless(*_: Any) -> AsyncIterator[Records]:
        nonlocal at
        while True:
            yield records(at)
            at += 1
            await asyncio.sleep(0)

    async with asyncio.timeout(10), ingesting(out, endless) as (ingestor, _):
        ingestor.reread(_TP, 10**9)
        while at < 3:
            await asyncio.sleep(0)
        await ingestor.close()
        assert ingestor.committable_offsets[_TP] == len(out.answers) >= 3


async def test_a_worker_stopped_while_it_fetches_its_start_offsets_does_not_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker, requested, answer = build(Settings(_env_file=None)), asyncio.Event(), asyncio.Event()

    async def starts(places: Iterable[TP]) -> dict[TP, int]:
        requested.set()
        await answer.wait()
        return dict.fromkeys(places, 0)

    async def nothing(*_: Any) -> None: ...

    monkeypatch.setattr(worker.ingest.offsets, "resume_offsets", starts)
    for pipeline in (worker.ingest, worker.fold):
        monkeypatch.setattr(pipeline.offsets, "leave", lambda: None)
        monkeypatch.setattr(pipeline.app, "stop", nothing)
    async with asyncio.timeout(10):
        assigned = asyncio.create_task(worker._sources_assigned(worker.ingest.app, {_TP}))
        await requested.wait()
        await worker.stop()
        answer.set()
        await assigned
    assert worker.stopped_cleanly
    assert not worker.ingestor.committable_offsets


@pytest.mark.parametrize(("timestamp", "expected"), [
    (-1, 7.0), (0, 7.0), (2**63 - 1, 7.0), (-(2**63), 7.0), (1_700_000_000_500, 1_700_000_000.5)])
def test_an_impossible_timestamp_of_a_record_is_ignored(timestamp: int, expected: float) -> None:
    assert record_time(SimpleNamespace(timestamp=timestamp), 7.0) == expected  # type: ignore[arg-type]


async def test_a_failed_write_commits_neither_itself_nor_a_later_one() -> None:
    """Two writes are under way. The second is acknowledged, the first is not: a restart must read both again."""
    out = Slow()
    async with asyncio.timeout(10), ingesting(out) as (ingestor, task):
        for offset in (0, 1):
            await ingestor.enqueue(_TP, records(offset))
            while len(out.answers) <= offset:
                await asyncio.sleep(0)
        assert not ingestor.idle(_TP)
        out.answers[1].set_result(None)
        for _ in range(20):
            await asyncio.sleep(0)
        assert ingestor.committable_offsets == {_TP: 0}
        out.answers[0].set_exception(ConnectionError("the broker is gone"))
        with pytest.raises(ConnectionError, match="the broker is gone"):
            await task
        assert ingestor.committable_offsets == {_TP: 0}
        await ingestor.close()
