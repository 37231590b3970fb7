"""Liveness by offsets: asks the broker every moment where partitions end, and compares that with what was worked on.

Faust's consumer is known to stall in silence: after a broker came back, after days, after a rebalance (FINDINGS). Being
up means nothing then; only offsets that move do.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from typing import Protocol

import faust
from aiokafka.errors import KafkaError
from faust.types import TP

from schemas.topics import LOG
from streams.consumer.gap_filler import GapFiller
from streams.consumer.group_offsets import GroupOffsets
from streams.runtime.lag import LagTracker

__all__ = ["ConsumerStalled", "MonitoredConsumer", "watch_progress"]

log = logging.getLogger(__name__)

_INTERVAL = 1.0
_PATIENCE = 30.0  # seconds without an answer; a new leader may take half of it
_REBALANCE_PATIENCE = 60.0  # seconds; a rebalance takes what its slowest member takes
# Nothing moved for so long though there is more and the broker answers: longer than a write may take, or than reading a
# missing range may be without any progress (streams.kafka.producer), which both end the worker by themselves.
_STUCK = 60.0  # seconds
_STRIKES = 5  # looks at which all had to be read again, while nothing was delivered


class ConsumerStalled(Exception):
    """The broker does not answer, or the consumer delivers nothing though there is something."""


class MonitoredConsumer(Protocol):
    """What works on the partitions. `done`: the offset after what is durable, of those that are loaded; `worked`: the
    broker's time of the last record before that, seconds; `held`: those that are left alone on purpose."""

    @property
    def done(self) -> Mapping[TP, int]: ...

    @property
    def worked(self) -> Mapping[TP, float]: ...

    @property
    def held(self) -> Collection[TP]: ...

    def idle(self, tp: TP) -> bool:
        """Whether nothing of the partition waits or is being worked on."""

    def read_again(self, tp: TP, upto: int) -> None:
        """Work on what lies before `upto`, whether it was delivered or not."""


async def watch_progress(
    app: faust.App, group: GroupOffsets, continuity: GapFiller, consumed: MonitoredConsumer, progress: LagTracker
) -> None:
    """Runs until it raises: ConsumerStalled, or LogTruncated."""
    settled = answered = time.monotonic()
    delivered, reread, strikes = 0, 0, 0
    while True:
        await asyncio.sleep(_INTERVAL)
        if app.rebalancing:
            if time.monotonic() - settled > _REBALANCE_PATIENCE:
                raise ConsumerStalled(f"{app.conf.id} has been rebalancing for {_REBALANCE_PATIENCE:.0f} s")
            progress.resting(time.monotonic())
            continue
        settled = time.monotonic()
        before, done = dict(continuity.next), dict(consumed.done)
        try:
            ends = await group.ends(before or [TP(LOG, 0)])
        except (TimeoutError, KafkaError) as error:
            if time.monotonic() - answered > _PATIENCE:
                raise ConsumerStalled(f"the broker has not answered for {_PATIENCE:.0f} s: {error!r}") from error
            continue
        answered = time.monotonic()
        _look(progress, {tp: at for tp, at in done.items() if tp in before}, ends, consumed)
        stalled = {tp: end for tp, end in continuity.stalled(before, ends).items() if consumed.idle(tp)}
        for tp, end in stalled.items():
            # Markers of transactions, and what was aborted, are never delivered: reading again finds nothing then.
            log.debug("%s/%d: nothing was delivered after offset %d, it ends at %d", *tp, before[tp] - 1, end)
            consumed.read_again(tp, end)
        if continuity.delivered != delivered:
            strikes = 0
        elif continuity.reread != reread:
            strikes += 1
        delivered, reread = continuity.delivered, continuity.reread
        if strikes >= _STRIKES:
            raise ConsumerStalled(f"the consumer of {app.conf.id} delivers nothing")


def _look(progress: LagTracker, done: Mapping[TP, int], ends: Mapping[TP, int], consumed: MonitoredConsumer) -> None:
    progress.look(time.monotonic(), time.time(), done, ends, consumed.worked, consumed.held)
    seconds, where = progress.standing()
    if seconds > _STUCK:
        raise ConsumerStalled(f"{where}, for {seconds:.0f} s")
