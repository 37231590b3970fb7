"""One producer id per partition: the broker refuses writes of an earlier owner by its producer epoch (decision 0018).

A group member that was paused for longer than its session timeout does not know that its partitions were reassigned.
Its writes would append old rows after newer ones, and compaction would keep the old ones. The worker therefore fences a
partition before it loads it. Kafka increments the producer epoch of a transactional id for each owner, and refuses an
older epoch on a partition that has a record of a newer one. attn never begins a transaction: there are no markers, no
second phase, and readers do not wait. Fencing costs one record; later writes cost nothing extra.

All partitions of a worker share one `AIOKafkaProducer`, so their batches share requests (decision 0078). The producer
id, the epoch and the sequence number are part of each batch, not of the request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import chain

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import ProducerFenced
from aiokafka.producer.transaction_manager import PidAndEpoch, TransactionManager

from schemas.settings import Settings
from schemas.topics import DECISIONS, FACTS, VIEWS
from schemas.views import FenceRow, encode_row, fence_key
from streams.kafka.connection import client_arguments, close_client
from streams.kafka.producer import (
    REQUEST_SECONDS,
    WRITE_SECONDS,
    Headers,
    idempotent_producer,
    write_deadline,
    write_records,
)
from streams.runtime.clock import now_us

__all__ = [
    "FENCED_TOPICS", "FencedError", "FencedProducer", "PartitionFencer", "fenced_partition", "transactional_id",
]

log = logging.getLogger(__name__)

FENCED_TOPICS = frozenset({FACTS, DECISIONS, VIEWS})  # the owner of a partition writes it in each of them

_CLOSE_SECONDS = 2.0
# The broker forgets an unused transactional id after transactional.id.expiration.ms (default: 7 days). The epoch then
# starts again, and only positions detect an earlier owner that still writes (streams/fold/views_table.py).


class FencedError(Exception):
    """Another process has fenced the partition. Nothing of this write is in the topic or will be."""


class _ProducerIds(TransactionManager):  # type: ignore[misc]
    """aiokafka's producer id, epoch and sequence numbers, with an id and an epoch for each fenced partition.

    aiokafka asks for the sequence number of a new batch, and reads `producer_id` and `producer_epoch` in the same step
    of the event loop (`MessageAccumulator._pop_batch`). Batches of other topics get the producer's own id.
    """

    _pid_and_epoch: PidAndEpoch

    def __init__(self) -> None:
        super().__init__(None, 0)
        self._own: PidAndEpoch = self._pid_and_epoch
        self._fenced: dict[int, PidAndEpoch] = {}

    def set_pid_and_epoch(self, pid: int, epoch: int) -> None:
        super().set_pid_and_epoch(pid, epoch)
        self._own = self._pid_and_epoch

    def set_fenced(self, partition: int, pid: int, epoch: int) -> None:
        """Sets the id and the epoch of a partition. The broker expects sequence numbers from 0 in a new epoch."""
        self._fenced[partition] = PidAndEpoch(pid, epoch)
        for topic in FENCED_TOPICS:
            self._sequence_numbers.pop(TopicPartition(topic, partition), None)

    def fenced(self, partition: int) -> PidAndEpoch:
        return self._fenced[partition]

    def sequence_number(self, tp: TopicPartition) -> int:
        self._pid_and_epoch = self._fenced[tp.partition] if tp.topic in FENCED_TOPICS else self._own
        return int(super().sequence_number(tp))


@dataclass(frozen=True, slots=True)
class FencedProducer:
    """A producer with the newest epoch of a partition.

    `offset`: offset of the fence record in attn.views. No earlier owner writes after it, so the records before it are
    final. After it only this producer writes, until `write` raises FencedError.
    """

    partition: int
    producer: AIOKafkaProducer
    pid_and_epoch: PidAndEpoch
    offset: int

    async def write(self, topic: str, rows: list[tuple[bytes, bytes | None]]) -> int:
        """Writes rows to this partition of `topic`, as `write_rows` does. Returns the offset of the last one. Raises
        FencedError if another process has fenced the partition."""
        return await self.write_records(topic, [(key, value, []) for key, value in rows])

    async def write_records(self, topic: str, records: list[tuple[bytes, bytes | None, Headers]]) -> int:
        """Writes records with headers, otherwise as `write`. `topic`: one of FENCED_TOPICS."""
        if topic not in FENCED_TOPICS:
            raise ValueError(f"{topic} is not written by the owner of a partition")
        if self.producer._txn_manager.fenced(self.partition) != self.pid_and_epoch:
            raise FencedError(f"partition {self.partition} was fenced again by this worker")
        try:
            return await write_records(self.producer, topic, self.partition, records)
        except ProducerFenced as error:
            raise FencedError(f"partition {self.partition} was fenced by another worker") from error


class PartitionFencer:
    """Fences partitions and writes to all of them with one producer, which the caller starts and stops."""

    def __init__(self, settings: Settings) -> None:
        self.producer = idempotent_producer(settings, "fold")
        self._settings = settings
        self._ids = _ProducerIds()
        # aiokafka has no setting for the producer id of a batch.
        accumulator, sender = self.producer._message_accumulator, self.producer._sender
        self.producer._txn_manager = accumulator._txn_manager = sender._txn_manager = self._ids

    async def fence(self, partition: int) -> FencedProducer:
        """Fences all earlier owners of a partition.

        Raises TimeoutError or a KafkaError if the broker does not answer, FencedError if another process fenced the
        partition at the same time.
        """
        await self._wait_written(partition)
        pid, epoch = await _request_epoch(self._settings, partition)
        self._ids.set_fenced(partition, pid, epoch)
        row = FenceRow(by=self._settings.instance, epoch=epoch, at=now_us())
        first = FencedProducer(partition, self.producer, self._ids.fenced(partition), -1)
        offset = await first.write(VIEWS, [(fence_key(partition), encode_row(row))])
        log.info("%s/%d: fenced at offset %d, epoch %d", VIEWS, partition, offset, epoch)
        return replace(first, offset=offset)

    async def _wait_written(self, partition: int) -> None:
        """Returns when no batch of an earlier assignment to this worker waits, for example the record of a fence that
        was cancelled: aiokafka gives a batch its epoch when it sends it, and that would be the new one."""
        accumulator = self.producer._message_accumulator
        waiting = [*chain.from_iterable(accumulator._batches.values()), *accumulator._pending_batches]
        mine = [batch.future for batch in waiting
                if batch.tp.partition == partition and batch.tp.topic in FENCED_TOPICS]
        if mine:
            async with write_deadline():
                await asyncio.wait(mine)


def transactional_id(partition: int) -> str:
    return f"attn-fold-{partition}"


@asynccontextmanager
async def fenced_partition(settings: Settings, partition: int) -> AsyncIterator[FencedProducer]:
    """Fences one partition with a producer of its own. Raises as `PartitionFencer.fence`."""
    fencer = PartitionFencer(settings)
    try:
        async with asyncio.timeout(WRITE_SECONDS):
            await fencer.producer.start()
        yield await fencer.fence(partition)
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await close_client(fencer.producer)


async def _request_epoch(settings: Settings, partition: int) -> tuple[int, int]:
    """Returns the producer id and the epoch that the broker assigns to the next owner of the partition."""
    asking = AIOKafkaProducer(
        **client_arguments(settings), client_id=f"attn-claim-{settings.instance}",
        transactional_id=transactional_id(partition), request_timeout_ms=REQUEST_SECONDS * 1000,
    )
    try:
        async with asyncio.timeout(WRITE_SECONDS):
            await asking.start()
        return asking._txn_manager.producer_id, asking._txn_manager.producer_epoch
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await close_client(asking)
