"""Runs Faust's consumer in the event loop of the worker, without a thread (faust-streaming 0.15, mode-streaming 0.7).

Faust runs each aiokafka consumer in a thread with an event loop of its own. Every fetch then passes from the worker's
loop to the thread and back, by two queues and at least two hand-overs of the interpreter lock, each of which takes up
to 5 ms while the other thread computes. The worker has nothing to gain from these threads: it computes on one core
anyway (decision 0070).

A rebalance's callback that runs after Faust's method queue has stopped gets a CancelledError although no task was
cancelled. aiokafka's coordination task would let it through and end. `LoopConsumer` turns it into an error, which
aiokafka logs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aiokafka import TopicPartition
from aiokafka.client import ConnectionGroup
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode import Service

__all__ = ["Consumer", "LoopConsumer"]

_CANCEL_SECONDS = 0.02  # by then aiokafka has cancelled its fetches
_WAIT_MS = 1500  # Faust's fetch_max_wait_ms, which cannot be configured
_SHORT_WAIT_MS = 50  # during a rebalance and _SHORT_WAITS_SECONDS after it
_SHORT_WAITS_SECONDS = 3.0


class LoopConsumer(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """Faust's consumer "thread" as a service of the loop that starts it. Its rebalance callbacks raise CancelledError
    only when their task is cancelled."""

    wait_for_shutdown = False  # a thread sets the event that its parent would wait for

    def __init__(self, consumer: driver.Consumer, *, loop: asyncio.AbstractEventLoop | None = None, **kwargs: Any):
        loop = loop or asyncio.get_running_loop()
        super().__init__(consumer, loop=loop, thread_loop=loop, **kwargs)

    async def maybe_start(self) -> bool:
        return await Service.maybe_start(self)  # type: ignore[no-any-return]

    async def start(self) -> None:
        await Service.start(self)

    async def stop(self) -> None:
        await Service.stop(self)

    async def on_stop(self) -> None:
        if self._consumer is not None:
            await self._consumer.stop()

    async def _stop_children(self) -> None:
        await self._default_stop_children()

    async def _stop_futures(self) -> None:
        await self._default_stop_futures()

    async def _stop_exit_stacks(self) -> None:
        await self._default_stop_exit_stacks()

    async def call_thread(self, fun: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        result = fun(*args, **kwargs)
        return await result if asyncio.iscoroutine(result) or asyncio.isfuture(result) else result

    async def seek_to_committed(self) -> dict[TopicPartition, int | None]:
        """Seeks all assigned partitions to their committed offsets, which one request returns.

        aiokafka sends a request per partition, one after the other. While a worker loads millions of rows each takes
        more than 0.1 s. Faust cancels this call after 15 s and ends its recovery without an error: the worker would
        stay "rebalancing" until its start timed out.
        """
        consumer = self._ensure_consumer()
        partitions = list(consumer._subscription.assigned_partitions())
        committed = await consumer._coordinator.fetch_committed_offsets(partitions)
        offsets = {tp: committed[tp].offset if tp in committed else None for tp in partitions}
        for tp, offset in offsets.items():
            if offset is not None and offset > 0:  # -1: none is committed
                consumer._fetcher.seek_to(tp, offset)
        return {tp: None if offset == -1 else offset for tp, offset in offsets.items()}

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
    """Faust's consumer, run by a `LoopConsumer`."""

    def _new_consumer_thread(self) -> LoopConsumer:
        return LoopConsumer(self, loop=self.loop, beacon=self.beacon)

    async def _drain_messages(self, fetcher: Service) -> None:
        """Delivers fetched chunks to the agents until the fetcher stops.

        Faust's own loop creates two tasks for each message, in case the delivery blocks while a rebalance begins. This
        one creates them only if it would block.
        """
        try:
            while not (self.should_stop or fetcher.should_stop):
                async for tp, message in self.getmany(timeout=1.0):
                    if self._would_block(tp):
                        await self.wait_first(self.callback(message), self.suspend_flow.wait())
                    else:
                        await self.callback(message)
                    self._read_offset[tp] = message.offset
                await asyncio.sleep(0)
        except (asyncio.CancelledError, *self.consumer_stopped_errors):
            if not self.transport.app.should_stop:
                raise

    def _would_block(self, tp: TP) -> bool:
        app = self.app
        if self.suspend_flow.is_set() or not app.flow_control.is_active():
            return True
        return any(channel.queue.full() for channel in app.topics._tp_index.get(tp, ()))


@contextmanager
def _own_cancellation() -> Iterator[None]:
    """Raises RuntimeError for a CancelledError while the current task is not being cancelled."""
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise RuntimeError("the consumer stopped during a rebalance") from error
