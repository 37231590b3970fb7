"""What an edge reads before it may be asked: the view so far, and the facts of as long as feeds can be resumed.

It waits for the broker for as long as that takes, and the loop is never busy with it for longer than a turn.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, TypeAlias

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from api.edge.index_builder import paced
from api.edge.initial_state import Assembler, Batch, Loading
from api.edge.services import Edge
from schemas.facts import Fact, Outcome, decode_fact
from schemas.settings import Settings
from schemas.topics import FACTS
from schemas.views import CURSOR_BITS

__all__ = ["POLL_MS", "RECORDS", "Opening", "each", "fact_of"]

POLL_MS = 500
RECORDS = 2000  # a poll: bounds how long the loop is busy with it
_STEP = 500  # records between two turns of others, while it loads
# Clocks of broker and edge may differ: compaction is taken to be so much further, milliseconds.
_MARGIN_MS = 60_000
_HOUR_MS = 3_600_000

_Record: TypeAlias = ConsumerRecord[bytes, bytes]
_log = structlog.get_logger("attn.edge")


class Opening:
    def __init__(self, edge: Edge, settings: Settings, assemblers: dict[int, Assembler]) -> None:
        self._edge, self._settings, self._assemblers = edge, settings, assemblers

    def _horizon(self) -> int:
        """Milliseconds: what is younger was not compacted (streams.kafka.topics: min.compaction.lag.ms)."""
        return int(time.time() * 1000 - self._settings.resume_hours * _HOUR_MS) + _MARGIN_MS

    async def views(self, consumer: AIOKafkaConsumer, places: list[TopicPartition]) -> None:
        begun = time.monotonic()
        loading = Loading(self._settings.resume_bytes, self._horizon())
        starts = await self._edge.contact.asked(lambda: consumer.beginning_offsets(places))
        number = 0
        async for record in self._so_far(consumer, places, starts):
            number += 1
            self._take(record, loading)
        await self._wait_for_owners(consumer, loading)
        await self._load(loading)
        _log.info("view loaded", records=number, rows=self._edge.replica.rows(),
                  seconds=round(time.monotonic() - begun, 2))

    def _take(self, record: _Record, loading: Loading) -> None:
        batch = self._assemblers[record.partition].add(record.key or b"", record.value, record.timestamp)
        if batch is not None:
            loading.add(batch)

    async def _wait_for_owners(self, consumer: AIOKafkaConsumer, loading: Loading) -> None:
        """Rows written out of turn, so long ago that compaction may have taken the right ones: whoever folds the
        partition next writes those again, and until then nobody can tell them."""
        told = False
        while True:
            horizon = self._horizon()
            unsure = loading.settle(horizon)
            unsure |= {number for number, waiting in self._assemblers.items() if waiting.waits_since(horizon)}
            if not unsure:
                return
            if not told:
                _log.warning("rows were written out of turn; waiting for a worker to repair them",
                             partitions=sorted(unsure))
            told = True
            for record in each(await consumer.getmany(timeout_ms=POLL_MS, max_records=RECORDS)):
                self._take(record, loading)

    async def _load(self, loading: Loading) -> None:
        state, batches = loading.finish()
        for partition in list(state):
            await paced(self._edge.replica.loading(partition, *state.pop(partition)))
        await paced(self._taking(batches))

    def _taking(self, batches: Iterable[Batch]) -> Iterator[None]:
        for batch in batches:
            self._edge.take(batch.partition, batch.rows, batch.position)
            yield

    async def facts(self, consumer: AIOKafkaConsumer, places: list[TopicPartition]) -> None:
        """For the event streams."""
        starts = await self._facts_from(consumer, places)
        for place, start in starts.items():
            if start > 0:
                # What was told before is not known; it is known from the first fact read on, or from now on.
                position = self._edge.replica.position_of(place.partition)
                self._edge.events.begin(place.partition, (position << CURSOR_BITS) - 1)
        seen: set[int] = set()
        async for record in self._so_far(consumer, places, starts):
            fact = fact_of(record)
            if fact is None:
                continue
            if record.partition not in seen and starts[TopicPartition(FACTS, record.partition)] > 0:
                self._edge.events.begin(record.partition, (fact.pos << CURSOR_BITS) - 1)
            seen.add(record.partition)
            self._edge.tell(record.partition, fact)

    async def _facts_from(
        self, consumer: AIOKafkaConsumer, places: list[TopicPartition]
    ) -> dict[TopicPartition, int]:
        contact, since = self._edge.contact, self._horizon()
        begins = await contact.asked(lambda: consumer.beginning_offsets(places))
        ends = await contact.asked(lambda: consumer.end_offsets(places))
        found = await contact.asked(lambda: consumer.offsets_for_times(dict.fromkeys(places, since)))
        return {
            place: max(begins[place], at.offset) if (at := found.get(place)) is not None else ends[place]
            for place in places
        }

    async def _so_far(
        self, consumer: AIOKafkaConsumer, places: list[TopicPartition], starts: dict[TopicPartition, int]
    ) -> AsyncIterator[_Record]:
        """Records from `starts` to what are the ends now."""
        ends = await self._edge.contact.asked(lambda: consumer.end_offsets(places))
        consumer.assign(places)
        for place in places:
            consumer.seek(place, starts[place])
        behind = {place for place in places if starts[place] < ends[place]}
        while behind:
            found = await consumer.getmany(*behind, timeout_ms=POLL_MS, max_records=RECORDS)
            if found:
                self._edge.contact.heard()
            for number, record in enumerate(each(found)):
                yield record
                if number % _STEP == 0:
                    await asyncio.sleep(0)
            behind = {place for place in behind if await consumer.position(place) < ends[place]}


def each(found: dict[TopicPartition, list[Any]]) -> Iterable[_Record]:
    return (record for records in found.values() for record in records)


def fact_of(record: _Record) -> Fact | Outcome | None:
    """The fact or outcome of a record. None for a tombstone and for bytes that are neither, which an edge skips;
    history puts them into `dead-letters`. Raises UnsupportedVersion."""
    if record.value is None:
        return None
    try:
        return decode_fact(record.value)
    except (ValueError, RecursionError) as error:
        _log.warning("skipped a record that is no fact", topic=record.topic, partition=record.partition,
                     offset=record.offset, reason=str(error)[:200])
        return None
