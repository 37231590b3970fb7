"""One writer a partition, enforced by the broker: who lost a partition can't write its rows any more.

A group's member that was paused past its session timeout does not know that its partitions are another's. What it
writes then would be old rows after newer ones, and compaction would keep the old ones. So whoever folds a partition
claims it first: Kafka counts the owners of a transactional id (its producer epoch), and refuses what an earlier owner
sends to a partition that has a record of a later one. No transaction is ever begun, so there are no markers, no second
phase and nothing for readers to wait for: a claim costs one record, a write nothing more (decision 0018).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer
from aiokafka.errors import ProducerFenced

from schemas.settings import Settings
from schemas.topics import VIEWS
from schemas.views import FenceRow, encode_row, fence_key
from streams.kafka.connection import client_arguments, close_client
from streams.kafka.producer import REQUEST_SECONDS, WRITE_SECONDS, idempotent_producer, write_rows

__all__ = ["FencedError", "FencedProducer", "fence_partition", "transactional_id"]

log = logging.getLogger(__name__)

_CLOSE_SECONDS = 2.0
# An id that nobody asked for is forgotten by the broker after transactional.id.expiration.ms, a week by default. The
# next claim then begins a new count, and only positions tell a zombie of before (streams/fold/views_table.py).


class FencedError(Exception):
    """Another worker claimed the partition: nothing of this write is in its rows, and nothing ever will be."""


@dataclass(frozen=True, slots=True)
class FencedProducer:
    """`offset`: of the claim in attn.views. All before it is final; after it only `write` writes, until that raises
    FencedError."""

    partition: int
    producer: AIOKafkaProducer
    epoch: int
    offset: int

    async def write(self, topic: str, rows: list[tuple[bytes, bytes | None]]) -> int:
        """As `write_rows`, to this partition of the topic."""
        try:
            return await write_rows(self.producer, topic, self.partition, rows)
        except ProducerFenced as error:
            raise FencedError(f"partition {self.partition} was claimed by another worker") from error

    async def close(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await close_client(self.producer)


def transactional_id(partition: int) -> str:
    return f"attn-fold-{partition}"


async def fence_partition(settings: Settings, partition: int) -> FencedProducer:
    """Take the partition over from whoever has it. To be closed by the caller.

    TimeoutError or a KafkaError: the broker does not answer; FencedError: somebody else claimed it at the same time.
    """
    pid, epoch = await _number(settings, partition)
    out = idempotent_producer(settings, f"fold-{partition}")
    # An idempotent producer asks for numbers of its own only where it has none.
    out._txn_manager.set_pid_and_epoch(pid, epoch)
    try:
        async with asyncio.timeout(WRITE_SECONDS):
            await out.start()
        row = FenceRow(by=settings.instance, epoch=epoch, at=time.time_ns() // 1000)
        first = FencedProducer(partition, out, epoch, -1)
        offset = await first.write(VIEWS, [(fence_key(partition), encode_row(row))])
    except BaseException:
        await FencedProducer(partition, out, epoch, -1).close()
        raise
    log.info("%s/%d: claimed at offset %d, epoch %d", VIEWS, partition, offset, epoch)
    return FencedProducer(partition, out, epoch, offset)


async def _number(settings: Settings, partition: int) -> tuple[int, int]:
    """The broker's next number for an owner of the partition: producer id and epoch."""
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
