"""An edge stops although its broker does not answer."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from support.edge.edges import settings

from api.edge import follower
from api.edge.services import Edge


class SilentConsumer:
    """A consumer whose `stop` never returns: its connection waits for a silent broker."""

    def __init__(self) -> None:
        self.ending = False

    async def stop(self) -> None:
        self.ending = True
        await asyncio.Event().wait()


async def test_a_stop_does_not_wait_for_a_silent_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "_CLOSE_SECONDS", 0.01, raising=False)
    following, consumers = asyncio.Event(), [SilentConsumer(), SilentConsumer()]
    left = iter(consumers)

    class Follower(follower.TopicFollower):
        async def _start_consumer(self, name: str) -> Any:
            return next(left)

        async def _watch(self, *_: Any) -> None:
            await asyncio.Event().wait()

        async def _read(self, *_: Any) -> None:
            following.set()
            await asyncio.Event().wait()

    given = settings()
    task = asyncio.create_task(Follower(Edge(given), cast("Any", given)).run())
    await following.wait()
    task.cancel()
    await asyncio.wait({task}, timeout=10)
    assert task.cancelled()
    assert all(consumer.ending for consumer in consumers)
