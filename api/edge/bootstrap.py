"""Loads the view before an edge is ready, and the recent facts after that.

Facts are loaded as far back as feeds can resume. Only streams of case events need them, and wait for them. The edge
waits for the broker without a time limit. The work yields to the event loop after each time slice.
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
MAX_POLL_RECORDS = 2000  # of one poll: limits how long the event loop is busy with them
_STEP = 500  # records after which loading yields to the event loop
# Milliseconds that the clocks of broker and edge may differ: compaction is assumed to be further by this.
_MARGIN_MS = 60_000
_HOUR_MS = 3_600_000

_Record: TypeAlias = ConsumerRecord[bytes, bytes]
_log = structlog.get_logger("attn.edge")


class Bootstrap:
    def __init__(self, edge: Edge, settings: Settings, assemblers: dict[int, BatchAssembler]) -> None:
        self._edge, self._settings, self._assemblers = edge, settings, assemblers

    def _horizon(self) -> int:
        """Returns the timestamp in milliseconds above which no record was compacted (`min.compaction.lag.ms`)."""
        return int(time.time() * 1000 - self._settings.resume_hours * _HOUR_MS) + _MARGIN_MS

    async def load_views(self, consumer: AIOKafkaConsumer, tps: list[TopicPartition]) -> None:
        begun = time.monotonic()
        loading = InitialState(self._settings.resume_bytes, self._horizon())
        starts = await self._edge.broker_health.retry_until_answered(lambda: consumer.beginning_offsets(tps))
        number = 0
        ends = await self._edge.broker_health.retry_until_answered(lambda: consumer.end_offsets(tps))
        async for records in self._read_to_end(consumer, tps, starts, ends):
            number += len(records)
            self._add_records(records, loading)
        await self._wait_for_owners(consumer, loading)
        await self._load_replica(loading)
        _log.info("view loaded", records=number, rows=self._edge.replica.row_count(),
                  seconds=round(time.monotonic() - begun, 2))

    def _add_records(self, records: Iterable[_Record], loading: InitialState) -> None:
        """Adds records of one partition."""
        assembler = None
        for record in records:
            if assembler is None:
                assembler = self._assemblers[record.partition]
            batch = assembler.add(record.key or b"", record.value, record.timestamp)
            if batch is not None:
                loading.add(batch)

    async def _wait_for_owners(self, consumer: AIOKafkaConsumer, loading: InitialState) -> None:
        """Waits until each partition with stale rows was repaired.

        A worker that lost a partition may have written rows so long ago that compaction removed the correct ones. The
        next owner of the partition writes the correct rows again.
        """
        reported = False
        while True:
            horizon = self._horizon()
            unsure = loading.advance_horizon(horizon)
            unsure |= {
                number for number, waiting in self._assemblers.items() if waiting.has_unfinished_batch_before(horizon)}
            if not unsure:
                return
            if not reported:
                _log.warning("stale rows in attn.views: waiting until a worker repairs these partitions",
                             partitions=sorted(unsure))
            reported = True
            for records in (await consumer.getmany(timeout_ms=POLL_MS, max_records=MAX_POLL_RECORDS)).values():
                self._add_records(records, loading)

    async def _load_replica(self, loading: InitialState) -> None:
        state, batches = loading.finish()
        for partition in list(state):
            await run_cooperatively(self._edge.replica.load_steps(partition, *state.pop(partition)))
        await run_cooperatively(self._apply_batches(batches))

    def _apply_batches(self, batches: Iterable[ViewBatch]) -> Iterator[None]:
        for batch in batches:
            self._edge.apply_batch(batch.partition, batch.rows, batch.position)
            yield

    def begin_loading_facts(self, starts: dict[TopicPartition, int]) -> None:
        """Makes the edge hold new facts, and sets the event id after which it knows all events. To be called before the
        edge is ready."""
        self._edge.begin_loading_facts()
        for tp, start in starts.items():
            if start > 0:
                # Events before are unknown. They are known from the first fact on, or from this position on.
                position = self._edge.replica.position_of(tp.partition)
                self._edge.case_events.set_known_after(tp.partition, (position << CURSOR_BITS) - 1)

    async def load_facts(
        self, consumer: AIOKafkaConsumer, starts: dict[TopicPartition, int], ends: dict[TopicPartition, int]
    ) -> None:
        """Loads the facts of these offsets for the case event streams."""
        begun, number = time.monotonic(), 0
        seen: set[int] = set()
        async for records in self._read_to_end(consumer, list(starts), starts, ends):
            for record in records:
                tp = TopicPartition(FACTS, record.partition)
                fact = parse_fact(record) if record.offset < ends[tp] else None
                if fact is None:
                    continue
                if record.partition not in seen and starts[tp] > 0:
                    self._edge.case_events.set_known_after(record.partition, (fact.pos << CURSOR_BITS) - 1)
                seen.add(record.partition)
                self._edge.add_past_fact(record.partition, fact)
            number += len(records)
            self._edge.release_pending()
        _log.info("case events loaded", facts=number, seconds=round(time.monotonic() - begun, 2))

    async def facts_range(
        self, consumer: AIOKafkaConsumer, tps: list[TopicPartition]
    ) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
        """Returns the offsets of the first fact to load, and the end offsets."""
        health, since = self._edge.broker_health, self._horizon()
        beginnings = await health.retry_until_answered(lambda: consumer.beginning_offsets(tps))
        ends = await health.retry_until_answered(lambda: consumer.end_offsets(tps))
        by_time = await health.retry_until_answered(lambda: consumer.offsets_for_times(dict.fromkeys(tps, since)))
        starts = {
            tp: max(beginnings[tp], at.offset) if (at := by_time.get(tp)) is not None else ends[tp]
            for tp in tps
        }
        return starts, ends

    async def _read_to_end(
        self, consumer: AIOKafkaConsumer, tps: list[TopicPartition], starts: dict[TopicPartition, int],
        ends: dict[TopicPartition, int],
    ) -> AsyncIterator[list[_Record]]:
        """Yields the records from `starts` to `ends`, and some after them: lists of one partition each, of at most
        `_STEP` records, and a turn of the event loop after each list."""
        consumer.assign(tps)
        for tp in tps:
            consumer.seek(tp, starts[tp])
        behind = {tp for tp in tps if starts[tp] < ends[tp]}
        while behind:
            records = await consumer.getmany(*behind, timeout_ms=POLL_MS, max_records=MAX_POLL_RECORDS)
            if records:
                self._edge.broker_health.record_success()
            for fetched in records.values():
                for start in range(0, len(fetched), _STEP):
                    yield fetched[start:start + _STEP]
                    await asyncio.sleep(0)
            behind = {tp for tp in behind if await consumer.position(tp) < ends[tp]}


def iter_records(records: dict[TopicPartition, list[Any]]) -> Iterable[_Record]:
    return (record for fetched in records.values() for record in fetched)


def parse_fact(record: _Record) -> Fact | Outcome | None:
    """Returns the fact or outcome of a record. Returns None for a tombstone and for bytes that are no fact.

    The edge skips such bytes; the history writes them to `dead-letters`. Raises UnsupportedVersion if a newer attn
    wrote the record.
    """
    if record.value is None:
        return None
    try:
        return decode_fact(record.value)
    except (ValueError, RecursionError) as error:
        _log.warning("skipped a record that is no fact", topic=record.topic, partition=record.partition,
                     offset=record.offset, reason=str(error)[:200])
        return None
