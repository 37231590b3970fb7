"""Keeps an idle consumer quiet on a broker that does not hold fetches back.

Kafka answers an empty fetch after `fetch_max_wait_ms`; the embedded broker (noida-db 0.2.3) answers it at once, and so
an idle aiokafka consumer asks 3,500 times a second: a third of a core, and as much in the broker. So the wait is made
up for here, after an empty answer that came too early: the longer, the longer nothing has come, so that what follows
closely on something is not held up. On a broker that waits by itself this never does anything.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import wraps
from typing import Any
from weakref import WeakKeyDictionary

from aiokafka.consumer.fetcher import Fetcher

__all__ = ["install_throttle"]

_SHARE = 0.1  # of the time since something came
_MOST = 0.02  # seconds
_EARLY = 0.5  # of the time the broker was given

_installed = False


def install_throttle() -> None:
    """For all consumers of this process; again does nothing."""
    global _installed
    if _installed:
        return
    _installed = True
    fetch = Fetcher._proc_fetch_request  # there is no setting and no hook for it
    last: WeakKeyDictionary[Fetcher, float] = WeakKeyDictionary()

    @wraps(fetch)
    async def patient(self: Fetcher, assignment: Any, node_id: int, request: Any) -> bool:
        began = time.monotonic()
        try:
            found = bool(await fetch(self, assignment, node_id, request))
        except asyncio.CancelledError:
            return False  # it lets this one out where it waits for a broker that is away, and `stop` would fail of it
        now = time.monotonic()
        if found:
            last[self] = now
        elif now - began < request._max_wait_ms / 1000 * _EARLY:
            with suppress(asyncio.CancelledError):  # as the fetch itself takes it: the consumer stops and waits for us
                await asyncio.sleep(min(_MOST, (now - last.setdefault(self, began)) * _SHARE))
        return found

    Fetcher._proc_fetch_request = patient
