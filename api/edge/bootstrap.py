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

from api.edge.index_builder import run_cooperatively
from api.edge.initial_state import BatchAssembler, InitialState, ViewBatch
from api.edge.services import Edge
from schemas.facts import Fact, Outcome, decode_fact
from schemas.settings import Settings
from schemas.topics import FACTS
from schemas.views import CURSOR_BITS

__all__ = ["MAX_POLL_RECORDS", "POLL_MS", "Bootstrap", "iter_records", "parse_fact"]

POLL_MS = 500
MAX_POLL_RECORDS = 2000  # a poll: bounds how long the loop is busy with it
_STEP = 500  # records between two turns of others, while it loads
# Clocks of broker and edge may differ: compaction is taken to be so much further, milliseconds.
_MARGIN_MS = 60_000
_HOUR_MS = 3_600_000

_Record: TypeAlias = ConsumerRecord[bytes, bytes]
_log = structlog.get_logger("attn.edge")


class Bootstrap:
    def __init__(self, edge: Edge, settings: Settings, assemblers: dict[int, BatchAssembler]) -> None:
        self._edge, self._settings, self._assemblers = edge, settings, assemblers

    def _horizon(self) -> int:
        """Milliseconds: what is younger was not compacted (streams.kafka.topics: min.compaction.lag.ms)."""
        return int(time.time() * 1000 - self._settings.resume_hours * _HOUR_MS) + _MARGIN_MS

    async def load_views(self, consumer: AIOKafkaConsumer, places: list[TopicPartition]) -> None:
        begun = time.monotonic()
        loading = InitialState(self._settings.resume_bytes, self._horizon())
        starts = await self._edge.broker_health.retry_until_answered(lambda: consumer.beginning_offsets(places))
        number = 0
        async for record in self._read_to_end(consumer, places, starts):
            number += 1
            self._add_record(record, loading)
        await self._wait_for_owners(consumer, loading)
        await self._load_replica(loading)
        _log.info("view loaded", records=number, rows=self._edge.replica.row_count(),
                  seconds=round(time.monotonic() - begun, 2))

    def _add_record(self, record: _Record, loading: InitialState) -> None:
        batch = self._assemblers[record.partition].add(record.key or b"", record.value, record.timestamp)
        if batch is not None:
            loading.add(batch)

    async def _wait_for_owners(self, consumer: AIOKafkaConsumer, loading: InitialState) -> None:
        """Rows written out of turn, so long ago that compaction may have taken the right ones: whoever folds the
        partition next writes those again, and until then nobody can tell them."""
        told = False
        while True:
            horizon = self._horizon()
            unsure = loading.advance_horizon(horizon)
            unsure |= {
                number for number, waiting in self._assemblers.items() if waiting.has_unfinished_batch_before(horizon)}
            if not unsure:
                return
            if not told:
                _log.warning("rows were written out of turn; waiting for a worker to repair them",
                             partitions=sorted(unsure))
            told = True
            for record in iter_records(await consumer.getmany(timeout_ms=POLL_MS, max_records=MAX_POLL_RECORDS)):
                self._add_record(record, loading)

    async def _load_replica(self, loading: InitialState) -> None:
        state, batches = loading.finish()
        for partition in list(state):
            await run_cooperatively(self._edge.replica.load_steps(partition, *state.pop(partition)))
        await run_cooperatively(self._apply_batches(batches))

    def _apply_batches(self, batches: Iterable[ViewBatch]) -> Iterator[None]:
        for batch in batches:
            self._edge.apply_batch(batch.partition, batch.rows, batch.position)
            yield

    async def load_facts(self, consumer: AIOKafkaConsumer, places: list[TopicPartition]) -> None:
        """For the event streams."""
        starts = await self._facts_from(consumer, places)
        for place, start in starts.items():
            if start > 0:
                # What was told before is not known; it is known from the first fact read on, or from now on.
                position = self._edge.replica.position_of(place.partition)
                self._edge.case_events.set_known_after(place.partition, (position << CURSOR_BITS) - 1)
        seen: set[int] = set()
        async for record in self._read_to_end(consumer, places, starts):
            fact = parse_fact(record)
            if fact is None:
                continue
            if record.partition not in seen and starts[TopicPartition(FACTS, record.partition)] > 0:
                self._edge.case_events.set_known_after(record.partition, (fact.pos << CURSOR_BITS) - 1)
            seen.add(record.partition)
            self._edge.add_fact(record.partition, fact)

    async def _facts_from(
        self, consumer: AIOKafkaConsumer, places: list[TopicPartition]
    ) -> dict[TopicPartition, int]:
        contact, since = self._edge.broker_health, self._horizon()
        begins = await contact.retry_until_answered(lambda: consumer.beginning_offsets(places))
        ends = await contact.retry_until_answered(lambda: consumer.end_offsets(places))
        found = await contact.retry_until_answered(lambda: consumer.offsets_for_times(dict.fromkeys(places, since)))
        return {
            place: max(begins[place], at.offset) if (at := found.get(place)) is not None else ends[place]
            for place in places
        }

    async def _read_to_end(
        self, consumer: AIOKafkaConsumer, places: list[TopicPartition], starts: dict[TopicPartition, int]
    ) -> AsyncIterator[_Record]:
        """Records from `starts` to what are the ends now."""
        ends = await self._edge.broker_health.retry_until_answered(lambda: consumer.end_offsets(places))
        consumer.assign(places)
        for place in places:
            consumer.seek(place, starts[place])
        behind = {place for place in places if starts[place] < ends[place]}
        while behind:
            found = await consumer.getmany(*behind, timeout_ms=POLL_MS, max_records=MAX_POLL_RECORDS)
            if found:
                self._edge.broker_health.record_success()
            for number, record in enumerate(iter_records(found)):
                yield record
                if number % _STEP == 0:
                    await asyncio.sleep(0)
            behind = {place for place in behind if await consumer.position(place) < ends[place]}


def iter_records(found: dict[TopicPartition, list[Any]]) -> Iterable[_Record]:
    return (record for records in found.values() for record in records)


def parse_fact(record: _Record) -> Fact | Outcome | None:
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
