"""Event streams open one at a time, and no stream waits for the reader of another."""

from __future__ import annotations

import asyncio
from typing import Any

from support.edge.edges import settings

from api.live.connections import ConnectionRegistry, LiveStream, Sink
from api.live.event_stream import EventStream


class _Begun(LiveStream):
    def catch_up(self) -> None: ...

    def send_heartbeat(self, now: int) -> None: ...

    def on_disconnect(self) -> None: ...


async def test_a_reader_that_never_reads_does_not_delay_others() -> None:
    """An earlier response fills the connection, so the server waits before it sends the next one."""
    connections = ConnectionRegistry(settings(), lambda: 0)
    begun: dict[str, asyncio.Event] = {}

    def stream(user: str, start: asyncio.Event) -> asyncio.Task[None]:
        begun[user] = asyncio.Event()

        def begin(outlet: Sink) -> LiveStream:
            begun[user].set()
            return _Begun("w1", user, outlet)

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                await start.wait()

        async def receive() -> Any:
            await asyncio.Event().wait()

        connections.reserve("w1", user)
        return asyncio.create_task(EventStream(connections, "w1", user, 60, begin)({}, receive, send))

    free = asyncio.Event()
    free.set()
    tasks = [stream("slow", asyncio.Event())]
    await asyncio.sleep(0)
    tasks.append(stream("ann", free))
    try:
        async with asyncio.timeout(10):
            await begun["ann"].wait()
        assert not begun["slow"].is_set()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert not connections._users
