"""Throttles idle fetch requests on brokers that ignore `fetch_max_wait_ms`.

Kafka answers an empty fetch after `fetch_max_wait_ms`. The embedded broker (noida-db 0.2.3) answers immediately, so an
idle aiokafka consumer sends 3,500 requests per second, which costs a third of a core here and as much in the broker.
After an empty response that came early, the consumer waits 10 % of the time since the last record, at most 20 ms: a
record that closely follows another is not delayed. No effect on a broker that honours `fetch_max_wait_ms`.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import wraps
from typing import Any
from weakref import WeakKeyDictionary

from aiokafka.consumer.fetcher import Fetcher
from prometheus_client import Counter

__all__ = ["install_throttle"]

_IDLE_RATIO = 0.1  # wait as a share of the time since the last record
_MAX_WAIT = 0.02  # seconds
_EARLY_RATIO = 0.5  # a response is early before this share of fetch_max_wait_ms

_FETCHES = Counter("attn_kafka_fetches_total", "Fetch requests to Kafka", ["outcome"])
_WITH_RECORDS, _EMPTY = _FETCHES.labels("records"), _FETCHES.labels("empty")

_installed = False


def install_throttle() -> None:
    """Replaces aiokafka's fetch for all consumers of this process; idempotent."""
    global _installed
    if _installed:
        return
    _installed = True
    fetch = Fetcher._proc_fetch_request  # aiokafka has no setting and no hook for this
    last_record_at: WeakKeyDictionary[Fetcher, float] = WeakKeyDictionary()

    @wraps(fetch)
    async def throttled_fetch(self: Fetcher, assignment: Any, node_id: int, request: Any) -> bool:
        began = time.monotonic()
        try:
            has_records = bool(await fetch(self, assignment, node_id, request))
        except asyncio.CancelledError:
            return False  # raised while it waits for an unreachable broker; `Fetcher.close` would fail with it
        now = time.monotonic()
        (_WITH_RECORDS if has_records else _EMPTY).inc()
        if has_records:
            last_record_at[self] = now
        elif now - began < request._max_wait_ms / 1000 * _EARLY_RATIO:
            with suppress(asyncio.CancelledError):  # `Fetcher.close` cancels this task and awaits it
                await asyncio.sleep(min(_MAX_WAIT, (now - last_record_at.setdefault(self, began)) * _IDLE_RATIO))
        return has_records

    Fetcher._proc_fetch_request = throttled_fetch
