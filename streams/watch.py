"""Liveness by offsets: asks the broker every moment where partitions end, and compares that with what was worked on.

Faust's consumer is known to stall in silence: after a broker came back, after days, after a rebalance (FINDINGS). Being
up means nothing then; only offsets that move do.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Protocol

import faust
from aiokafka.errors import KafkaError
from faust.types import TP

from schemas.topics import LOG
from streams import metrics
from streams.continuity import Continuity
from streams.group import Group

__all__ = ["Stalled", "watch"]

log = logging.getLogger(__name__)

_INTERVAL = 1.0
_PATIENCE = 20.0  # seconds without an answer
_REBALANCE_PATIENCE = 60.0  # seconds; a rebalance takes what its slowest member takes
_STRIKES = 5  # looks in a row at which all had to be read again because nothing was delivered


class Stalled(Exception):
    """The broker does not answer, or the consumer delivers nothing though there is something."""


class Consumed(Protocol):
    """What works on the partitions."""

    def idle(self, tp: TP) -> bool:
        """Whether nothing of the partition waits or is being worked on."""

    def read_again(self, tp: TP, upto: int) -> None:
        """Work on what lies before `upto`, whether it was delivered or not."""


async def watch(app: faust.App, group: Group, continuity: Continuity, consumed: Consumed) -> None:
    """Runs until it raises: Stalled, or LogFellBack."""
    settled = answered = time.monotonic()
    delivered, strikes = 0, 0
    while True:
        await asyncio.sleep(_INTERVAL)
        if app.rebalancing:
            if time.monotonic() - settled > _REBALANCE_PATIENCE:
                raise Stalled(f"{app.conf.id} has been rebalancing for {_REBALANCE_PATIENCE:.0f} s")
            continue
        settled = time.monotonic()
        before = dict(continuity.next)
        try:
            ends = await group.ends(before or [TP(LOG, 0)])
        except (TimeoutError, KafkaError) as error:
            if time.monotonic() - answered > _PATIENCE:
                raise Stalled(f"the broker has not answered for {_PATIENCE:.0f} s: {error!r}") from error
            continue
        answered = time.monotonic()
        for tp, at in before.items():
            metrics.LAG.labels(*tp).set(max(0, ends[tp] - at))
        stalled = {tp: end for tp, end in continuity.stalled(before, ends).items() if consumed.idle(tp)}
        for tp, end in stalled.items():
            log.warning("%s/%d: nothing was delivered after offset %d, it ends at %d", *tp, before[tp] - 1, end)
            consumed.read_again(tp, end)
        strikes = strikes + 1 if stalled and continuity.delivered == delivered else 0
        delivered = continuity.delivered
        if strikes >= _STRIKES:
            raise Stalled(f"the consumer of {app.conf.id} delivers nothing")
