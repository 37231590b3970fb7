"""Stops Faust's consumer thread without blocking the worker's event loop.

mode's `ServiceThread.stop` joins the thread with a blocking call on the event loop. A consumer thread that is in the
middle of a rebalance waits for a callback on that loop, so both wait for ever, and no time limit of asyncio fires.
`install` makes the join wait in a helper thread (mode-streaming 0.4; streams/worker.py bounds the whole stop).
"""

from __future__ import annotations

import asyncio
import threading

from mode import Service
from mode.threads import ServiceThread

__all__ = ["install"]


async def _stop(self: ServiceThread) -> None:
    if not self._started.is_set():
        return
    await Service.stop(self)
    if (thread := self._thread) is not None:
        joined: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Not the loop's executor: the interpreter waits for executor threads at exit. A daemon thread is abandoned.
        threading.Thread(target=_join, args=(thread, joined), daemon=True).start()
        await joined


def _join(thread: threading.Thread, joined: asyncio.Future[None]) -> None:
    thread.stop()  # type: ignore[attr-defined]  # mode's WorkerThread: waits for the end, then joins

    def resolve() -> None:
        if not joined.done():
            joined.set_result(None)

    try:
        joined.get_loop().call_soon_threadsafe(resolve)
    except RuntimeError:
        pass  # the loop was closed: its process is at its end


def install() -> None:
    """Replaces `ServiceThread.stop` in this process; idempotent."""
    ServiceThread.stop = _stop
