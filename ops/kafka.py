"""What the tools need of Kafka: a producer with bounded sends, a topic's records up to its end, clear errors."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError, MessageSizeTooLargeError

from ops.errors import UserError
from schemas.settings import Settings
from streams.topics import MAX_DEAD_LETTER_BYTES, MAX_SOURCE_BYTES

__all__ = ["Sender", "consumer", "kafka_errors", "records", "sender"]

# Enough that batches are full, few enough that an error is told soon and memory stays small.
_IN_FLIGHT = 2000
_PATIENCE = 60.0  # seconds without an acknowledgement
_CLOSE = 5.0  # seconds; a client waits for what it could not send


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


class Sender:
    """Sends with a bounded number of records on their way. Errors of a send are raised by a later one or `finish`."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer
        self._waiting: deque[asyncio.Future[object]] = deque()
        self.sent = 0

    async def send(
        self, topic: str, value: bytes | None, key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (), partition: int | None = None,
    ) -> None:
        try:
            async with self._patience():
                self._waiting.append(await self._producer.send(
                    topic, value=value, key=key, headers=list(headers), partition=partition))
        except MessageSizeTooLargeError:
            size = len(value or b"")
            raise UserError(f"a record of {size} bytes is larger than Kafka takes ({MAX_SOURCE_BYTES})") from None
        self.sent += 1
        if len(self._waiting) > _IN_FLIGHT:
            async with self._patience():
                await self._waiting.popleft()

    async def finish(self) -> int:
        """Wait until all of it is acknowledged: how many records that were."""
        while self._waiting:
            async with self._patience():
                await self._waiting.popleft()
        return self.sent

    @asynccontextmanager
    async def _patience(self) -> AsyncIterator[None]:
        """The client itself tries for ever; a person at a terminal does not."""
        try:
            async with asyncio.timeout(_PATIENCE):
                yield
        except TimeoutError:
            known = self.sent - len(self._waiting)
            raise UserError(f"Kafka has not answered for {_PATIENCE:.0f} s; {known} records are sent") from None


@asynccontextmanager
async def _started(client: AIOKafkaProducer | AIOKafkaConsumer) -> AsyncIterator[None]:
    """Their own `async with` leaves a client open that could not start."""
    try:
        await client.start()
        yield
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE):
                await client.stop()


@asynccontextmanager
async def sender(settings: Settings, topics: Iterable[str]) -> AsyncIterator[Sender]:
    """A sender to these topics. UserError: Kafka is not there, or a topic is not (it is never created by accident)."""
    with kafka_errors(settings):
        producer = AIOKafkaProducer(
            bootstrap_servers=settings.kafka, acks="all", enable_idempotence=True, linger_ms=5,
            compression_type="gzip",  # a seventh of the size for 10 us an event; noida-db holds all in memory
            max_request_size=MAX_SOURCE_BYTES,
        )
        async with _started(producer):
            _require(settings, (await producer.client.fetch_all_metadata()).topics(), topics)
            yield Sender(producer)


def _require(settings: Settings, there: Iterable[str], topics: Iterable[str]) -> None:
    if missing := sorted(set(topics) - set(there)):
        raise UserError(f"no topic {', '.join(missing)} at {settings.kafka}; `attn topics` creates what is missing")


@asynccontextmanager
async def consumer(settings: Settings, topic: str, group: str | None = None) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer with all partitions of the topic assigned, at their beginning. Nothing is committed by itself."""
    with kafka_errors(settings):
        reader = AIOKafkaConsumer(
            bootstrap_servers=settings.kafka, group_id=group, enable_auto_commit=False,
            max_partition_fetch_bytes=MAX_DEAD_LETTER_BYTES,
        )
        async with _started(reader):
            _require(settings, await reader.topics(), [topic])
            reader.assign([TopicPartition(topic, number) for number in reader.partitions_for_topic(topic) or ()])
            await reader.seek_to_beginning()
            yield reader


async def records(reader: AIOKafkaConsumer) -> AsyncIterator[ConsumerRecord]:
    """Each record from the reader's position to what is the end now."""
    ends = await reader.end_offsets(reader.assignment())
    waiting = {place for place, end in ends.items() if await reader.position(place) < end}
    while waiting:
        for place, batch in (await reader.getmany(*waiting, timeout_ms=500)).items():
            for record in batch:
                if record.offset < ends[place]:
                    yield record
        waiting = {place for place in waiting if await reader.position(place) < ends[place]}
