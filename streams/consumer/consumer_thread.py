"""Stops Faust's consumer threads during a rebalance (mode-streaming 0.7, faust-streaming 0.15, aiokafka 0.14).

Two faults of the libraries make a stop during a rebalance wait forever:

- mode's `ServiceThread.stop` joins the thread with a blocking call on the event loop, and the rebalance's callback
  needs that loop. `install` makes the join wait in a helper thread.
- A callback that calls the thread after its method queue has stopped gets a CancelledError although no task was
  cancelled. aiokafka's coordination task lets it through and ends, and so does the consumer thread, without its
  shutdown event. `RebalanceThread` turns it into an error, which aiokafka logs.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode import Service
from mode.threads import ServiceThread

__all__ = ["Consumer", "RebalanceThread", "install"]


class RebalanceThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """Faust's consumer thread. Its rebalance callbacks raise CancelledError only when their task is cancelled."""

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        with _own_cancellation():
            await super().on_partitions_assigned(assigned, generation_id)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        with _own_cancellation():
            await super().on_partitions_revoked(revoked)


class Consumer(driver.Consumer):  # type: ignore[misc]
    """Faust's consumer, run by a `RebalanceThread`."""

    def _new_consumer_thread(self) -> RebalanceThread:
        return RebalanceThread(self, loop=self.loop, beacon=self.beacon)


@contextmanager
def _own_cancellation() -> Iterator[None]:
    """Raises RuntimeError for a CancelledError while the current task is not being cancelled."""
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise RuntimeError("the consumer thread stopped during a rebalance") from error


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
