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
from streams.runtime.lag import ConsumerStalled, LagTracker

__all__ = ["MonitoredConsumer", "watch_progress"]

log = logging.getLogger(__name__)

_INTERVAL = 1.0
_ANSWER_LIMIT = 30.0  # seconds without an answer; a new leader may take half of it
_REBALANCE_LIMIT = 60.0  # seconds; a rebalance takes what its slowest member takes
# Nothing moved for so long though there is more and the broker answers: longer than a write may take, or than reading a
# missing range may be without any progress (streams.kafka.producer), which both end the worker by themselves.
_STALL_LIMIT = 60.0  # seconds
_MAX_REREAD_ROUNDS = 5  # looks at which all had to be read again, while nothing was delivered


class MonitoredConsumer(Protocol):
    """What works on the partitions. `committable_offsets`: the offset after what is durable, of those that are
    loaded; `processed_at`: the
    broker's time of the last record before that, seconds; `paused`: those that are left alone on purpose."""

    @property
    def committable_offsets(self) -> Mapping[TP, int]: ...

    @property
    def processed_at(self) -> Mapping[TP, float]: ...

    @property
    def paused(self) -> Collection[TP]: ...

    def idle(self, tp: TP) -> bool:
        """Whether nothing of the partition waits or is being worked on."""

    def reread(self, tp: TP, upto: int) -> None:
        """Work on what lies before `upto`, whether it was delivered or not."""


async def watch_progress(
    app: faust.App, group: GroupOffsets, gaps: GapFiller, consumer: MonitoredConsumer, lag: LagTracker
) -> None:
    """Runs until it raises: ConsumerStalled, or LogTruncated."""
    settled = answered = time.monotonic()
    delivered, reread, strikes = 0, 0, 0
    while True:
        await asyncio.sleep(_INTERVAL)
        if app.rebalancing:
            if time.monotonic() - settled > _REBALANCE_LIMIT:
                raise ConsumerStalled(f"{app.conf.id} has been rebalancing for {_REBALANCE_LIMIT:.0f} s")
            lag.suspend(time.monotonic())
            continue
        settled = time.monotonic()
        before, done = dict(gaps.next_offsets), dict(consumer.committable_offsets)
        try:
            ends = await group.end_offsets(before or [TP(LOG, 0)])
        except (TimeoutError, KafkaError) as error:
            if time.monotonic() - answered > _ANSWER_LIMIT:
                raise ConsumerStalled(f"the broker has not answered for {_ANSWER_LIMIT:.0f} s: {error!r}") from error
            continue
        answered = time.monotonic()
        lag.observe(
            time.monotonic(), time.time(), {tp: at for tp, at in done.items() if tp in before}, ends,
            consumer.processed_at, consumer.paused)
        lag.check_stalled(_STALL_LIMIT)
        stalled = {tp: end for tp, end in gaps.find_stalled(before, ends).items() if consumer.idle(tp)}
        for tp, end in stalled.items():
            # Markers of transactions, and what was aborted, are never delivered: reading again finds nothing then.
            log.debug("%s/%d: nothing was delivered after offset %d, it ends at %d", *tp, before[tp] - 1, end)
            consumer.reread(tp, end)
        if gaps.delivered_chunks != delivered:
            strikes = 0
        elif gaps.reread_records != reread:
            strikes += 1
        delivered, reread = gaps.delivered_chunks, gaps.reread_records
        if strikes >= _MAX_REREAD_ROUNDS:
            raise ConsumerStalled(f"the consumer of {app.conf.id} delivers nothing")

