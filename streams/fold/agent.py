"""Agent `fold`: packs of attn.log in, facts and rows out. One `PartitionProcessor` folds one partition.

Order of writes: facts, then rows and position as one batch, each acknowledged; then the table; then the offset may be
committed. A crash between any two leaves the position where it was, and the same packs give the same facts and rows
again (laws 1 and 3). The position alone decides what is folded; Faust's offsets only say where to look.
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
    topic = app.topic(LOG, schema=RawSchema(), acks=False)

    @app.agent(topic, name="fold")  # type: ignore[untyped-decorator]
    async def fold(stream: faust.Stream[Records]) -> None:
        with supervisor.guard("agent fold"):
            async for event in stream.noack().events():
                await partitions.enqueue(event.message.tp, event.value)


class AssignedPartitions:
    """The partitions of the log that this worker owns."""

    def __init__(self, make: Callable[[int, Fold | None], PartitionProcessor], supervisor: TaskSupervisor) -> None:
        self.processors: dict[int, PartitionProcessor] = {}
        self._reusable_folds: dict[int, Fold] = {}  # of partitions owned until the rebalance that goes on
        self._create_processor = make
        self._supervisor = supervisor
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._queue_bytes = ByteSemaphore(_MAX_QUEUE_BYTES)

    async def enqueue(self, tp: TP, records: Records) -> None:
        chunk = RecordChunk.from_records(tp, records)
        await self._queue_bytes.acquire(chunk.size)
        processor = self.processors.get(tp.partition)
        if processor is None or processor.closing:  # revoked meanwhile
            self._queue_bytes.release(chunk.size)
        else:
            processor.queue.put_nowait(chunk)

    def reread(self, tp: TP, upto: int) -> None:
        self.processors[tp.partition].queue.put_nowait(RecordChunk(tp, [], upto, 0))

    def idle(self, tp: TP) -> bool:
        processor = self.processors.get(tp.partition)
        return processor is not None and processor.idle and processor.queue.empty()

    paused: Collection[TP] = ()  # none is left alone

    @property
    def ready(self) -> bool:
        return not self.loading

    @property
    def loading(self) -> list[int]:
        """Partitions whose rows are being read."""
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
        kept, self._reusable_folds = self._reusable_folds, {}
        for partition in partitions:
            processor = self.processors[partition] = self._create_processor(partition, kept.get(partition))
            name = f"fold of partition {partition}"
            self._tasks[partition] = self._supervisor.spawn(processor.run(self._queue_bytes), name)

    async def close(self) -> None:
        """Returns when nothing is written any more. What waits is left to whoever owns the partition next.

        A worker may be told to stop while a rebalance takes its partitions: then two wait for the same.
        """
        for partition, processor in self.processors.items():
            if not processor.closing:
                processor.close()
                if processor.fold is None:
                    self._tasks[partition].cancel()  # it only reads yet; a write is never cut off
        await asyncio.gather(*(self._tasks[partition] for partition in self.processors), return_exceptions=True)
        for processor in self.processors.values():
            while not processor.queue.empty():
                self._queue_bytes.release(processor.queue.get_nowait().size)

    def release(self) -> None:
        """After `close`. What ended well may go on where it is, should this worker get the partition again."""
        self._reusable_folds = {
            partition: processor.fold for partition, processor in self.processors.items()
            if processor.fold is not None and processor.stopped_cleanly
        }
        self.processors.clear()
        self._tasks.clear()
