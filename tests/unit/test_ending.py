"""Who is cancelled while a client of aiokafka ends is cancelled: nobody waits for ever for a task that went on."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, cast

import pytest
from faust.types import TP

from schemas.settings import Settings
from streams.agents import fold
from streams.alarm import Alarm
from streams.connection import disconnect


class Deaf:
    """Ends as aiokafka's clients do: a task is cancelled and awaited, and a cancellation of ours is taken for its."""

    def __init__(self) -> None:
        self.ending, self.go_on = asyncio.Event(), asyncio.Event()
        self.ended = False

    async def stop(self) -> None:
        self.ending.set()
        with contextlib.suppress(asyncio.CancelledError):
            await self.go_on.wait()
        self.ended = True


async def test_a_cancellation_in_the_midst_of_an_end_is_heard() -> None:
    client = Deaf()

    async def work() -> None:
        await disconnect(cast("Any", client))
        await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await client.ending.wait()
    task.cancel()
    await asyncio.wait({task}, timeout=5)
    assert task.cancelled()
    assert client.ended


async def test_a_time_limit_on_an_end_is_one() -> None:
    client = Deaf()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await disconnect(cast("Any", client))
    client.go_on.set()
    await disconnect(cast("Any", client))


async def test_an_end_after_a_cancellation_is_an_end() -> None:
    """`finally: await disconnect(...)`: what was cancelled before does not keep a client from ending in peace."""
    client = Deaf()
    client.go_on.set()
    seen = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await disconnect(cast("Any", client))
            seen.append("ended")

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert seen == ["ended"]
    assert task.cancelled()


class _Held:
    async def close(self) -> None: ...


async def test_a_partition_is_given_up_though_its_loading_does_not_hear_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a library swallows: a rebalance must not wait for a fold that has just begun."""
    loading = asyncio.Event()

    async def claim(*_: Any) -> _Held:
        return _Held()

    class Loads(fold.Shard):
        async def _begin(self, held: Any) -> None:
            loading.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    monkeypatch.setattr(fold, "claim", claim)
    nothing = cast("Any", None)
    shards = fold.Shards(lambda number, _: Loads(number, Settings(_env_file=None), nothing, nothing), Alarm())
    shards.start([0])
    await loading.wait()
    async with asyncio.timeout(5):
        await shards.close()
    shards.release()
    assert shards.idle(TP("attn.log", 0)) is False
