"""Idempotent producer, acknowledged writes with a time limit, and writes of one record batch."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.producer.sender import SendProduceReqHandler

from schemas.settings import Settings
from schemas.topics import BATCH_BYTES, MAX_DEAD_LETTER_BYTES
from streams.kafka import doorbell
from streams.kafka.connection import client_arguments, deadline

__all__ = ["Headers", "idempotent_producer", "wait_acknowledged", "write_deadline", "write_records", "write_rows"]

log = logging.getLogger(__name__)

Headers = list[tuple[str, bytes]]

# A third of the time limit of a write or a read: after one broker that does not answer, others are still tried.
REQUEST_SECONDS = 10
# After this time the result of a write is unknown, so the worker stops and a restart reads what is durable. With
# Kafka's defaults a dead broker that also led the quorum is replaced after about 12 s. Waiting is better than a
# restart, which takes as long and must also fence and load every partition.
WRITE_SECONDS = 30.0
# Steps of the event loop between an acknowledgement and the next batch of its writer (`asyncio.shield`, then the task).
_COLLECT_STEPS = 2


class PromptSender:
    """Sends the batches of a producer with fewer steps of the event loop than aiokafka's own sender task.

    The sender task starts to send three steps after a write, and the next request six steps after an acknowledgement.
    Here it is one step and two. In a busy worker a step takes about a millisecond (decision 0079). The batches and
    their order, the requests, the errors and the retries are aiokafka's (`MessageAccumulator`,
    `SendProduceReqHandler`): one request per broker and per partition is under way. The sender task remains, and sends
    whenever a partition has no leader, because it waits for new metadata.
    """

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._sender, self._accumulator = producer._sender, producer._message_accumulator
        self._sender_turn = asyncio.get_running_loop().create_future()
        self._starting: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._append_batch, self._close = self._accumulator._append_batch, self._sender.close
        self._accumulator._append_batch = self._append_and_start
        self._accumulator.waiter = self._wait_for_turn  # the sender task waits for this future
        self._sender._send_produce_req = self._send
        self._sender.close = self._close_all

    def _append_and_start(self, builder: Any, tp: TopicPartition) -> Any:
        batch = self._append_batch(builder, tp)
        busy = self._accumulator._cluster.leader_for_partition(tp) in self._sender._in_flight
        if not busy and self._starting is None:  # batches that other tasks append in this step share the request
            self._starting = self._spawn(self._start())
        return batch

    def _wait_for_turn(self) -> asyncio.Future[None]:
        if self._sender_turn.done():
            self._sender_turn = asyncio.get_running_loop().create_future()
        return self._sender_turn

    async def _start(self) -> None:
        self._starting = None
        ready = list(self._drain().items())
        for node_id, batches in ready[1:]:
            self._spawn(self._send(node_id, batches))
        if ready:
            await self._send(*ready[0])

    async def _send(self, node_id: int, batches: Mapping[TopicPartition, Any]) -> None:
        """Sends a request to a broker, then what was appended meanwhile, until nothing waits for this broker.

        After an acknowledgement, the tasks that waited for it append their next batches first. Otherwise two requests
        would alternate, each half as large.
        """
        sender = self._sender
        while batches:
            await SendProduceReqHandler(sender, batches).do(node_id)
            for _ in range(_COLLECT_STEPS):
                await asyncio.sleep(0)
            sender._in_flight.remove(node_id)
            sender._muted_partitions.difference_update(batches)
            ready = self._drain()
            batches = ready.pop(node_id, {})
            for other, its_batches in ready.items():  # for example of partitions whose leader has changed
                self._spawn(self._send(other, its_batches))

    def _drain(self) -> dict[int, Mapping[TopicPartition, Any]]:
        """Returns the next batch of each partition, by broker, as the sender task does. Brokers and partitions with a
        request under way are left out."""
        sender = self._sender
        if self._closing or sender.sender_task is None or sender.sender_task.done():
            return {}  # the producer has not started, or it ends
        ready, without_leader = self._accumulator.drain_by_nodes(sender._in_flight, sender._muted_partitions)
        for node_id, batches in ready.items():
            sender._in_flight.add(node_id)
            sender._muted_partitions.update(batches)
        if without_leader and not self._sender_turn.done():
            self._sender_turn.set_result(None)
        return dict(ready)

    def _spawn(self, sending: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(sending)
        self._tasks.add(task)
        task.add_done_callback(self._end)
        return task

    def _end(self, task: asyncio.Task[None]) -> None:
        """Fails all batches, and later writes, after an error that aiokafka's handler does not handle."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a request of a producer failed: %r", error, exc_info=error)
            self._accumulator.fail_all(KafkaError(f"unexpected error of a producer: {error!r}"))

    async def _close_all(self) -> None:
        """Returns when the requests under way have ended, without a retry. aiokafka has flushed before."""
        self._closing = True
        await self._close()
        if self._tasks:
            await asyncio.wait(self._tasks)


def idempotent_producer(settings: Settings, name: str) -> AIOKafkaProducer:
    """Creates an idempotent producer with acks=all. The caller starts and stops it. `name` is part of the client id."""
    producer = doorbell.make_producer(
        settings, **client_arguments(settings), client_id=f"attn-{name}-{settings.instance}", linger_ms=0,
        max_batch_size=BATCH_BYTES,
        max_request_size=MAX_DEAD_LETTER_BYTES, request_timeout_ms=REQUEST_SECONDS * 1000,
        compression_type=None if settings.kafka_compression == "none" else settings.kafka_compression,
    )
    PromptSender(producer)
    return producer


async def wait_acknowledged(writes: Sequence[asyncio.Future[Any]]) -> list[Any]:
    """Returns the brokers' answers to the writes. Raises the error of the first failed write, or TimeoutError after
    WRITE_SECONDS."""
    async with write_deadline():
        if len(writes) == 1:
            return [await writes[0]]  # one step of the event loop less than `asyncio.gather`
        return await asyncio.gather(*writes)


def write_deadline() -> AbstractAsyncContextManager[None]:
    """Raises TimeoutError if the block takes longer than WRITE_SECONDS."""
    return deadline(WRITE_SECONDS, f"Kafka has not acknowledged a write for {WRITE_SECONDS:.0f} s")


async def write_rows(
    out: AIOKafkaProducer, topic: str, partition: int, rows: Iterable[tuple[bytes, bytes | None]]
) -> int:
    """Writes one or more records without headers, as `write_records` does."""
    return await write_records(out, topic, partition, ((key, value, []) for key, value in rows))


async def write_records(
    out: AIOKafkaProducer, topic: str, partition: int, records: Iterable[tuple[bytes, bytes | None, Headers]]
) -> int:
    """Writes one or more records in order as one record batch, or as several if they exceed BATCH_BYTES.

    Returns the offset of the last record. No single record may exceed the limit (`check_record_sizes`). Each batch has
    a time limit of its own.
    """
    batches = []
    batch = None
    for key, value, headers in records:
        if batch is None or batch.append(key=key, value=value, timestamp=None, headers=headers) is None:
            batch = out.create_batch()
            batch.append(key=key, value=value, timestamp=None, headers=headers)
            batches.append(batch)
    sent = []
    for batch in batches:
        batch.close()
        async with write_deadline():
            sent.append(await out.send_batch(batch, topic, partition=partition))
    answers = await wait_acknowledged(sent)
    return int(answers[-1].offset + batches[-1].record_count() - 1)
