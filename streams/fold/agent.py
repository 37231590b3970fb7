"""Faust agent `fold`, and the partitions of attn.log that are assigned to this worker.

The agent hands each chunk to the `PartitionProcessor` of its partition (streams.fold.partition).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable

import faust
from faust.types import TP

from schemas.topics import LOG
from streams.consumer.chunks import ByteSemaphore, RawSchema, RecordChunk, Records
from streams.core.fold.fold import Fold
from streams.fold.partition import PartitionProcessor
from streams.runtime.task_supervisor import TaskSupervisor

__all__ = ["AssignedPartitions", "register_agent"]

_MAX_QUEUE_BYTES = 32 << 20


def register_agent(app: faust.App, partitions: AssignedPartitions, supervisor: TaskSupervisor) -> None:
    """Defines the app's agent `fold`."""
    topic = app.topic(LOG, schema=RawSchema(), acks=False)

    @app.agent(topic, name="fold")  # type: ignore[untyped-decorator]
    async def fold(stream: faust.Stream[Records]) -> None:
        with supervisor.guard("agent fold"):
            async for event in stream.noack().events():
                await partitions.enqueue(event.message.tp, event.value)


class AssignedPartitions:
    """The partitions of the log that are assigned to this worker, each with its processor.

    `create_processor(partition, reusable_fold)` creates the processor of a partition. The methods are those of
    `MonitoredConsumer` (streams.consumer.watchdog), and `start`, `close`, `release` around a rebalance.
    """

    paused: Collection[TP] = ()  # the fold pauses no partition

    def __init__(
        self, create_processor: Callable[[int, Fold | None], PartitionProcessor], supervisor: TaskSupervisor
    ) -> None:
        self.processors: dict[int, PartitionProcessor] = {}
        self._reusable_folds: dict[int, Fold] = {}  # of partitions that were revoked in the current rebalance
        self._create_processor = create_processor
        self._supervisor = supervisor
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._queue_bytes = ByteSemaphore(_MAX_QUEUE_BYTES)

    async def enqueue(self, tp: TP, records: Records) -> None:
        """Queues records for their partition. Waits while more than 32 MiB are queued."""
        chunk = RecordChunk.from_records(tp, records)
        await self._queue_bytes.acquire(chunk.size)
        processor = self.processors.get(tp.partition)
        if processor is None or processor.closing:  # revoked while this call waited
            self._queue_bytes.release(chunk.size)
        else:
            processor.queue.put_nowait(chunk)

    def reread(self, tp: TP, end: int) -> None:
        self.processors[tp.partition].queue.put_nowait(RecordChunk(tp, [], end, 0))

    def idle(self, tp: TP) -> bool:
        processor = self.processors.get(tp.partition)
        return processor is not None and processor.idle and processor.queue.empty()

    @property
    def ready(self) -> bool:
        return not self.loading

    @property
    def loading(self) -> list[int]:
        """Partitions whose rows are still being loaded."""
        return sorted(number for number, processor in self.processors.items() if processor.fold is None)

    @property
    def processed_at(self) -> dict[TP, float]:
        return {
            processor.tp: processor.processed_at for processor in self.processors.values() if processor.processed_at}

    @property
    def committable_offsets(self) -> dict[TP, int]:
        return {
            processor.tp: processor.next_offset for processor in self.processors.values() if processor.fold is not None}

    def start(self, partitions: Iterable[int]) -> None:
        """Starts a task per assigned partition, which loads its rows and then folds."""
        reusable_folds, self._reusable_folds = self._reusable_folds, {}
        for partition in partitions:
            processor = self.processors[partition] = self._create_processor(partition, reusable_folds.get(partition))
            name = f"fold of partition {partition}"
            self._tasks[partition] = self._supervisor.spawn(processor.run(self._queue_bytes), name)

    async def close(self) -> None:
        """Returns when the writes under way are finished. Drops queued records: the next owner reads them again.

        May be called twice at the same time, by a stop during a rebalance; both calls wait for the same tasks.
        """
        for partition, processor in self.processors.items():
            if not processor.closing:
                processor.close()
                if processor.fold is None:
                    self._tasks[partition].cancel()  # it is still loading; a write is never cancelled
        await asyncio.gather(*(self._tasks[partition] for partition in self.processors), return_exceptions=True)
        for processor in self.processors.values():
            while not processor.queue.empty():
                self._queue_bytes.release(processor.queue.get_nowait().size)

    def release(self) -> None:
        """Removes all partitions, after `close`. Keeps the folds that stopped cleanly, in case this worker gets their
        partitions again."""
        self._reusable_folds = {
            partition: processor.fold for partition, processor in self.processors.items()
            if processor.fold is not None and processor.stopped_cleanly
        }
        self.processors.clear()
        self._tasks.clear()
