"""Watches the progress of a Faust consumer: compares its positions with the end offsets of the broker every second.

Faust's consumer can stall without an error: after a broker restart, after a rebalance, after days. Only
offsets that move show that it is alive. The watchdog first has missing records read again; if that does not help, it
raises and the worker stops.
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
_ANSWER_LIMIT = 30.0  # seconds without an answer of the broker; the election of a new leader may take half of it
_REBALANCE_LIMIT = 60.0  # seconds; a rebalance takes as long as its slowest member
# Seconds without progress while the broker answers and has more records. Longer than the time limits of a write and of
# reading a missing range (30 s each, streams.kafka), which stop the worker by themselves.
_STALL_LIMIT = 60.0
_MAX_REREAD_ROUNDS = 5  # checks in a row in which records were read again and Faust delivered nothing


class MonitoredConsumer(Protocol):
    """Processes the records of the assigned partitions."""

    @property
    def committable_offsets(self) -> Mapping[TP, int]:
        """For each loaded partition the offset after the last record whose results are durable."""

    @property
    def processed_at(self) -> Mapping[TP, float]:
        """The broker's timestamp of the last record before the committable offset, in seconds."""

    @property
    def paused(self) -> Collection[TP]:
        """Partitions that are not processed on purpose: the circuit of their topic is open."""

    def idle(self, tp: TP) -> bool:
        """Whether no record of the partition is queued or being processed."""

    def reread(self, tp: TP, end: int) -> None:
        """Processes the records before offset `end`, whether Faust delivered them or not."""


async def watch_progress(
    app: faust.App, group: GroupOffsets, gaps: GapFiller, consumer: MonitoredConsumer, lag: LagTracker
) -> None:
    """Checks the consumer of `app` every second; does not return.

    Raises ConsumerStalled if the broker does not answer for 30 s, a rebalance takes more than 60 s, a partition with
    more records does not move for 60 s, or Faust delivers nothing in 5 checks in a row. Raises LogTruncated if a
    partition ends before an offset that was read.
    """
    last_stable = last_answer = time.monotonic()
    delivered, reread, reread_rounds = 0, 0, 0
    while True:
        await asyncio.sleep(_INTERVAL)
        if app.rebalancing:
            if time.monotonic() - last_stable > _REBALANCE_LIMIT:
                raise ConsumerStalled(f"{app.conf.id} has been rebalancing for {_REBALANCE_LIMIT:.0f} s")
            lag.suspend(time.monotonic())
            continue
        last_stable = time.monotonic()
        # Both are read before the request: the answer may be later than further deliveries.
        before, committable = dict(gaps.next_offsets), dict(consumer.committable_offsets)
        try:
            ends = await group.end_offsets(before or [TP(LOG, 0)])
        except (TimeoutError, KafkaError) as error:
            if time.monotonic() - last_answer > _ANSWER_LIMIT:
                raise ConsumerStalled(f"the broker has not answered for {_ANSWER_LIMIT:.0f} s: {error!r}") from error
            continue
        last_answer = time.monotonic()
        lag.observe(
            last_answer, time.time(), {tp: offset for tp, offset in committable.items() if tp in before}, ends,
            consumer.processed_at, consumer.paused)
        lag.check_stalled(_STALL_LIMIT)
        stalled = {tp: end for tp, end in gaps.find_stalled(before, ends).items() if consumer.idle(tp)}
        for tp, end in stalled.items():
            # Transaction markers and aborted records are never delivered: reading again then returns no records.
            log.debug("%s/%d: no delivery after offset %d; the partition ends at %d", *tp, before[tp] - 1, end)
            consumer.reread(tp, end)
        if gaps.delivered_chunks != delivered:
            reread_rounds = 0
        elif gaps.reread_records != reread:
            reread_rounds += 1
        delivered, reread = gaps.delivered_chunks, gaps.reread_records
        if reread_rounds >= _MAX_REREAD_ROUNDS:
            raise ConsumerStalled(f"the consumer of {app.conf.id} delivers nothing")

