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
from schemas.topics import LOG, SOURCE_TYPES
from streams.consumer.chunks import ByteSemaphore, RawSchema, RecordChunk, Records
from streams.consumer.gap_filler import GapFiller
from streams.core.normalise import Limits, Rejected, normalise
from streams.core.packs import Packer
from streams.ingest.circuit_breaker import BreakerPolicy
from streams.ingest.topic_breakers import TopicBreakers, listen_for_resume_markers
from streams.kafka.dead_letters import send_dead_letters
from streams.kafka.producer import record_size, wait_acknowledged
from streams.kafka.records.batches import Unreadable
from streams.runtime import metrics
from streams.runtime.task_supervisor import TaskSupervisor

__all__ = ["Ingestor", "record_time", "register_agent"]

log = logging.getLogger(__name__)

# Events that come within this time share packs: a fold's cost is mostly per pack, and people don't see 3 ms.
_LINGER = 0.003
_ENOUGH = 1000  # events: don't wait for more, and write before there are more
_ENOUGH_BYTES = 16 << 20  # of rejected records
_WAITING_BYTES = 32 << 20
# A stopped topic that goes on is read again in pieces, so that the others have their turns.
_PIECE = 5000  # offsets
_CLOCKS_DIFFER = 60.0  # seconds
_LOOK = 1.0  # seconds between two looks at what is stopped


def register_agent(app: faust.App, intake: Ingestor, alarm: TaskSupervisor) -> None:
    topic = app.topic(*SOURCE_TYPES, schema=RawSchema(), acks=False)

    @app.agent(topic, name="ingest")  # type: ignore[untyped-decorator]
    async def ingest(stream: faust.Stream[Records]) -> None:
        with alarm.guard("agent ingest"):
            async for event in stream.noack().events():
                await intake.put(event.message.tp, event.value)


