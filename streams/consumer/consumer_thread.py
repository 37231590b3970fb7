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

from aiokafka.client import ConnectionGroup
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode import Service
from mode.threads import ServiceThread

__all__ = ["Consumer", "RebalanceThread", "install"]

_CANCEL_SECONDS = 0.02  # by then aiokafka has cancelled its fetches
_WAIT_MS = 1500  # Faust's fetch_max_wait_ms, which cannot be configured
_SHORT_WAIT_MS = 50  # during a rebalance and _SHORT_WAITS_SECONDS after it
_SHORT_WAITS_SECONDS = 3.0


class RebalanceThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """Faust's consumer thread. Its rebalance callbacks raise CancelledError only when their task is cancelled."""

    _restore: asyncio.TimerHandle | None = None

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        with _own_cancellation():
            await super().on_partitions_assigned(assigned, generation_id)
        self._restore = asyncio.get_running_loop().call_later(_SHORT_WAITS_SECONDS, self._set_fetch_wait, _WAIT_MS)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        if self._restore is not None:
            self._restore.cancel()
        self._set_fetch_wait(_SHORT_WAIT_MS)
        await self._abandon_fetches()
        with _own_cancellation():
            await super().on_partitions_revoked(revoked)

    def _set_fetch_wait(self, milliseconds: int) -> None:
        """Sets how long an empty fetch waits at the broker. aiokafka sends the first fetch when the offset of one
        partition is known, and the other partitions of the same broker wait until that fetch ends."""
        if self._consumer is not None and self._consumer._fetcher is not None:
            self._consumer._fetcher._fetch_max_wait_ms = milliseconds

    async def _abandon_fetches(self) -> None:
        """Closes the connections for fetches. aiokafka cancels the fetches of revoked partitions, but a broker answers
        the requests of a connection in their order: requests for offsets, and the first fetch of the next assignment,
        would wait until an empty fetch ends, up to 1.5 s. The next request opens a new connection."""
        await asyncio.sleep(_CANCEL_SECONDS)
        if self._consumer is not None:
            for (_, group), connection in list(self._consumer._client._conns.items()):
                if group == ConnectionGroup.DEFAULT:
                    connection.close()


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
