"""Kafka clients of commands: a producer with bounded sends, a consumer that reads to the end, and one-line errors."""

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

# Enough records for full batches. A higher limit would report errors later and use more memory.
_IN_FLIGHT = 2000
_PATIENCE = 30.0  # seconds without an answer; the election of a leader takes about 10 s
_REQUEST_MS = 10_000
_CLOSE = 5.0  # seconds; a client that closes first waits for its unsent records
_INTERRUPTED = 130  # exit code


@contextmanager
def kafka_errors(settings: Settings) -> Iterator[None]:
    """Converts errors of Kafka to UserError."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # aiokafka logs the errors that it also raises
    # aiokafka leaves futures of refused connections, whose errors asyncio logs when they are garbage-collected.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
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
    """Sends records, at most 2,000 unacknowledged. An error of a send is raised by a later send or by `finish`."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer
        self._unacknowledged: deque[tuple[asyncio.Future[object], int | None]] = deque()
        self.sent = 0

    async def send(
        self, topic: str, value: bytes | None, key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (), partition: int | None = None, line: int | None = None,
    ) -> None:
        """Sends a record. `line`: its line number in the input, from which the user may have to continue."""
        try:
            async with kafka_timeout():
                answer = await self._producer.send(
                    topic, value=value, key=key, headers=list(headers), partition=partition)
        except MessageSizeTooLargeError:
            raise MessageSizeTooLargeError(
                f"a record of {len(value or b'')} bytes is larger than Kafka takes ({MAX_SOURCE_BYTES})") from None
        self._unacknowledged.append((answer, line))
        self.sent += 1
        if len(self._unacknowledged) > _IN_FLIGHT:
            await self._wait_oldest()

    async def finish(self) -> int:
        """Waits until all records are acknowledged; returns their number."""
        while self._unacknowledged:
            await self._wait_oldest()
        return self.sent

    async def _wait_oldest(self) -> None:
        async with kafka_timeout():
            await asyncio.shield(self._unacknowledged[0][0])
        self._unacknowledged.popleft()

    def progress_text(self) -> str:
        """Returns the counts of acknowledged and unknown records, and the line to continue from."""
        if not self.sent:
            return "nothing was sent"
        unknown = [line for answer, line in self._unacknowledged if not _arrived(answer)]
        text = f"{self.sent - len(unknown):,} records were acknowledged"
        if unknown:
            text += f", {len(unknown):,} more may have arrived"
            text += f"; go on at line {unknown[0]}" if unknown[0] is not None else ""
            text += " (an event that arrives twice counts once)"
        return text


def _arrived(answer: asyncio.Future[object]) -> bool:
    return answer.done() and not answer.cancelled() and answer.exception() is None


@asynccontextmanager
async def _started(client: AIOKafkaProducer | AIOKafkaConsumer) -> AsyncIterator[None]:
    """Starts and closes a client. The clients' own `async with` does not close a client that failed to start."""
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
    """Yields a sender for `topics`.

    Raises UserError if Kafka is unreachable or does not acknowledge, or if a topic is missing; the text names how many
    records were acknowledged. Missing topics are never created.
    """
    with kafka_errors(settings):
        producer = AIOKafkaProducer(
            **client_arguments(settings), acks="all", enable_idempotence=True, linger_ms=5,
            compression_type="gzip",  # 1/7 of the size for 10 us per event; noida-db holds all records in memory
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
            cause = None if isinstance(error, MessageSizeTooLargeError) else await diagnose(settings, topics)
            raise UserError(f"{cause or _error_text(settings, error)}; {out.progress_text()}") from None


def _error_text(settings: Settings, error: KafkaError) -> str:
    return str(error) if isinstance(error, MessageSizeTooLargeError) else f"Kafka at {settings.kafka}: {error}"


async def _require(settings: Settings, client: AIOKafkaClient, topics: Iterable[str]) -> ClusterMetadata:
    """Returns the metadata of the topics. Raises UserError if one is missing."""
    async with kafka_timeout():
        cluster = await client.fetch_all_metadata()
    if missing := sorted(set(topics) - set(cluster.topics())):
        raise UserError(f"no topic {', '.join(missing)} at {settings.kafka}; `attn topics` creates what is missing")
    return cluster


@asynccontextmanager
async def open_consumer(settings: Settings, topic: str, group: str | None = None) -> AsyncIterator[AIOKafkaConsumer]:
    """Yields a consumer of all partitions of the topic, at their beginning. It commits nothing.

    Raises UserError if Kafka is unreachable or stops answering, or if the topic is missing.
    """
    with kafka_errors(settings):
        reader = AIOKafkaConsumer(
            **client_arguments(settings), group_id=group, enable_auto_commit=False,
            max_partition_fetch_bytes=MAX_DEAD_LETTER_BYTES, request_timeout_ms=_REQUEST_MS,
            isolation_level="read_committed",
        )
        try:
            async with _started(reader):
                # The client's own `partitions_for_topic` uses cached metadata, which may lack this topic.
                cluster = await _require(settings, reader._client, [topic])
                reader.assign([TopicPartition(topic, number) for number in cluster.partitions_for_topic(topic) or ()])
                async with kafka_timeout():
                    await reader.seek_to_beginning()
                yield reader
        except KafkaConnectionError:
            raise
        except KafkaError as error:
            raise UserError(await diagnose(settings, [topic]) or _error_text(settings, error)) from None


async def read_to_end(reader: AIOKafkaConsumer) -> AsyncIterator[ConsumerRecord]:
    """Yields the records from the reader's position to the end offsets at the time of the call."""
    async with kafka_timeout():
        ends = await reader.end_offsets(reader.assignment())
        unfinished = {part for part, end in ends.items() if await reader.position(part) < end}
    while unfinished:
        async with kafka_timeout():
            while not (batches := await reader.getmany(*unfinished, timeout_ms=500)):
                unfinished = {part for part in unfinished if await reader.position(part) < ends[part]}
                if not unfinished:
                    return
        for part, records in batches.items():
            for record in records:
                if record.offset < ends[part]:
                    yield record
        unfinished = {part for part in unfinished if await reader.position(part) < ends[part]}
