"""One writer per partition: the broker refuses writes of an earlier owner by its producer epoch (decision 0018).

A group member that was paused for longer than its session timeout does not know that its partitions were reassigned.
Its writes would append old rows after newer ones, and compaction would keep the old ones. The worker therefore fences a
partition before it loads it. Kafka increments the producer epoch of a transactional id for each owner, and refuses an
older epoch on a partition that has a record of a newer one. attn never begins a transaction: there are no markers, no
second phase, and readers do not wait. Fencing costs one record; later writes cost nothing extra.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer
from aiokafka.errors import ProducerFenced

from schemas.settings import Settings
from schemas.topics import VIEWS
from schemas.views import FenceRow, encode_row, fence_key
from streams.kafka.connection import client_arguments, close_client
from streams.kafka.producer import REQUEST_SECONDS, WRITE_SECONDS, Headers, idempotent_producer, write_records
from streams.runtime.clock import now_us

__all__ = ["FencedError", "FencedProducer", "fence_partition", "transactional_id"]

log = logging.getLogger(__name__)

_CLOSE_SECONDS = 2.0
# The broker forgets an unused transactional id after transactional.id.expiration.ms (default: 7 days). The epoch then
# starts again, and only positions detect an earlier owner that still writes (streams/fold/views_table.py).


class FencedError(Exception):
    """Another process has fenced the partition. Nothing of this write is in the topic or will be."""


@dataclass(frozen=True, slots=True)
class FencedProducer:
    """A producer with the newest epoch of a partition.

    `offset`: offset of the fence record in attn.views. No earlier owner writes after it, so the records before it are
    final. After it only this producer writes, until `write` raises FencedError.
    """

    partition: int
    producer: AIOKafkaProducer
    epoch: int
    offset: int

    async def write(self, topic: str, rows: list[tuple[bytes, bytes | None]]) -> int:
        """Writes rows to this partition of `topic`, as `write_rows` does. Returns the offset of the last one. Raises
        FencedError if another process has fenced the partition."""
        return await self.write_records(topic, [(key, value, []) for key, value in rows])

    async def write_records(self, topic: str, records: list[tuple[bytes, bytes | None, Headers]]) -> int:
        """Writes records with headers, otherwise as `write`."""
        try:
            return await write_records(self.producer, topic, self.partition, records)
        except ProducerFenced as error:
            raise FencedError(f"partition {self.partition} was fenced by another worker") from error

    async def close(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await close_client(self.producer)


def transactional_id(partition: int) -> str:
    return f"attn-fold-{partition}"


async def fence_partition(settings: Settings, partition: int) -> FencedProducer:
    """Fences all earlier owners of a partition and returns its producer, which the caller closes.

    Raises TimeoutError or a KafkaError if the broker does not answer, FencedError if another process fenced the
    partition at the same time.
    """
    pid, epoch = await _request_epoch(settings, partition)
    out = idempotent_producer(settings, f"fold-{partition}")
    # aiokafka requests a producer id and epoch only if the producer has none.
    out._txn_manager.set_pid_and_epoch(pid, epoch)
    try:
        async with asyncio.timeout(WRITE_SECONDS):
            await out.start()
        row = FenceRow(by=settings.instance, epoch=epoch, at=now_us())
        first = FencedProducer(partition, out, epoch, -1)
        offset = await first.write(VIEWS, [(fence_key(partition), encode_row(row))])
    except BaseException:
        await FencedProducer(partition, out, epoch, -1).close()
        raise
    log.info("%s/%d: fenced at offset %d, epoch %d", VIEWS, partition, offset, epoch)
    return FencedProducer(partition, out, epoch, offset)


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
