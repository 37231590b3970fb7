"""Consumes `attn.views` and `attn.facts` into an edge: first the records so far, then each poll.

The consumers use no group: every edge reads all of its partitions. Without a broker the edge keeps the view it has and
waits. If a topic ends before the position that was read, the broker lost acknowledged records. The replica may then be
wrong, therefore the edge stops; its supervisor restarts it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from api import metrics
from api.edge.bootstrap import MAX_POLL_RECORDS, POLL_MS, Bootstrap, iter_records, parse_fact
from api.edge.index_builder import TIME_SLICE
from api.edge.initial_state import KEPT_PREFIXES, UNSERVED_PREFIXES, BatchAssembler
from api.edge.publish_traces import publish_traces
from api.edge.services import Edge
from schemas.scalars import SECOND
from schemas.settings import Settings
from schemas.topics import FACTS, VIEWS
from streams.kafka.connection import client_arguments, close_client
from streams.runtime.lag import LogTruncated

__all__ = ["TopicFollower"]

_FETCH_BYTES = 4 << 20
_CLOSE_SECONDS = 1.0
_CHECK_INTERVAL = 2.0  # seconds between two requests for the end offsets
# Seconds without progress, although the broker answers and has more records. A restart replaces the consumer.
_STALL_SECONDS = 60.0

_log = structlog.get_logger("attn.edge")


class TopicFollower:
    """Reads the topics of one edge until it is cancelled."""

    def __init__(self, edge: Edge, settings: Settings) -> None:
        self._edge, self._settings = edge, settings
        # All partitions: sessions, keys and links of every workspace are known to every edge.
        self._views = [TopicPartition(VIEWS, number) for number in range(edge.replica.partitions)]
        self._facts = [TopicPartition(FACTS, number) for number in sorted(edge.replica.served)]
        self._assemblers = {
            tp.partition: BatchAssembler(
                tp.partition, KEPT_PREFIXES if tp.partition in edge.replica.served else UNSERVED_PREFIXES)
            for tp in self._views}
        self._timestamps: dict[TopicPartition, float] = {}  # of the last record read, in seconds
        self._ends: dict[TopicPartition, int] = {}
        self._clocks: dict[int, int] = {}  # of the newest batch, by partition
        self._applied: list[int] = []  # clocks of batches whose frames are not written yet
        self._traces = publish_traces(edge.feed_hub.stream_count)

    async def run(self) -> None:
        """Loads the view, sets `edge.ready`, then follows both topics.

        Raises LogTruncated if the broker lost records, ConsumerStalled if a consumer does not move for 60 s,
        ImportError if the ClickHouse client cannot be imported, and the error of the client if Kafka cannot be read.
        """
        consumers: list[AIOKafkaConsumer] = []
        tasks = [driver := asyncio.create_task(self._edge.history.import_driver())]
        try:
            consumers.append(views := await self._start_consumer("views"))
            consumers.append(facts := await self._start_consumer("facts"))
            # The watch starts first, because a broker may also fail while the view is loaded.
            tasks += map(asyncio.create_task, (self._watch(views, facts), self._read(views, facts, driver)))
            await asyncio.gather(*tasks)
        finally:
            self._edge.ready = False
            metrics.READY.set(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # Closing waits for the broker: with TLS 30 s if it does not answer, longer with unsent bytes.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await asyncio.gather(*map(close_client, consumers), return_exceptions=True)

    async def _start_consumer(self, name: str) -> AIOKafkaConsumer:
        """Returns a started consumer. Retries every second until a broker answers."""
        while True:
            consumer = AIOKafkaConsumer(
                **client_arguments(self._settings), client_id=f"attn-edge-{name}-{self._settings.instance}",
                enable_auto_commit=False, auto_offset_reset="none", max_partition_fetch_bytes=_FETCH_BYTES,
                fetch_max_wait_ms=POLL_MS,
            )
            try:
                await consumer.start()
                return consumer
            except KafkaError as error:
                self._edge.broker_health.record_failure(error)
                await close_client(consumer)
                await asyncio.sleep(1)
            except BaseException:
                await close_client(consumer)
                raise

    async def _read(self, views: AIOKafkaConsumer, facts: AIOKafkaConsumer, driver: asyncio.Task[None]) -> None:
        bootstrap = Bootstrap(self._edge, self._settings, self._assemblers)
        await bootstrap.load_views(views, self._views)
        starts, ends = await bootstrap.facts_range(facts, self._facts)
        bootstrap.begin_loading_facts(starts)
        facts.assign(self._facts)
        for tp, end in ends.items():
            facts.seek(tp, end)
        self._edge.publish()
        self._measure()
        await driver
        gc.collect()
        gc.freeze()  # the loaded rows stay: without this each full collection would pause all requests
        self._edge.ready = True
        metrics.READY.set(1)
        await asyncio.gather(
            self._follow(views), self._follow_facts(facts), self._load_past_facts(bootstrap, starts, ends))

    async def _load_past_facts(
        self, bootstrap: Bootstrap, starts: dict[TopicPartition, int], ends: dict[TopicPartition, int]
    ) -> None:
        """Loads the facts up to `ends`, with a consumer of its own: the others follow new records meanwhile."""
        if any(starts[tp] < end for tp, end in ends.items()):
            consumer = await self._start_consumer("past-facts")
            try:
                await bootstrap.load_facts(consumer, starts, ends)
            finally:
                await close_client(consumer)
        self._edge.case_events.end_loading()
        self._edge.release_pending()
        gc.freeze()

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            records = await consumer.getmany(timeout_ms=POLL_MS, max_records=MAX_POLL_RECORDS)
            started = time.perf_counter()
            if self._traces is not None:
                self._traces.polled()
            with self._edge.publishing():
                await self._apply_records(records)
            self._record_timestamps(records)
            if records:
                self._edge.broker_health.record_success()
                self._observe_published(started)

    async def _apply_records(self, records: dict[TopicPartition, list[Any]]) -> None:
        """Applies the batches of one poll. After each time slice it publishes and yields to the event loop."""
        slice_started = time.perf_counter()
        for record in iter_records(records):
            batch = self._assemblers[record.partition].add(record.key or b"", record.value, record.timestamp)
            if batch is None:
                continue
            self._edge.apply_batch(batch.partition, batch.rows, batch.position)
            self._note_applied(record, batch.position.clock)
            if time.perf_counter() - slice_started > TIME_SLICE:
                self._edge.publish()
                await asyncio.sleep(0)
                slice_started = time.perf_counter()

    def _note_applied(self, record: Any, clock: int) -> None:
        """Notes a batch whose frames are still to be written. `record`: its position row, `clock`: that of the log."""
        if self._traces is not None:
            self._traces.begin(record)
        if clock > self._clocks.get(record.partition, clock):  # a batch without a new pack has an old clock
            self._applied.append(clock)
        self._clocks[record.partition] = clock

    def _observe_published(self, started: float) -> None:
        """Measures the poll that began at `started`, and the delay of each batch: its frames are written."""
        exemplar = self._traces.published() if self._traces is not None else None
        metrics.PUBLISH_SECONDS.observe(time.perf_counter() - started, exemplar)
        clocks, self._applied = self._applied, []
        now = self._edge.clock()
        for clock in clocks:
            metrics.DELAY_SECONDS.observe(max(0.0, now - clock / SECOND), exemplar)

    async def _follow_facts(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            if self._edge.case_events.holds_enough:
                await self._edge.case_events.wait_loaded()
            records = await consumer.getmany(timeout_ms=POLL_MS, max_records=MAX_POLL_RECORDS)
            for record in iter_records(records):
                fact = parse_fact(record)
                if fact is not None:
                    self._edge.add_fact(record.partition, fact)
            self._edge.release_pending()
            self._record_timestamps(records)

    def _record_timestamps(self, records: dict[TopicPartition, list[Any]]) -> None:
        self._timestamps.update((tp, last[-1].timestamp / 1000) for tp, last in records.items())

    # --- progress ---

    async def _watch(self, views: AIOKafkaConsumer, facts: AIOKafkaConsumer) -> None:
        """Measures the lag every 2 s. Checks that the view's topic was not truncated and that the consumer moves."""
        while True:
            await asyncio.sleep(_CHECK_INTERVAL)
            # Positions first: the end offsets may wait for the new leader of one partition while others are read.
            view_positions = {tp: await views.position(tp) for tp in views.assignment()}
            fact_positions = {tp: await facts.position(tp) for tp in facts.assignment()}
            health = self._edge.broker_health
            view_ends = await health.retry_until_answered(lambda: views.end_offsets(self._views))
            fact_ends = (
                await health.retry_until_answered(lambda: facts.end_offsets(self._facts)) if fact_positions else {})
            self._edge.lag.observe(
                time.monotonic(), self._edge.clock(), view_positions | fact_positions, view_ends | fact_ends,
                self._timestamps, paused=() if self._edge.ready else view_positions)  # loading is not a stall
            for tp, end in view_ends.items():
                if end < self._ends.get(tp, 0):
                    raise LogTruncated(f"{tp.topic}-{tp.partition} ends at {end}, but ended at {self._ends[tp]} before")
            for tp, position in view_positions.items():
                if position > view_ends[tp]:
                    raise LogTruncated(f"{tp.topic}-{tp.partition} ends at {view_ends[tp]}, but {position} was read")
            self._edge.lag.check_stalled(_STALL_SECONDS, VIEWS)
            self._ends = view_ends
            self._measure()

    def _measure(self) -> None:
        replica = self._edge.replica
        for partition in replica.served:
            metrics.POSITION.labels(str(partition)).set(replica.position_of(partition))
        metrics.ROWS.set(replica.row_count())
        metrics.INDEXED.set(replica.indexed_count())
        metrics.RESUME_BYTES.set(replica.retained_bytes)
