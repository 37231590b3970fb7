"""Composition root of the worker: `build(settings)` creates both Faust apps, the producers and the background tasks.

The worker runs two Faust apps in one event loop, `ingest` and `fold`. An app with a table recovers the table on every
rebalance: it pauses all its streams, clears their queues and seeks to committed offsets, and Faust loses input there.
Ingest has no table and is therefore an app of its own. Partitions of source topics and of the log also move
independently: a rebalance of one app does not stop the other. The cost is a second consumer and group.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import faust
from aiokafka import AIOKafkaProducer
from faust.types import TP

from schemas.settings import Settings
from schemas.topics import LOG, SOURCE_TYPES
from streams.consumer.chunks import Records
from streams.consumer.consumer_thread import Consumer
from streams.consumer.faust_app import ReadCommittedConsumer, create_app
from streams.consumer.gap_filler import GapFiller
from streams.consumer.group_offsets import GroupOffsets
from streams.core.fold.fold import Fold
from streams.fold import agent as fold_agent
from streams.fold.agent import AssignedPartitions
from streams.fold.decision_records import DecisionEncoder
from streams.fold.partition import PartitionProcessor
from streams.fold.standby import StandbyReader
from streams.fold.ticks import TickProducer
from streams.fold.views_table import ViewsTable
from streams.ingest import agent as ingest_agent
from streams.ingest.agent import Ingestor
from streams.kafka.fencing import PartitionFencer
from streams.kafka.producer import idempotent_producer
from streams.kafka.reader import partition_bounds, read_offsets
from streams.runtime.lag import LagTracker
from streams.runtime.task_supervisor import TaskSupervisor
from streams.worker.pipeline import Pipeline

__all__ = ["Worker", "build"]

log = logging.getLogger(__name__)

_COMMIT_INTERVAL = 1.0  # seconds; after a crash, records after the last commit are read again and dropped as known


def build(settings: Settings) -> Worker:
    """Creates a worker without starting it. Needs a running event loop."""
    return Worker(settings)


class Worker:
    """The two pipelines, their producers and the background tasks beside them."""

    def __init__(self, settings: Settings) -> None:
        self.supervisor = TaskSupervisor()
        self._settings = settings
        to_log, to_ticks = idempotent_producer(settings, "ingest"), idempotent_producer(settings, "ticks")
        self._fencer = PartitionFencer(settings)
        self._producers = [to_log, to_ticks, self._fencer.producer]
        self.ingest, self.ingestor = self._build_ingest(to_log)
        self.fold, self.partitions, self.views = self._build_fold()
        self._pipelines = (self.ingest, self.fold)
        self.standby = StandbyReader(settings, self.views, lambda: self.ready)
        self._ticks = TickProducer(to_ticks)
        self._stopping = False
        self.stopped_cleanly = False  # set by `stop` once no write is under way
        self._tasks: list[asyncio.Task[None]] = []

    def _build_ingest(self, to_log: AIOKafkaProducer) -> tuple[Pipeline, Ingestor]:
        # A new incarnation of the broker may have lost records of the log that the source topics still hold. A group
        # without committed offsets reads the source topics from the beginning; the fold drops the events it knows.
        suffix = f"-{self._settings.incarnation}" if self._settings.incarnation else ""
        app = create_app(f"attn-ingest{suffix}", self._settings)
        app.transport.Consumer = ReadCommittedConsumer
        gap_filler = GapFiller(self._read, self._first_offset)
        ingestor = Ingestor(self._settings, to_log, gap_filler)
        ingest_agent.register_agent(app, ingestor, self.supervisor)
        pipeline = Pipeline(app, GroupOffsets(app, self._settings), gap_filler, ingestor, self._lag_tracker())
        app.on_partitions_assigned.connect(self._sources_assigned)
        app.on_partitions_revoked.connect(pipeline.revoke)
        return pipeline, ingestor

    def _build_fold(self) -> tuple[Pipeline, AssignedPartitions, ViewsTable]:
        app = create_app("attn-fold", self._settings)
        app.transport.Consumer = Consumer
        gap_filler, offsets = GapFiller(self._read), GroupOffsets(app, self._settings)
        views = ViewsTable(app, self._settings.log_partitions, self._read)
        app.tables.add(views)

        encoder = DecisionEncoder(self._settings)

        def create_processor(partition: int, reusable_fold: Fold | None) -> PartitionProcessor:
            return PartitionProcessor(
                partition, self._settings, self._fencer, views, gap_filler, reusable_fold, encoder)

        partitions = AssignedPartitions(create_processor, self.supervisor)
        fold_agent.register_agent(app, partitions, self.supervisor)
        pipeline = Pipeline(app, offsets, gap_filler, partitions, self._lag_tracker())
        app.on_partitions_assigned.connect(self._log_assigned)
        app.on_partitions_revoked.connect(pipeline.revoke)
        return pipeline, partitions, views

    def _lag_tracker(self) -> LagTracker:
        return LagTracker(self._settings, time.monotonic())

    def _read(self, tp: TP, start: int, end: int) -> AsyncIterator[Records]:
        return read_offsets(self._settings, tp, start, end)

    async def _first_offset(self, tp: TP) -> int:
        return (await partition_bounds(self._settings, [tp]))[tp][0]

    @property
    def ready(self) -> bool:
        """Whether all assigned partitions are loaded and processed."""
        return all(pipeline.joined for pipeline in self._pipelines) and self.partitions.ready

    def not_ready_reason(self) -> str | None:
        """Returns why records are not processed as they arrive, or None if they are."""
        for pipeline in self._pipelines:
            if reason := pipeline.not_joined_reason():
                return reason
        if loading := self.partitions.loading:
            return f"loading partitions {', '.join(map(str, loading))} of {LOG}"
        if reason := self.ingestor.breakers.not_ready_reason():
            return reason
        reasons = (pipeline.lag.not_ready_reason(time.monotonic(), time.time()) for pipeline in self._pipelines)
        return next(filter(None, reasons), None)

    async def start(self) -> None:
        """Returns when both apps run; partitions may still be loading. Raises what the apps raise."""
        spawn = self.supervisor.spawn
        await asyncio.gather(*(producer.start() for producer in self._producers))
        self._tasks += [spawn(pipeline.watch_app(), f"app {pipeline.id}") for pipeline in self._pipelines]
        await asyncio.gather(*(pipeline.app.start() for pipeline in self._pipelines))
        self._tasks += [
            spawn(self.ingestor.run(), "ingest"),
            spawn(self._ticks.run(lambda: self.partitions.processors.values()), "ticks"),
            spawn(self._commit_periodically(), "commit"),
            spawn(self.ingestor.listen_for_resume_markers(), "operators"),
            spawn(self.ingest.watch_progress(), "sources"),
            spawn(self.fold.watch_progress(), "log"),
            spawn(self.standby.run(), "standby"),
        ]

    async def stop(self) -> None:
        """Finishes writes under way, commits offsets and leaves the groups. May be called at any time and after a
        failure; after a failure it only closes the clients."""
        self._stopping = True  # a rebalance under way must not assign partitions: fencing would take them from others
        if self.supervisor.failure is None:
            await asyncio.gather(self.ingestor.close(), self.partitions.close())
            self.stopped_cleanly = True  # records without a committed offset are read again, and dropped as known
            await self._commit_once()
            for pipeline in self._pipelines:
                pipeline.offsets.leave()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        results = await asyncio.gather(
            *(pipeline.app.stop() for pipeline in self._pipelines), *(producer.stop() for producer in self._producers),
            return_exceptions=True,
        )
        for error in filter(None, results):
            log.warning("error while stopping: %r", error)

    async def _commit_periodically(self) -> None:
        while True:
            await asyncio.sleep(_COMMIT_INTERVAL)
            await self._commit_once()

    async def _commit_once(self) -> None:
        for pipeline in self._pipelines:
            if not pipeline.app.rebalancing:
                await pipeline.commit()

    async def _sources_assigned(self, app: faust.App, assigned: set[TP], **_: Any) -> None:
        if self._stopping:
            return
        mine = [tp for tp in assigned if tp.topic in SOURCE_TYPES]
        offsets = await self.ingest.offsets.resume_offsets(mine)
        if self._stopping:  # `stop` may have been called during the await
            return
        self.ingestor.start(offsets)
        self.ingest.assigned = True
        log.info("ingesting %d partitions of %d source topics", len(mine), len({tp.topic for tp in mine}))

    async def _log_assigned(self, app: faust.App, assigned: set[TP], **_: Any) -> None:
        if self._stopping:
            return
        mine = {tp.partition for tp in assigned if tp.topic == LOG}
        self.standby.set_owned(mine)
        self.partitions.start(mine)
        self.fold.assigned = True
        log.info("folding partitions %s of the log", ", ".join(map(str, sorted(mine))) or "none")
