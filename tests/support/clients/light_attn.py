"""attn in a thread, without broker and worker: an edge on a real socket, with the real fold and ingest.

Clients and child processes send HTTP requests to it. It uses the machine's clock, and folds a tick every 50 ms.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from support.clients.people import People
from support.edge.edge_with_fold import WS, Deciding
from support.edge.edges import serving, token
from support.edge.topic_writer import TopicWriter

__all__ = ["light_attn"]

TICK = 0.05  # seconds


class _RealTime(Deciding):
    """`Deciding` with the clock of the machine."""

    @property
    def now(self) -> float:
        return time.time()

    @now.setter
    def now(self, value: float) -> None:
        """Ignores the initial time of `Deciding`."""


@contextmanager
def light_attn(**settings: Any) -> Iterator[People]:
    """Runs attn during the block. Yields `People` with its address."""
    loop = asyncio.new_event_loop()
    address: list[str] = []
    ready, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        attn = _RealTime(**{
            "undo_seconds": 0, "write_rate": 1e6, "write_burst": 10**6, "event_rate": 1e6, "event_burst": 10**6,
            "heartbeat_seconds": 2, **settings})
        TopicWriter(attn)
        async with serving(attn.edges[0]) as base:
            address.append(base)
            ready.set()
            while not stop.is_set():
                attn.happen()
                await asyncio.sleep(TICK)

    def run() -> None:
        try:
            loop.run_until_complete(serve())
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="attn", daemon=True)
    thread.start()
    ready.wait(60)
    assert address, "attn did not start"
    try:
        yield People(address[0], lambda user: token(user, "OWNER", WS))
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(60)
        loop.close()
