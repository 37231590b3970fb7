"""Faust agent `ingest`: reads source topics, appends packs to attn.log, sends rejected records to dead-letters.

Delivery is at least once. A record that is read again after a crash gives the same events, which the fold recognises by
source and id. An offset is committed only when the results of all records before it are durable.
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
from streams.core.packs import Packer, PackRecord
from streams.core.sealing import Sealer
from streams.ingest.circuit_breaker import BreakerPolicy
from streams.ingest.rejects import describe_fault, to_dead_letter, to_unreadable_letter
from streams.ingest.topic_breakers import TopicBreakers, listen_for_resume_markers
from streams.ingest.traces import ingest_traces
from streams.kafka.dead_letters import send_dead_letters
from streams.kafka.ordered_writes import OrderedWrites
from streams.kafka.producer import wait_acknowledged
from streams.kafka.records.batches import Unreadable
from streams.runtime import metrics
from streams.runtime.clock import now_us
from streams.runtime.keys import seal_keys
from streams.runtime.task_supervisor import TaskSupervisor

__all__ = ["Ingestor", "record_time", "register_agent"]

log = logging.getLogger(__name__)

# Writes under way at once. Events that arrive meanwhile share the next packs: their size follows from the broker's
# speed, and the first event after a pause waits for nothing (decision 0070).
_MAX_WRITES = 2
# Events and bytes of rejected records that are written at once.
_MAX_EVENTS = 1000
_MAX_REJECT_BYTES = 16 << 20
_MAX_QUEUE_BYTES = 32 << 20
# Deferred records of a topic are read again in chunks of so many offsets, so that other topics are not blocked.
_REREAD_OFFSETS = 5000
_MAX_CLOCK_SKEW = 60.0  # seconds
_NO_PARTITION = TP("", -1)
_PROBE_INTERVAL = 1.0  # seconds between two checks whether a probe is due


def register_agent(app: faust.App, ingestor: Ingestor, supervisor: TaskSupervisor) -> None:
    """Defines the app's agent `ingest`."""
    topic = app.topic(*SOURCE_TYPES, schema=RawSchema(), acks=False)

    @app.agent(topic, name="ingest")  # type: ignore[untyped-decorator]
    async def ingest(stream: faust.Stream[Records]) -> None:
        with supervisor.guard("agent ingest"):
            async for event in stream.noack().events():
                await ingestor.enqueue(event.message.tp, event.value)


