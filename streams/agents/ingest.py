"""Agent `ingest`: source records in, packs on attn.log out, rejects to dead-letters; then the offsets are committed.

At least once: a record that is read again after a crash gives the same events, which the fold knows by source and id.
So all that matters here is that nothing is passed over: an offset is committed only when all before it is durable.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

import faust
from aiokafka import AIOKafkaProducer, ConsumerRecord
from faust.types import TP

from schemas.deadletters import DeadLetter
from schemas.settings import Settings
from schemas.topics import LOG, SOURCE_TYPES
from streams import metrics
from streams.alarm import Alarm
from streams.chunks import Budget, Portion, Records, Whole
from streams.continuity import Continuity
from streams.core.normalise import Limits, Rejected, normalise
from streams.kafka import acknowledged, bury
from streams.packs import Packer

__all__ = ["Intake", "agent"]

log = logging.getLogger(__name__)

# Events that come within this time share packs: a fold's cost is mostly per pack, and people don't see 3 ms.
_LINGER = 0.003
_ENOUGH = 1000  # events: don't wait for more, and write before there are more
_WAITING_BYTES = 32 << 20

def agent(app: faust.App, intake: Intake, alarm: Alarm) -> None:
    topic = app.topic(*SOURCE_TYPES, schema=Whole(), acks=False)

    @app.agent(topic, name="ingest")
    async def ingest(stream: faust.Stream[Records]) -> None:
        with alarm.guard("agent ingest"):
            async for event in stream.noack().events():
                await intake.put(event.message.tp, event.value)


class Intake:
    """The chunks that wait, and the loop that works on them."""

    def __init__(self, settings: Settings, out: AIOKafkaProducer, continuity: Continuity) -> None:
        self.done: dict[TP, int] = {}  # what may be committed
        self._continuity = continuity
        self._out = out
        self._limits = Limits(settings.max_title, settings.max_body, settings.max_payload, settings.max_event)
        self._packer = Packer(settings.log_partitions)
        self._rejects: list[DeadLetter] = []
        self._handled: dict[TP, int] = {}  # what is done once the packs and rejects at hand are written
        self._waiting: asyncio.Queue[Portion] = asyncio.Queue()
        self._budget = Budget(_WAITING_BYTES)
        self._resting = asyncio.Event()
        self._resting.set()

    async def put(self, tp: TP, records: Records) -> None:
        portion = Portion.of(tp, records)
        await self._budget.take(portion.size)
        self._waiting.put_nowait(portion)

    def read_again(self, tp: TP, upto: int) -> None:
        self._waiting.put_nowait(Portion(tp, [], upto, 0))

    def idle(self, tp: TP) -> bool:
        return self._waiting.empty() and self._resting.is_set()

    def start(self, starts: Mapping[TP, int]) -> None:
        for tp, start in starts.items():
            self._continuity.own(tp, start)

    async def close(self) -> None:
        """Returns when nothing is being written. What waits is left to whoever owns the partition next."""
        while not self._waiting.empty():
            self._budget.give(self._waiting.get_nowait().size)
        await self._resting.wait()

    def release(self) -> None:
        self._continuity.next.clear()
        self.done.clear()

    async def run(self) -> None:
        while True:
            first = await self._waiting.get()
            self._resting.clear()
            if len(first.records) < _ENOUGH and self._waiting.empty():
                await asyncio.sleep(_LINGER)
            await self._work(first)
            while self._packer.events < _ENOUGH and not self._waiting.empty():
                await self._work(self._waiting.get_nowait())
            await self._write()
            self._resting.set()

    async def _work(self, portion: Portion) -> None:
        tp = portion.tp
        if tp in self._continuity.next:  # else it was revoked meanwhile
            async for run in self._continuity.follow(portion):
                for record in run:
                    self._take(record)
                self._handled[tp] = run[-1].offset + 1
                if self._packer.events >= _ENOUGH:
                    await self._write()
                await asyncio.sleep(0)  # the fold shares this loop
            self._handled[tp] = self._continuity.next[tp]
        self._budget.give(portion.size)

    def _take(self, record: ConsumerRecord[bytes, bytes]) -> None:
        try:
            self._packer.add(normalise(record.topic, record.value, record.headers, self._limits))
        except Rejected as reason:
            self._reject(record, str(reason))
        except Exception as fault:
            # Ours, not the producer's. Stopping would stop at it again after every start; so it is kept and told.
            where = f"{record.topic}/{record.partition} offset {record.offset}"
            log.exception("%s: normalise failed; the record goes to dead-letters", where)
            self._reject(record, f"attn failed to read it: {type(fault).__name__}: {fault}")

    def _reject(self, record: ConsumerRecord[bytes, bytes], reason: str) -> None:
        self._rejects.append(DeadLetter(
            topic=record.topic, partition=record.partition, offset=record.offset, reason=reason, at=_now(),
            key=record.key, value=record.value, headers=[(name, raw or b"") for name, raw in record.headers],
        ))
        metrics.REJECTS.labels(record.topic).inc()

    async def _write(self) -> None:
        rejects, self._rejects = self._rejects, []
        handled, self._handled = self._handled, {}
        if rejects:
            await bury(self._out, rejects)
        sent = []
        for partition, events, value in self._packer.take(_now()):
            sent.append(await self._out.send(LOG, value, partition=partition))
            metrics.PACK_EVENTS.observe(events)
        if sent:
            await acknowledged(sent)
        self.done.update(handled)


def _now() -> int:
    return time.time_ns() // 1000
