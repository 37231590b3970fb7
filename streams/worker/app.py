"""The worker put together: `build(settings)` is its one composition root.

Two Faust apps in one loop, `ingest` and `fold`, not one. An app with a table recovers it on every rebalance: it pauses
all its streams, clears their queues and seeks to committed offsets, which is where Faust loses input; ingest without a
table has no part in that. Partitions of sources and of the log then move independently, and a rebalance of one does
not stop the other. The price is a second consumer thread and group.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

import faust
from aiokafka.errors import KafkaError
from faust.types import TP

from schemas.settings import Settings
from schemas.topics import LOG, SOURCE_TYPES
from streams.consumer.consumer_thread import Consumer
from streams.consumer.faust_app import ReadCommittedConsumer, create_app
from streams.consumer.gap_filler import GapFiller
from streams.consumer.group_offsets import GroupOffsets
from streams.consumer.watchdog import MonitoredConsumer, watch_progress
from streams.fold import agent, partition
from streams.fold.ticks import TickProducer
from streams.fold.views_table import ViewsTable
from streams.ingest import agent as ingest
from streams.kafka.producer import idempotent_producer
from streams.kafka.reader import partition_bounds, read_offsets
from streams.runtime.lag import LagTracker
from streams.runtime.task_supervisor import TaskSupervisor

__all__ = ["Worker", "build"]

log = logging.getLogger(__name__)

_COMMIT_INTERVAL = 1.0  # seconds; what is done and not committed is looked at again after a crash


def build(settings: Settings) -> Worker:
    """A worker, not yet started. To be called in a running loop."""
    return Worker(settings)


class Worker:
    """Both apps, their producers, and the tasks beside them."""

    def __init__(self, settings: Settings) -> None:
        self.supervisor = TaskSupervisor()
        self._settings = settings
        # A new incarnation of the broker may have lost records of the log that its sources still hold: the group begins
        # anew, reads all they hold, and the fold drops what it knows.
        suffix = f"-{settings.incarnation}" if settings.incarnation else ""
        self.ingest = create_app(f"attn-ingest{suffix}", settings)
        self.ingest.transport.Consumer = ReadCommittedConsumer
        self.fold = create_app("attn-fold", settings)
        self.fold.transport.Consumer = Consumer
        self._producers = [idempotent_producer(settings, "ingest"), idempotent_producer(settings, "ticks")]
        read = lambda tp, start, end: read_offsets(settings, tp, start, end)  # noqa: E731
        to_log, to_ticks = self._producers

        self._intake_from = GapFiller(read, self._begin)
        self._intake_group = GroupOffsets(self.ingest, settings)
        self.ingestor = ingest.Ingestor(settings, to_log, self._intake_from)
        ingest.register_agent(self.ingest, self.ingestor, self.supervisor)
        self.ingest.on_partitions_assigned.connect(self._sources_assigned)
        self.ingest.on_partitions_revoked.connect(self._sources_revoked)

        self._shards_from = GapFiller(read)
        self._fold_group = GroupOffsets(self.fold, settings)
        self.views = ViewsTable(self.fold, settings.log_partitions, self._fold_group, read)
        self.fold.tables.add(self.views)
        self.partitions = agent.AssignedPartitions(
            lambda number, kept: partition.PartitionProcessor(
                number, settings, self.views, self._shards_from, kept),
            self.supervisor,
        )
        agent.register_agent(self.fold, self.partitions, self.supervisor)
        self.fold.on_partitions_assigned.connect(self._log_assigned)
        self.fold.on_partitions_revoked.connect(self._log_revoked)
        self._ticks = TickProducer(to_ticks)
        self._stopping = False
        self.stopped_cleanly = False  # by stop: nothing was being written when it left
        self._tasks: list[asyncio.Task[None]] = []
        self._assigned = {self.ingest: False, self.fold: False}
        self._progress = {app: LagTracker(settings, time.monotonic()) for app in (self.ingest, self.fold)}

    async def _begin(self, tp: TP) -> int:
        return (await partition_bounds(self._settings, [tp]))[tp][0]

    @property
    def ready(self) -> bool:
        """All partitions are assigned, loaded and being worked on."""
        apps = (self.ingest, self.fold)
        return all(self._assigned[app] and not app.rebalancing for app in apps) and self.partitions.ready

    def not_ready_reason(self) -> str | None:
        """Why what comes is not worked on as it comes; None: it is."""
        for app, assigned in self._assigned.items():
            if not assigned or app.rebalancing:
                return f"{app.conf.id} {'is rebalancing' if assigned else 'has not joined its group yet'}"
        if loading := self.partitions.loading:
            return f"loading partitions {', '.join(map(str, loading))} of {LOG}"
        if stopped := self.ingestor.breakers.not_ready_reason():
            return stopped
        reasons = (progress.not_ready_reason(time.monotonic(), time.time()) for progress in self._progress.values())
        return next(filter(None, reasons), None)

    async def start(self) -> None:
        """Returns when both apps run; partitions may still be loading. Raises what they raise."""
        await asyncio.gather(*(out.start() for out in self._producers))
        self._tasks += [
            self.supervisor.spawn(self._health(app), f"app {app.conf.id}") for app in (self.ingest, self.fold)
        ]
        await asyncio.gather(self.ingest.start(), self.fold.start())
        self._tasks += [
            self.supervisor.spawn(self.ingestor.run(), "ingest"),
            self.supervisor.spawn(self._ticks.run(lambda: self.partitions.processors.values()), "ticks"),
            self.supervisor.spawn(self._commit(), "commit"),
            self.supervisor.spawn(self.ingestor.listen_for_resume_markers(), "operators"),
            self._watched(self.ingest, self._intake_group, self._intake_from, self.ingestor, "sources"),
            self._watched(self.fold, self._fold_group, self._shards_from, self.partitions, "log"),
        ]

    def _watched(
        self, app: faust.App, group: GroupOffsets, continuity: GapFiller, consumed: MonitoredConsumer, name: str
    ) -> asyncio.Task[None]:
        return self.supervisor.spawn(watch_progress(app, group, continuity, consumed, self._progress[app]), name)

    async def stop(self) -> None:
        """Finish what is being written, commit it, leave. May be called at any time, after a failure too."""
        self._stopping = True  # a rebalance that is under way must not give us work: claims would take it from others
        if self.supervisor.failure is None:
            await asyncio.gather(self.ingestor.close(), self.partitions.close())
            self.stopped_cleanly = True  # what is not committed by then is looked at again, and known
            await self._commit_once()
            for group in (self._intake_group, self._fold_group):
                group.leave()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        ended = await asyncio.gather(
            self.ingest.stop(), self.fold.stop(), *(out.stop() for out in self._producers), return_exceptions=True
        )
        for error in filter(None, ended):
            log.warning("on the way out: %r", error)

    async def _health(self, app: faust.App) -> None:
        """Faust's services crash in tasks and threads of their own; only the app's state tells."""
        while not app.should_stop:  # noqa: ASYNC110 - a crash sets no event that this loop could wait for
            await asyncio.sleep(0.2)
        raise RuntimeError(f"Faust stopped: {app.crash_reason!r}") from app.crash_reason

    async def _commit(self) -> None:
        while True:
            await asyncio.sleep(_COMMIT_INTERVAL)
            await self._commit_once()

    async def _commit_once(self) -> None:
        if not self.ingest.rebalancing:
            await _commit_offsets(self._intake_group, self.ingestor.committable_offsets)
            self._intake_from.set_committed(self._intake_group.committed)
        if not self.fold.rebalancing:
            await _commit_offsets(self._fold_group, self.partitions.committable_offsets)

    async def _sources_assigned(self, app: faust.App, assigned: set[TP], **_: Any) -> None:
        if self._stopping:
            return
        mine = [tp for tp in assigned if tp.topic in SOURCE_TYPES]
        starts = await self._intake_group.resume_offsets(mine)
        if self._stopping:  # meanwhile
            return
        self.ingestor.start(starts)
        self._assigned[app] = True
        log.info("ingests %d partitions of %d source topics", len(mine), len({tp.topic for tp in mine}))

    async def _sources_revoked(self, app: faust.App, revoked: set[TP], **_: Any) -> None:
        await self.ingestor.close()
        await _commit_offsets(self._intake_group, self.ingestor.committable_offsets)
        self.ingestor.release()

    async def _log_assigned(self, app: faust.App, assigned: set[TP], **_: Any) -> None:
        if self._stopping:
            return
        mine = {tp.partition for tp in assigned if tp.topic == LOG}
        self.views.retain(mine)
        self.partitions.start(mine)
        self._assigned[app] = True
        log.info("folds partitions %s of the log", ", ".join(map(str, sorted(mine))) or "none")

    async def _log_revoked(self, app: faust.App, revoked: set[TP], **_: Any) -> None:
        await self.partitions.close()
        await _commit_offsets(self._fold_group, self.partitions.committable_offsets)
        self.partitions.release()
        self._shards_from.next_offsets.clear()


async def _commit_offsets(group: GroupOffsets, done: Mapping[TP, int]) -> None:
    """The group's broker may be away, or another take its place: no reason to end, nor to hold a rebalance up. Who
    begins at an older offset looks at what is done once more, and a group that is lost for good is noticed by
    `watch_progress`.
    """
    try:
        await group.commit(done)
    except (TimeoutError, KafkaError) as error:
        log.warning("offsets are not committed yet: %r", error)