class Ingestor:
    """Queue of source records, and the loop that processes them.

    The methods are those of `MonitoredConsumer` (streams.consumer.watchdog), and `start`, `close`, `release` around a
    rebalance.
    """

    def __init__(self, settings: Settings, producer: AIOKafkaProducer, gaps: GapFiller) -> None:
        self.committable_offsets: dict[TP, int] = {}
        self.processed_at: dict[TP, float] = {}
        self.breakers = TopicBreakers(BreakerPolicy.of(settings))
        self._settings = settings
        self._gaps = gaps
        self._producer = producer
        self._limits = EventLimits(settings.max_title, settings.max_body, settings.max_payload, settings.max_event)
        keys = seal_keys(settings)
        self._sealer = Sealer(keys) if keys else None
        self._packer = Packer(settings.log_partitions)
        self._traces = ingest_traces()
        self._rejects: list[DeadLetter] = []
        self._reject_bytes = 0
        # Committable offsets and times that become valid once the current packs and rejects are written.
        self._unflushed: dict[TP, tuple[int, float]] = {}
        self._unflushed_bytes = 0  # of their chunks
        # A failed write wakes `run`, which raises its error.
        self._writes = OrderedWrites(_MAX_WRITES, lambda: self._queue.put_nowait(RecordChunk(_NO_PARTITION, [], 0, 0)))
        self._queue: asyncio.Queue[RecordChunk] = asyncio.Queue()
        self._queue_bytes = ByteSemaphore(_MAX_QUEUE_BYTES)
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    async def enqueue(self, tp: TP, records: Records) -> None:
        """Queues records. Waits while more than 32 MiB are queued."""
        chunk = RecordChunk.from_records(tp, records)
        await self._queue_bytes.acquire(chunk.size)
        if self._closed:  # `close` freed the bytes; the partition's next owner reads the records
            self._queue_bytes.release(chunk.size)
        else:
            self._queue.put_nowait(chunk)

    def reread(self, tp: TP, end: int) -> None:
        if not self._closed:
            self._queue.put_nowait(RecordChunk(tp, [], end, 0))

    def idle(self, tp: TP) -> bool:
        busy = not self._idle.is_set() or self._writes.busy
        return self._queue.empty() and not busy and not self.breakers.is_open(tp.topic)

    @property
    def paused(self) -> Collection[TP]:
        """Partitions of topics whose circuit is open."""
        return [tp for tp in self._gaps.next_offsets if self.breakers.is_open(tp.topic)]

    def start(self, offsets: Mapping[TP, int]) -> None:
        """Starts to process the assigned partitions at the given offsets."""
        self._closed = False
        for tp, offset in offsets.items():
            self._gaps.start_at(tp, offset)
            self.committable_offsets[tp] = offset

    async def close(self) -> None:
        """Returns when the writes under way are finished; no other begins before `start`. Drops queued records: the
        partitions' next owner reads them again."""
        self._closed = True
        while not self._queue.empty():
            self._queue_bytes.release(self._queue.get_nowait().size)
        await self._idle.wait()
        await self._writes.wait_finished()

    def release(self) -> None:
        """Removes all partitions, after `close`."""
        self.committable_offsets.clear()
        self.processed_at.clear()
        self.breakers.deferred.clear()

    async def listen_for_resume_markers(self) -> None:
        """Closes open circuits when an operator asks for it; does not return."""
        await listen_for_resume_markers(self._settings, self.breakers)

    async def run(self) -> None:
        """Processes the queue; does not return. Raises the error of the first write that failed."""
        try:
            while True:
                first = await self._next_chunk()
                self._writes.raise_error()
                if self._closed:
                    if first is not None:
                        self._queue_bytes.release(first.size)
                    continue
                self._idle.clear()
                await self._probe_topics()
                if first is not None:
                    await self._process_chunk(first)
                    await self._process_queued()
                    if self._writes.full:
                        await self._writes.wait_for_room()
                        await self._process_queued()  # they share the packs
                await self._flush()
                self._idle.set()
        finally:
            self._writes.cancel()

    async def _process_queued(self) -> None:
        """Processes what is queued, until the packs or rejects are large enough for a write."""
        while (self._packer.events < _MAX_EVENTS and self._reject_bytes < _MAX_REJECT_BYTES
               and not self._queue.empty()):
            await self._process_chunk(self._queue.get_nowait())

    async def _next_chunk(self) -> RecordChunk | None:
        """Returns the next chunk, or None if it is time to check for due probes."""
        if not self.breakers.deferred:
            return await self._queue.get()
        try:
            async with asyncio.timeout(_PROBE_INTERVAL):
                return await self._queue.get()
        except TimeoutError:
            return None

    async def _process_chunk(self, chunk: RecordChunk) -> None:
        if chunk.tp in self._gaps.next_offsets:  # otherwise it was revoked while the chunk was queued
            if self.breakers.is_open(chunk.tp.topic):
                self.breakers.defer(chunk.tp, chunk.end)
            else:
                await self._deliver(chunk)
        self._unflushed_bytes += chunk.size

    async def _deliver(self, chunk: RecordChunk) -> None:
        """Processes the chunk's new records, after the records missing before it, until the topic's circuit opens."""
        tp, processed_at = chunk.tp, self.processed_at.get(chunk.tp, 0.0)
        async with aclosing(self._gaps.deliver(chunk)) as runs:
            async for run in runs:
                if (last := self._process_run(run)) is not None:
                    self._defer_rest(last, chunk)
                    return
                processed_at = record_time(run[-1], processed_at)
                self._unflushed[tp] = run[-1].offset + 1, processed_at
                if self._packer.events >= _MAX_EVENTS or self._reject_bytes > _MAX_REJECT_BYTES:
                    await self._flush()
                await asyncio.sleep(0)  # the fold shares this event loop
                if self._closed:
                    break  # a gap may be hours of records
        self._unflushed[tp] = self._gaps.next_offsets[tp], processed_at

    def _defer_rest(self, last: ConsumerRecord[bytes, bytes], chunk: RecordChunk) -> None:
        """Defers the chunk's records after `last`."""
        self._gaps.start_at(chunk.tp, last.offset + 1)
        self._unflushed[chunk.tp] = last.offset + 1, record_time(last, self.processed_at.get(chunk.tp, 0.0))
        self.breakers.defer(chunk.tp, chunk.end)

    async def _probe_topics(self) -> None:
        """Reads a few records of each topic whose probe is due, and queues the deferred records of closed circuits."""
        for topic in list(self.breakers.topics_to_probe()):
            partitions = [
                tp for tp, end in self.breakers.deferred.items()
                if tp.topic == topic and self._gaps.next_offsets.get(tp, end) < end
            ]
            if not partitions:
                continue
            per_partition = -(-self.breakers.start_probe(topic) // len(partitions))  # rounded up
            for tp in partitions:
                end = min(self._gaps.next_offsets[tp] + per_partition, self.breakers.deferred[tp])
                if not self.breakers.is_open(topic):  # the probe may fail before all partitions were read
                    await self._deliver(RecordChunk(tp, [], end, 0))
            self.breakers.evaluate_probe(topic)
        for tp, end in self.breakers.pop_resumed().items():
            for start in range(self._gaps.next_offsets.get(tp, end), end, _REREAD_OFFSETS):
                self._queue.put_nowait(RecordChunk(tp, [], min(start + _REREAD_OFFSETS, end), 0))

    def _process_run(self, run: Records) -> ConsumerRecord[bytes, bytes] | None:
        """Processes records in order. Returns the record that opened the topic's circuit, or None."""
        rejects_before, count, last = len(self._rejects), 0, None
        for count, record in enumerate(run, start=1):  # noqa: B007 - used after the loop
            if self._process_record(record):
                last = record
                break
        metrics.EVENTS.labels(run[0].topic).inc(count - (len(self._rejects) - rejects_before))
        return last

    def _process_record(self, record: ConsumerRecord[bytes, bytes]) -> bool:
        """Adds the record's event to the packs, or the record to the rejects. Returns True if the topic's circuit is
        open after it."""
        if isinstance(record, Unreadable):
            return self._process_unreadable(record)
        reason = None
        try:
            event = normalise(
                record.topic, record.value, record.headers, self._limits, metrics.LINKS_DROPPED.inc, self._sealer)
            self._packer.add(event, None if self._traces is None else self._traces.begin(record, event))
        except Rejected as rejected:
            reason = self._reject(record, str(rejected), rejected.cause)
        except Exception as fault:
            # A bug of attn, not of the producer. The worker must not stop: it would stop again after every restart.
            where = f"{record.topic}/{record.partition} offset {record.offset}"
            log.error("%s: normalise failed; the record goes to dead-letters\n%s", where,
                      describe_fault(fault, record.value))
            reason = self._reject(record, f"attn failed to read it: {type(fault).__name__}: {fault}", "fault")
        return self.breakers.record(record.topic, reason)

    def _reject(self, record: ConsumerRecord[bytes, bytes], reason: str, cause: str) -> str:
        """Adds a record to the rejects; returns the reason without reply tokens, for the log."""
        letter = to_dead_letter(record, reason, cause, now_us())
        self._add_reject(letter)
        return letter.reason

    def _process_unreadable(self, record: Unreadable) -> bool:
        single = record.first == record.offset
        where = f"offset {record.offset}" if single else f"offsets {record.first} to {record.offset}"
        reason = f"unreadable at {where}: {record.reason}"
        log.error("%s/%d: %s; its bytes go to dead-letters", record.topic, record.partition, reason)
        self._add_reject(to_unreadable_letter(record, reason, now_us()))
        return self.breakers.record(record.topic, reason)

    def _observe_delay(self, unflushed: Mapping[TP, tuple[int, float]], exemplar: dict[str, str] | None) -> None:
        """Measures how old the newest record of each partition is, now that its event is in the log."""
        now = time.time()
        for _, seconds in unflushed.values():
            if seconds:
                metrics.INGEST_SECONDS.observe(max(0.0, now - seconds), exemplar)

    def _add_reject(self, letter: DeadLetter) -> None:
        self._rejects.append(letter)
        self._reject_bytes += record_size(letter.key, letter.value, letter.headers)

    async def _flush(self) -> None:
        """Starts to write rejects and packs, as soon as fewer than _MAX_WRITES writes are under way. The committable
        offsets move when this write and all earlier ones are acknowledged."""
        await self._writes.wait_for_room()
        rejects, self._rejects, self._reject_bytes = self._rejects, [], 0
        unflushed, self._unflushed = self._unflushed, {}
        size, self._unflushed_bytes = self._unflushed_bytes, 0
        packs = self._packer.drain(now_us())
        end_spans = None if self._traces is None else self._traces.drain()

        def complete() -> None:
            self._queue_bytes.release(size)
            if packs:
                self._observe_delay(unflushed, None if end_spans is None else end_spans())
            self.committable_offsets.update((tp, offset) for tp, (offset, _) in unflushed.items())
            self.processed_at.update((tp, seconds) for tp, (_, seconds) in unflushed.items() if seconds)

        await self._writes.start(self._write(rejects, packs), complete)

    async def _write(self, rejects: list[DeadLetter], packs: list[PackRecord]) -> None:
        """Returns when the records are acknowledged."""
        if rejects:
            await send_dead_letters(self._producer, rejects)
        sent = []
        for pack in packs:
            sent.append(await self._producer.send(LOG, pack.value, partition=pack.partition, headers=pack.headers))
            metrics.PACK_EVENTS.observe(pack.entries)
        if sent:
            await wait_acknowledged(sent)


def record_time(record: ConsumerRecord[bytes, bytes], default: float) -> float:
    """Returns the timestamp of a record in seconds, or `default` if its producer set an impossible one (CreateTime
    topics). A time in the future would hide a lag; a time before 1970 would look like a lag of decades."""
    seconds = record.timestamp / 1000
    return seconds if 0 < seconds < time.time() + _MAX_CLOCK_SKEW else default