class Ingestor:
    """The chunks that wait, and the loop that works on them."""

    def __init__(self, settings: Settings, out: AIOKafkaProducer, continuity: GapFiller) -> None:
        self.done: dict[TP, int] = {}  # what may be committed
        self.worked: dict[TP, float] = {}  # the broker's time of the last record before that, seconds
        self.gate = TopicBreakers(BreakerPolicy.of(settings))
        self._settings = settings
        self._continuity = continuity
        self._out = out
        self._limits = Limits(settings.max_title, settings.max_body, settings.max_payload, settings.max_event)
        self._packer = Packer(settings.log_partitions)
        self._rejects: list[DeadLetter] = []
        self._rejected = 0  # bytes of them
        self._handled: dict[TP, tuple[int, float]] = {}  # done and worked, once packs and rejects at hand are written
        self._waiting: asyncio.Queue[RecordChunk] = asyncio.Queue()
        self._budget = ByteSemaphore(_WAITING_BYTES)
        self._resting = asyncio.Event()
        self._resting.set()
        self._closed = False

    async def put(self, tp: TP, records: Records) -> None:
        portion = RecordChunk.of(tp, records)
        await self._budget.take(portion.size)
        if self._closed:  # `close` made the room; whoever owns the partition next reads it
            self._budget.give(portion.size)
        else:
            self._waiting.put_nowait(portion)

    def read_again(self, tp: TP, upto: int) -> None:
        if not self._closed:
            self._waiting.put_nowait(RecordChunk(tp, [], upto, 0))

    def idle(self, tp: TP) -> bool:
        return self._waiting.empty() and self._resting.is_set() and not self.gate.holds(tp.topic)

    @property
    def held(self) -> Collection[TP]:
        """Partitions of topics that are left alone."""
        return [tp for tp in self._continuity.next if self.gate.holds(tp.topic)]

    def start(self, starts: Mapping[TP, int]) -> None:
        self._closed = False
        for tp, start in starts.items():
            self._continuity.own(tp, start)
            self.done[tp] = start

    async def close(self) -> None:
        """Returns when nothing is being written, nor will be before `start`. What waits is left to whoever owns the
        partition next."""
        self._closed = True
        while not self._waiting.empty():
            self._budget.give(self._waiting.get_nowait().size)
        await self._resting.wait()

    def release(self) -> None:
        self._continuity.next.clear()
        self.done.clear()
        self.worked.clear()
        self.gate.missed.clear()

    async def listen_for_resume_markers(self) -> None:
        """Hears operators, while a topic is left alone."""
        await listen_for_resume_markers(self._settings, self.gate)

    async def run(self) -> None:
        while True:
            first = await self._next()
            if self._closed:
                if first is not None:
                    self._budget.give(first.size)
                continue
            self._resting.clear()
            await self._try_again()
            if first is not None:
                if len(first.records) < _ENOUGH and self._waiting.empty():
                    await asyncio.sleep(_LINGER)
                await self._work(first)
                while self._packer.events < _ENOUGH and self._rejected < _ENOUGH_BYTES and not self._waiting.empty():
                    await self._work(self._waiting.get_nowait())
            await self._write()
            self._resting.set()

    async def _next(self) -> RecordChunk | None:
        """None: it is time to look at what is left alone."""
        if not self.gate.missed:
            return await self._waiting.get()
        try:
            async with asyncio.timeout(_LOOK):
                return await self._waiting.get()
        except TimeoutError:
            return None

    async def _work(self, portion: RecordChunk) -> None:
        if portion.tp in self._continuity.next:  # else it was revoked meanwhile
            if self.gate.holds(portion.tp.topic):
                self.gate.leave(portion.tp, portion.upto)
            else:
                await self._follow(portion)
        self._budget.give(portion.size)

    async def _follow(self, portion: RecordChunk) -> None:
        tp, at = portion.tp, self.worked.get(portion.tp, 0.0)
        async with aclosing(self._continuity.follow(portion)) as runs:
            async for run in runs:
                if (last := self._take_all(run)) is not None:
                    self._stop_behind(last, portion)
                    return
                at = record_time(run[-1], at)
                self._handled[tp] = run[-1].offset + 1, at
                if self._packer.events >= _ENOUGH or self._rejected > _ENOUGH_BYTES:
                    await self._write()
                await asyncio.sleep(0)  # the fold shares this loop
                if self._closed:
                    break  # what was missing may be hours of records
        self._handled[tp] = self._continuity.next[tp], at

    def _stop_behind(self, record: ConsumerRecord[bytes, bytes], portion: RecordChunk) -> None:
        self._continuity.own(portion.tp, record.offset + 1)
        self._handled[portion.tp] = record.offset + 1, record_time(record, self.worked.get(portion.tp, 0.0))
        self.gate.leave(portion.tp, portion.upto)

    async def _try_again(self) -> None:
        """A few records of each stopped topic whose time has come; and all that was left alone of those that go on."""
        for topic in list(self.gate.due()):
            places = [
                tp for tp, end in self.gate.missed.items()
                if tp.topic == topic and self._continuity.next.get(tp, end) < end
            ]
            if not places:
                continue
            most = self.gate.begin_try(topic)
            for tp in places:
                upto = min(self._continuity.next[tp] + -(-most // len(places)), self.gate.missed[tp])
                if not self.gate.holds(topic):  # it may be judged before all were looked at
                    await self._follow(RecordChunk(tp, [], upto, 0))
            self.gate.judge(topic)
        for tp, end in self.gate.let_go().items():
            start = self._continuity.next.get(tp, end)
            for piece in range(start, end, _PIECE):
                self._waiting.put_nowait(RecordChunk(tp, [], min(piece + _PIECE, end), 0))

    def _take_all(self, run: Records) -> ConsumerRecord[bytes, bytes] | None:
        """The record after which the topic is not read any further, if there is one."""
        before, count, last = len(self._rejects), 0, None
        for count, record in enumerate(run, start=1):  # noqa: B007 - it is used behind
            if self._take(record):
                last = record
                break
        metrics.EVENTS.labels(run[0].topic).inc(count - (len(self._rejects) - before))
        return last

    def _take(self, record: ConsumerRecord[bytes, bytes]) -> bool:
        """True: the topic is not read any further."""
        if isinstance(record, Unreadable):
            return self._take_unreadable(record)
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
        return self.gate.took(record.topic, reason)

    def _reject(self, record: ConsumerRecord[bytes, bytes], reason: str, cause: str) -> None:
        self._keep(DeadLetter(
            topic=record.topic, partition=record.partition, offset=record.offset, reason=reason, at=_now(),
            key=record.key, value=record.value, headers=[(name, raw or b"") for name, raw in record.headers],
            cause=cause,
        ))

    def _take_unreadable(self, record: Unreadable) -> bool:
        one = record.first == record.offset
        where = f"offset {record.offset}" if one else f"offsets {record.first} to {record.offset}"
        reason = f"unreadable at {where}: {record.reason}"
        log.error("%s/%d: %s; its bytes go to dead-letters", record.topic, record.partition, reason)
        self._keep(DeadLetter(
            topic=record.topic, partition=record.partition, offset=record.first, reason=reason, at=_now(),
            value=record.value, size=record.size, cause="unreadable",
        ))
        return self.gate.took(record.topic, reason)

    def _keep(self, letter: DeadLetter) -> None:
        self._rejects.append(letter)
        self._rejected += record_size(letter.key, letter.value, letter.headers)

    async def _write(self) -> None:
        rejects, self._rejects, self._rejected = self._rejects, [], 0
        handled, self._handled = self._handled, {}
        if rejects:
            await send_dead_letters(self._out, rejects)
        sent = []
        for partition, events, value in self._packer.take(_now()):
            sent.append(await self._out.send(LOG, value, partition=partition))
            metrics.PACK_EVENTS.observe(events)
        if sent:
            await wait_acknowledged(sent)
        self.done.update((tp, offset) for tp, (offset, _) in handled.items())
        self.worked.update((tp, at) for tp, (_, at) in handled.items() if at)


def record_time(record: ConsumerRecord[bytes, bytes], before: float) -> float:
    """The time of a record in seconds; `before` where its producer gave a time that can't be (CreateTime topics). A
    time in the future would hide a lag, one before 1970 would be a lag of decades."""
    at = record.timestamp / 1000
    return at if 0 < at < time.time() + _CLOCKS_DIFFER else before


def _now() -> int:
    return time.time_ns() // 1000
