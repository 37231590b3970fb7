"""Agent `ingest`: source records in, packs on attn.log out, rejects to dead-letters; then the offsets are committed.

At least once: a record that is read again after a crash gives the same events, which the fold knows by source and id.
So all that matters here is that nothing is passed over: an offset is committed only when all before it is durable.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from contextlib import aclosing

import faust
from aiokafka import AIOKafkaProducer, ConsumerRecord
from faust.types import TP

from schemas.dead_letters import DeadLetter
from schemas.settings import Settings
from schemas.topics import LOG, SOURCE_TYPES, record_size
from streams.consumer.chunks import ByteSemaphore, RawSchema, RecordChunk, Records
from streams.consumer.gap_filler import GapFiller
from streams.core.normalise import EventLimits, Rejected, normalise
from streams.core.packs import Packer
from streams.ingest.circuit_breaker import BreakerPolicy
from streams.ingest.topic_breakers import TopicBreakers, listen_for_resume_markers
from streams.kafka.dead_letters import send_dead_letters
from streams.kafka.producer import wait_acknowledged
from streams.kafka.records.batches import Unreadable
from streams.runtime import metrics
from streams.runtime.clock import now_us
from streams.runtime.task_supervisor import TaskSupervisor

__all__ = ["Ingestor", "record_time", "register_agent"]

log = logging.getLogger(__name__)

# Events that come within this time share packs: a fold's cost is mostly per pack, and people don't see 3 ms.
_LINGER = 0.003
_MAX_EVENTS = 1000  # events: don't wait for more, and write before there are more
_MAX_REJECT_BYTES = 16 << 20  # of rejected records
_MAX_QUEUE_BYTES = 32 << 20
# A stopped topic that goes on is read again in pieces, so that the others have their turns.
_REREAD_OFFSETS = 5000  # offsets
_MAX_CLOCK_SKEW = 60.0  # seconds
_PROBE_INTERVAL = 1.0  # seconds between two looks at what is stopped


def register_agent(app: faust.App, ingestor: Ingestor, supervisor: TaskSupervisor) -> None:
    topic = app.topic(*SOURCE_TYPES, schema=RawSchema(), acks=False)

    @app.agent(topic, name="ingest")  # type: ignore[untyped-decorator]
    async def ingest(stream: faust.Stream[Records]) -> None:
        with supervisor.guard("agent ingest"):
            async for event in stream.noack().events():
                await ingestor.enqueue(event.message.tp, event.value)


class Ingestor:
    """The chunks that wait, and the loop that works on them."""

    def __init__(self, settings: Settings, out: AIOKafkaProducer, gaps: GapFiller) -> None:
        self.committable_offsets: dict[TP, int] = {}  # what may be committed
        self.processed_at: dict[TP, float] = {}  # the broker's time of the last record before that, seconds
        self.breakers = TopicBreakers(BreakerPolicy.of(settings))
        self._settings = settings
        self._gaps = gaps
        self._producer = out
        self._limits = EventLimits(settings.max_title, settings.max_body, settings.max_payload, settings.max_event)
        self._packer = Packer(settings.log_partitions)
        self._rejects: list[DeadLetter] = []
        self._reject_bytes = 0  # bytes of them
        self._unflushed: dict[TP, tuple[int, float]] = {}  # done and worked, once packs and rejects at hand are written
        self._queue: asyncio.Queue[RecordChunk] = asyncio.Queue()
        self._queue_bytes = ByteSemaphore(_MAX_QUEUE_BYTES)
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    async def enqueue(self, tp: TP, records: Records) -> None:
        chunk = RecordChunk.from_records(tp, records)
        await self._queue_bytes.acquire(chunk.size)
        if self._closed:  # `close` made the room; whoever owns the partition next reads it
            self._queue_bytes.release(chunk.size)
        else:
            self._queue.put_nowait(chunk)

    def reread(self, tp: TP, upto: int) -> None:
        if not self._closed:
            self._queue.put_nowait(RecordChunk(tp, [], upto, 0))

    def idle(self, tp: TP) -> bool:
        return self._queue.empty() and self._idle.is_set() and not self.breakers.is_open(tp.topic)

    @property
    def paused(self) -> Collection[TP]:
        """Partitions of topics that are left alone."""
        return [tp for tp in self._gaps.next_offsets if self.breakers.is_open(tp.topic)]

    def start(self, starts: Mapping[TP, int]) -> None:
        self._closed = False
        for tp, start in starts.items():
            self._gaps.start_at(tp, start)
            self.committable_offsets[tp] = start

    async def close(self) -> None:
        """Returns when nothing is being written, nor will be before `start`. What waits is left to whoever owns the
        partition next."""
        self._closed = True
        while not self._queue.empty():
            self._queue_bytes.release(self._queue.get_nowait().size)
        await self._idle.wait()

    def release(self) -> None:
        self.committable_offsets.clear()
        self.processed_at.clear()
        self.breakers.deferred.clear()

    async def listen_for_resume_markers(self) -> None:
        """Hears operators, while a topic is left alone."""
        await listen_for_resume_markers(self._settings, self.breakers)

    async def run(self) -> None:
        while True:
            first = await self._next_chunk()
            if self._closed:
                if first is not None:
                    self._queue_bytes.release(first.size)
                continue
            self._idle.clear()
            await self._probe_topics()
            if first is not None:
                if len(first.records) < _MAX_EVENTS and self._queue.empty():
                    await asyncio.sleep(_LINGER)
                await self._process_chunk(first)
                while (self._packer.events < _MAX_EVENTS and self._reject_bytes < _MAX_REJECT_BYTES
                       and not self._queue.empty()):
                    await self._process_chunk(self._queue.get_nowait())
            await self._flush()
            self._idle.set()

    async def _next_chunk(self) -> RecordChunk | None:
        """None: it is time to look at what is left alone."""
        if not self.breakers.deferred:
            return await self._queue.get()
        try:
            async with asyncio.timeout(_PROBE_INTERVAL):
                return await self._queue.get()
        except TimeoutError:
            return None

    async def _process_chunk(self, chunk: RecordChunk) -> None:
        if chunk.tp in self._gaps.next_offsets:  # else it was revoked meanwhile
            if self.breakers.is_open(chunk.tp.topic):
                self.breakers.defer(chunk.tp, chunk.end)
            else:
                await self._deliver(chunk)
        self._queue_bytes.release(chunk.size)

    async def _deliver(self, chunk: RecordChunk) -> None:
        tp, at = chunk.tp, self.processed_at.get(chunk.tp, 0.0)
        async with aclosing(self._gaps.deliver(chunk)) as runs:
            async for run in runs:
                if (last := self._process_run(run)) is not None:
                    self._defer_rest(last, chunk)
                    return
                at = record_time(run[-1], at)
                self._unflushed[tp] = run[-1].offset + 1, at
                if self._packer.events >= _MAX_EVENTS or self._reject_bytes > _MAX_REJECT_BYTES:
                    await self._flush()
                await asyncio.sleep(0)  # the fold shares this loop
                if self._closed:
                    break  # what was missing may be hours of records
        self._unflushed[tp] = self._gaps.next_offsets[tp], at

    def _defer_rest(self, record: ConsumerRecord[bytes, bytes], chunk: RecordChunk) -> None:
        self._gaps.start_at(chunk.tp, record.offset + 1)
        self._unflushed[chunk.tp] = record.offset + 1, record_time(record, self.processed_at.get(chunk.tp, 0.0))
        self.breakers.defer(chunk.tp, chunk.end)

    async def _probe_topics(self) -> None:
        """A few records of each stopped topic whose time has come; and all that was left alone of those that go on."""
        for topic in list(self.breakers.topics_to_probe()):
            partitions = [
                tp for tp, end in self.breakers.deferred.items()
                if tp.topic == topic and self._gaps.next_offsets.get(tp, end) < end
            ]
            if not partitions:
                continue
            most = self.breakers.start_probe(topic)
            for tp in partitions:
                upto = min(self._gaps.next_offsets[tp] + -(-most // len(partitions)), self.breakers.deferred[tp])
                if not self.breakers.is_open(topic):  # it may be judged before all were looked at
                    await self._deliver(RecordChunk(tp, [], upto, 0))
            self.breakers.evaluate_probe(topic)
        for tp, end in self.breakers.pop_resumed().items():
            start = self._gaps.next_offsets.get(tp, end)
            for piece in range(start, end, _REREAD_OFFSETS):
                self._queue.put_nowait(RecordChunk(tp, [], min(piece + _REREAD_OFFSETS, end), 0))

    def _process_run(self, run: Records) -> ConsumerRecord[bytes, bytes] | None:
        """The record after which the topic is not read any further, if there is one."""
        before, count, last = len(self._rejects), 0, None
        for count, record in enumerate(run, start=1):  # noqa: B007 - it is used behind
            if self._process_record(record):
                last = record
                break
        metrics.EVENTS.labels(run[0].topic).inc(count - (len(self._rejects) - before))
        return last

    def _process_record(self, record: ConsumerRecord[bytes, bytes]) -> bool:
        """True: the topic is not read any further."""
        if isinstance(record, Unreadable):
            return self._process_unreadable(record)
        reason = None
        try:
            self._packer.add(normalise(
                record.topic, record.value, record.headers, self._limits, metrics.LINKS_DROPPED.inc))
        except Rejected as rejected:
            reason = str(rejected)
            self._reject(record, reason, rejected.cause)
        except Exception as fault:
            # Ours, not the producer's. Stopping would stop at it again after every start; so it is kept and told.
            where = f"{record.topic}/{record.partition} offset {record.offset}"
            log.exception("%s: normalise failed; the record goes to dead-letters", where)
            reason = f"attn failed to read it: {type(fault).__name__}: {fault}"
            self._reject(record, reason, "fault")
        return self.breakers.record(record.topic, reason)

    def _reject(self, record: ConsumerRecord[bytes, bytes], reason: str, cause: str) -> None:
        self._add_reject(DeadLetter.of_record(record, reason, cause, now_us()))

    def _process_unreadable(self, record: Unreadable) -> bool:
        one = record.first == record.offset
        where = f"offset {record.offset}" if one else f"offsets {record.first} to {record.offset}"
        reason = f"unreadable at {where}: {record.reason}"
        log.error("%s/%d: %s; its bytes go to dead-letters", record.topic, record.partition, reason)
        self._add_reject(DeadLetter(
            topic=record.topic, partition=record.partition, offset=record.first, reason=reason, at=now_us(),
            value=record.value, size=record.size, cause="unreadable",
        ))
        return self.breakers.record(record.topic, reason)

    def _add_reject(self, letter: DeadLetter) -> None:
        self._rejects.append(letter)
        self._reject_bytes += record_size(letter.key, letter.value, letter.headers)

    async def _flush(self) -> None:
        rejects, self._rejects, self._reject_bytes = self._rejects, [], 0
        handled, self._unflushed = self._unflushed, {}
        if rejects:
            await send_dead_letters(self._producer, rejects)
        sent = []
        for partition, events, value in self._packer.drain(now_us()):
            sent.append(await self._producer.send(LOG, value, partition=partition))
            metrics.PACK_EVENTS.observe(events)
        if sent:
            await wait_acknowledged(sent)
        self.committable_offsets.update((tp, offset) for tp, (offset, _) in handled.items())
        self.processed_at.update((tp, at) for tp, (_, at) in handled.items() if at)


def record_time(record: ConsumerRecord[bytes, bytes], before: float) -> float:
    """The time of a record in seconds; `before` where its producer gave a time that can't be (CreateTime topics). A
    time in the future would hide a lag, one before 1970 would be a lag of decades."""
    at = record.timestamp / 1000
    return at if 0 < at < time.time() + _MAX_CLOCK_SKEW else before
