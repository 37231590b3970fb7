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

_WAITING_BYTES = 32 << 20


def register_agent(app: faust.App, shards: AssignedPartitions, alarm: TaskSupervisor) -> None:
    topic = app.topic(LOG, schema=RawSchema(), acks=False)

    @app.agent(topic, name="fold")  # type: ignore[untyped-decorator]
    async def fold(stream: faust.Stream[Records]) -> None:
        with alarm.guard("agent fold"):
            async for event in stream.noack().events():
                await shards.put(event.message.tp, event.value)


class AssignedPartitions:
    """The partitions of the log that this worker owns."""

    def __init__(self, make: Callable[[int, Fold | None], PartitionProcessor], alarm: TaskSupervisor) -> None:
        self.owned: dict[int, PartitionProcessor] = {}
        self._kept: dict[int, Fold] = {}  # of partitions owned until the rebalance that goes on
        self._make = make
        self._alarm = alarm
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._budget = ByteSemaphore(_WAITING_BYTES)

    async def put(self, tp: TP, records: Records) -> None:
        portion = RecordChunk.of(tp, records)
        await self._budget.take(portion.size)
        shard = self.owned.get(tp.partition)
        if shard is None or shard.closing:  # revoked meanwhile
            self._budget.give(portion.size)
        else:
            shard.waiting.put_nowait(portion)

    def read_again(self, tp: TP, upto: int) -> None:
        self.owned[tp.partition].waiting.put_nowait(RecordChunk(tp, [], upto, 0))

    def idle(self, tp: TP) -> bool:
        shard = self.owned.get(tp.partition)
        return shard is not None and shard.resting and shard.waiting.empty()

    held: Collection[TP] = ()  # none is left alone

    @property
    def ready(self) -> bool:
        return not self.loading

    @property
    def loading(self) -> list[int]:
        """Partitions whose rows are being read."""
        return sorted(number for number, shard in self.owned.items() if shard.fold is None)

    @property
    def worked(self) -> dict[TP, float]:
        return {shard.tp: shard.worked for shard in self.owned.values() if shard.worked}

    @property
    def done(self) -> dict[TP, int]:
        return {shard.tp: shard.done for shard in self.owned.values() if shard.fold is not None}

    def start(self, partitions: Iterable[int]) -> None:
        kept, self._kept = self._kept, {}
        for partition in partitions:
            shard = self.owned[partition] = self._make(partition, kept.get(partition))
            name = f"fold of partition {partition}"
            self._tasks[partition] = self._alarm.watch(shard.run(self._budget), name)

    async def close(self) -> None:
        """Returns when nothing is written any more. What waits is left to whoever owns the partition next.

        A worker may be told to stop while a rebalance takes its partitions: then two wait for the same.
        """
        for partition, shard in self.owned.items():
            if not shard.closing:
                shard.close()
                if shard.fold is None:
                    self._tasks[partition].cancel()  # it only reads yet; a write is never cut off
        await asyncio.gather(*(self._tasks[partition] for partition in self.owned), return_exceptions=True)
        for shard in self.owned.values():
            while not shard.waiting.empty():
                self._budget.give(shard.waiting.get_nowait().size)

    def release(self) -> None:
        """After `close`. What ended well may go on where it is, should this worker get the partition again."""
        self._kept = {
            partition: shard.fold for partition, shard in self.owned.items() if shard.fold is not None and shard.clean
        }
        self.owned.clear()
        self._tasks.clear()
