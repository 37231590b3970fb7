"""One Faust app with everything that belongs to its partitions. The worker has two: ingest and fold."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

import faust
from aiokafka.errors import KafkaError
from faust.types import TP

from streams.consumer.gap_filler import GapFiller
from streams.consumer.group_offsets import GroupOffsets
from streams.consumer.watchdog import watch_progress
from streams.fold.agent import AssignedPartitions
from streams.ingest.agent import Ingestor
from streams.runtime.lag import LagTracker

__all__ = ["Pipeline"]

log = logging.getLogger(__name__)

_APP_CHECK_INTERVAL = 1.0  # seconds


@dataclass
class Pipeline:
    """`processor` handles the records of the assigned partitions. `assigned` is set by the first assignment."""

    app: faust.App
    offsets: GroupOffsets
    gap_filler: GapFiller
    processor: Ingestor | AssignedPartitions
    lag: LagTracker
    assigned: bool = False

    @property
    def id(self) -> str:
        """The consumer group's id, which is also the app's."""
        return str(self.app.conf.id)

    @property
    def joined(self) -> bool:
        return self.assigned and not self.app.rebalancing

    def not_joined_reason(self) -> str | None:
        if self.joined:
            return None
        return f"{self.id} {'is rebalancing' if self.assigned else 'has not joined its group yet'}"

    async def commit(self) -> None:
        """Commits what is durable. Logs a warning if the group's broker does not answer: a failed commit must neither
        stop the worker nor delay a rebalance. A reader that starts at an older offset drops the records it knows;
        `watch_progress` notices a group that does not come back."""
        try:
            await self.offsets.commit(self.processor.committable_offsets)
        except (TimeoutError, KafkaError) as error:
            log.warning("offsets not committed yet: %r", error)
        self.gap_filler.set_committed(self.offsets.committed)

    async def revoke(self, app: faust.App, revoked: set[TP], **_: Any) -> None:
        """Faust's callback before partitions are revoked: finishes the write under way and commits its offsets."""
        await self.processor.close()
        await self.commit()
        self.processor.release()
        self.gap_filler.reset()

    async def watch_app(self) -> None:
        """Raises RuntimeError when the app has stopped: Faust's services crash in tasks and threads of their own, so
        the app's state is the only sign."""
        while not self.app.should_stop:  # noqa: ASYNC110 - a crash sets no event that this loop could wait for
            await asyncio.sleep(_APP_CHECK_INTERVAL)
        raise RuntimeError(f"Faust stopped: {self.app.crash_reason!r}") from self.app.crash_reason

    async def watch_progress(self) -> None:
        """Raises ConsumerStalled or LogTruncated; else runs until it is cancelled."""
        await watch_progress(self.app, self.offsets, self.gap_filler, self.processor, self.lag)
