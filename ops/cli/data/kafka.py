"""What the tools need of Kafka: a producer with bounded sends, a topic's records up to its end, clear errors."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError, MessageSizeTooLargeError

from ops.errors import UserError
from schemas.settings import Settings
from schemas.topics import MAX_DEAD_LETTER_BYTES, MAX_SOURCE_BYTES
from streams.kafka.connection import client_arguments, close_client, deadline
from streams.kafka.diagnostics import diagnose

__all__ = ["Sender", "kafka_errors", "kafka_timeout", "open_consumer", "open_producer", "read_to_end"]

# Enough that batches are full, few enough that an error is told soon and memory stays small.
_IN_FLIGHT = 2000
_PATIENCE = 30.0  # seconds without an answer; a new leader takes ten
_REQUEST_MS = 10_000
_CLOSE = 5.0  # seconds; a client waits for what it could not send
_INTERRUPTED = 130  # exit code


@contextmanager
def kafka_errors(settings: Settings) -> Iterator[None]:
    """Errors of Kafka as a word to the person at the terminal."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it tells in its log what it also raises
    try:
        yield
    except KafkaConnectionError:
        raise UserError(
            f"no Kafka at {settings.kafka}; is `attn up` running? (--kafka, ATTN_KAFKA or --data-dir say where)"
        ) from None
    except KafkaError as error:
        raise UserError(f"Kafka at {settings.kafka}: {error}") from None


def kafka_timeout() -> AbstractAsyncContextManager[None]:
    """Raises KafkaTimeoutError if Kafka does not answer within 30 s: aiokafka itself retries without a limit."""
    return deadline(_PATIENCE, f"no answer for {_PATIENCE:.0f} s", KafkaTimeoutError)


class Sender:
    """Sends with a bounded number of records on their way. Errors of a send are raised by a later one or `finish`."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer
        self._waiting: deque[tuple[asyncio.Future[object], int | None]] = deque()
        self.sent = 0

    async def send(
        self, topic: str, value: bytes | None, key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (), partition: int | None = None, line: int | None = None,
    ) -> None:
        """`line`: where it comes from, for the person who may have to go on there."""
        try:
            async with kafka_timeout():
                answer = await self._producer.send(
                    topic, value=value, key=key, headers=list(headers), partition=partition)
        except MessageSizeTooLargeError:
            raise MessageSizeTooLargeError(
                f"a record of {len(value or b'')} bytes is larger than Kafka takes ({MAX_SOURCE_BYTES})") from None
        self._waiting.append((answer, line))
        self.sent += 1
        if len(self._waiting) > _IN_FLIGHT:
            await self._one()

    async def finish(self) -> int:
        """Wait until all of it is acknowledged: how many records that were."""
        while self._waiting:
            await self._one()
        return self.sent

    async def _one(self) -> None:
        async with kafka_timeout():
            await asyncio.shield(self._waiting[0][0])
        self._waiting.popleft()

    def progress_text(self) -> str:
        """What a person must know to go on."""
        if not self.sent:
            return "nothing was sent"
        unknown = [line for answer, line in self._waiting if not _arrived(answer)]
        told = f"{self.sent - len(unknown):,} records were acknowledged"
        if unknown:
            told += f", {len(unknown):,} more may have arrived"
            told += f"; go on at line {unknown[0]}" if unknown[0] is not None else ""
            told += " (an event that arrives twice counts once)"
        return told


def _arrived(answer: asyncio.Future[object]) -> bool:
    return answer.done() and not answer.cancelled() and answer.exception() is None


@asynccontextmanager
async def _started(client: AIOKafkaProducer | AIOKafkaConsumer) -> AsyncIterator[None]:
    """Their own `async with` leaves a client open that could not start."""
    try:
        async with kafka_timeout():
            await client.start()
        yield
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE):
                await close_client(client)


@asynccontextmanager
async def open_producer(settings: Settings, topics: Collection[str]) -> AsyncIterator[Sender]:
    """A sender to these topics. UserError: Kafka is not there, does not acknowledge, or a topic is not there (it is
    never created by accident); it says how much was acknowledged."""
    with kafka_errors(settings):
        producer = AIOKafkaProducer(
            **client_arguments(settings), acks="all", enable_idempotence=True, linger_ms=5,
            compression_type="gzip",  # a seventh of the size for 10 us an event; noida-db holds all in memory
            max_request_size=MAX_SOURCE_BYTES, request_timeout_ms=_REQUEST_MS,
        )
        out = Sender(producer)
        try:
            async with _started(producer):
                await _require(settings, producer.client, topics)
                yield out
        except asyncio.CancelledError:
            raise UserError(f"interrupted; {out.progress_text()}", code=_INTERRUPTED) from None
        except KafkaConnectionError:
            raise
        except KafkaError as error:
            why = None if isinstance(error, MessageSizeTooLargeError) else await diagnose(settings, topics)
            raise UserError(f"{why or _words(settings, error)}; {out.progress_text()}") from None


def _words(settings: Settings, error: KafkaError) -> str:
    return str(error) if isinstance(error, MessageSizeTooLargeError) else f"Kafka at {settings.kafka}: {error}"


async def _require(settings: Settings, client: AIOKafkaClient, topics: Iterable[str]) -> ClusterMetadata:
    """What is known of the topics. UserError: one is not there."""
    async with kafka_timeout():
        known = await client.fetch_all_metadata()
    if missing := sorted(set(topics) - set(known.topics())):
        raise UserError(f"no topic {', '.join(missing)} at {settings.kafka}; `attn topics` creates what is missing")
    return known


@asynccontextmanager
async def open_consumer(settings: Settings, topic: str, group: str | None = None) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer with all partitions of the topic assigned, at their beginning. Nothing is committed by itself.

    UserError: Kafka is not there or stops answering, or the topic is not there.
    """
    with kafka_errors(settings):
        reader = AIOKafkaConsumer(
            **client_arguments(settings), group_id=group, enable_auto_commit=False,
            max_partition_fetch_bytes=MAX_DEAD_LETTER_BYTES, request_timeout_ms=_REQUEST_MS,
            isolation_level="read_committed",
        )
        try:
            async with _started(reader):
                # Not `partitions_for_topic`: that is what the client last heard, which may be without this topic.
                known = await _require(settings, reader._client, [topic])
                reader.assign([TopicPartition(topic, number) for number in known.partitions_for_topic(topic) or ()])
                async with kafka_timeout():
                    await reader.seek_to_beginning()
                yield reader
        except KafkaConnectionError:
            raise
        except KafkaError as error:
            raise UserError(await diagnose(settings, [topic]) or _words(settings, error)) from None


async def read_to_end(reader: AIOKafkaConsumer) -> AsyncIterator[ConsumerRecord]:
    """Each record from the reader's position to what is the end now."""
    async with kafka_timeout():
        ends = await reader.end_offsets(reader.assignment())
        waiting = {place for place, end in ends.items() if await reader.position(place) < end}
    while waiting:
        async with kafka_timeout():
            while not (found := await reader.getmany(*waiting, timeout_ms=500)):
                waiting = {place for place in waiting if await reader.position(place) < ends[place]}
                if not waiting:
                    return
        for place, batch in found.items():
            for record in batch:
                if record.offset < ends[place]:
                    yield record
        waiting = {place for place in waiting if await reader.position(place) < ends[place]}
