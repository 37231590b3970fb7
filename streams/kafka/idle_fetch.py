"""Throttles idle fetch requests on brokers that ignore `fetch_max_wait_ms`.

Kafka answers an empty fetch after `fetch_max_wait_ms`. The embedded broker (noida-db 0.2.3) answers immediately, so an
idle aiokafka consumer sends 3,500 requests per second, which costs a third of a core here and as much in the broker.
After an empty response that came early, the consumer waits 10 % of the time since the last record, at most 20 ms: a
record that closely follows another is not delayed. In `attn up`, writes of attn wake the consumer (`doorbell`), so it
waits as long as the last record is ago, at least 20 ms and at most 250 ms. Foreign producers ring no bell: on source
topics the wait is 10 % as well, at most 30 ms. After 0.3 s of silence these waits end with a probe of the end offsets
instead of a fetch (`append_probe`); the consumer fetches if one has changed, at the latest after 0.5 s. No effect on a
broker that honours `fetch_max_wait_ms`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from aiokafka.consumer.fetcher import Fetcher
from prometheus_client import Counter

from streams.kafka.append_probe import AppendProbe, end_offsets_request
from streams.kafka.doorbell import SOURCES, Bell, BellDirectory, bell_of

__all__ = ["install_throttle", "rest"]

log = logging.getLogger(__name__)

_IDLE_RATIO = 0.1  # wait as a share of the time since the last record
# Seconds: the longest wait. A foreign producer's record waits half of it on average, so it is short on source topics.
_MAX_WAIT, _MAX_WAIT_SOURCES, _MAX_WAIT_WOKEN = 0.02, 0.03, 0.25
_MIN_WAIT_WOKEN = 0.02
# Seconds: source topics are probed after this silence; the longest time without a fetch. A partition that the consumer
# resumes meanwhile waits for that fetch, so a busy consumer does not probe.
_PROBE_AFTER, _MAX_WAIT_PROBED = 0.3, 0.5
_EARLY_RATIO = 0.5  # a response is early before this share of fetch_max_wait_ms

_FETCHES = Counter("attn_kafka_fetches_total", "Fetch requests to Kafka", ["outcome"])
_WITH_RECORDS, _EMPTY = _FETCHES.labels("records"), _FETCHES.labels("empty")

_installed = False


def rest(silence: float, bells: Collection[str], woken: bool) -> float:
    """Returns the seconds until the next fetch of topics with these bells, `silence` seconds after their last record.
    `woken`: writes of attn end the wait."""
    if woken and SOURCES not in bells:
        return min(_MAX_WAIT_WOKEN, max(_MIN_WAIT_WOKEN, silence))
    return min(_MAX_WAIT_SOURCES if woken else _MAX_WAIT, silence * _IDLE_RATIO)


class _Idle:
    """What one consumer does between two empty fetches."""

    def __init__(self, began: float, bells: Path | None) -> None:
        self.last_record_at = began
        self._bells = bells
        self._bell: Bell | None = None
        self._probe: AppendProbe | None = None

    async def wait(self, now: float, request: Any, address: tuple[str, int] | None) -> None:
        """Waits until the next fetch. `address`: host and port of the broker, None if the metadata lack it."""
        names = {bell_of(topic) for topic, _ in request.topics}
        silence = now - self.last_record_at
        bell = self._listen(names)
        seconds = rest(silence, names, woken=bell is not None)
        if bell is None:
            await asyncio.sleep(seconds)
        elif address is None or SOURCES not in names or silence < _PROBE_AFTER:
            await bell.wait(seconds)
        else:
            await self._wait_for_append(bell, seconds, request, address)

    async def _wait_for_append(self, bell: Bell, seconds: float, request: Any, address: tuple[str, int]) -> None:
        """Returns when a bell rings, when a partition has new records, or after `_MAX_WAIT_PROBED`. Probes every
        `seconds`."""
        until = time.monotonic() + _MAX_WAIT_PROBED
        asked = end_offsets_request((topic, [each[0] for each in of_topic]) for topic, of_topic in request.topics)
        probe = self._probe_of(address)
        while not await bell.wait(seconds) and time.monotonic() < until:
            if probe.has_changed(asked):
                return

    def _probe_of(self, address: tuple[str, int]) -> AppendProbe:
        if self._probe is not None and self._probe.address != address:
            self._probe.close()
            self._probe = None
        if self._probe is None:
            self._probe = AppendProbe(*address)
        return self._probe

    def _listen(self, names: set[str]) -> Bell | None:
        """Returns the bell, which listens to these names; None if there are no bells."""
        if self._bells is None:
            return None
        try:
            if self._bell is None and (listening := BellDirectory.open(self._bells)) is not None:
                self._bell = Bell(listening)
            if self._bell is not None:
                self._bell.listen(names)
                return self._bell
        except OSError as error:
            log.warning("a consumer cannot be woken by writes of other processes: %r", error)
        self.close()
        self._bells = None
        return None

    def close(self) -> None:
        if self._bell is not None:
            self._bell.close()
            self._bell = None
        if self._probe is not None:
            self._probe.close()
            self._probe = None


def install_throttle(bells: Path | None = None) -> None:
    """Replaces aiokafka's fetch for all consumers of this process; idempotent. `bells`: directory of the bells, which
    need not exist (`doorbell.directory`)."""
    global _installed
    if _installed:
        return
    _installed = True
    fetch, close = Fetcher._proc_fetch_request, Fetcher.close  # aiokafka has no setting and no hook for this
    idle: WeakKeyDictionary[Fetcher, _Idle] = WeakKeyDictionary()

    @wraps(fetch)
    async def throttled_fetch(self: Fetcher, assignment: Any, node_id: int, request: Any) -> bool:
        began = time.monotonic()
        try:
            has_records = bool(await fetch(self, assignment, node_id, request))
        except asyncio.CancelledError:
            return False  # raised while it waits for an unreachable broker; `Fetcher.close` would fail with it
        now = time.monotonic()
        (_WITH_RECORDS if has_records else _EMPTY).inc()
        if (state := idle.get(self)) is None:
            state = idle[self] = _Idle(began, bells)
        if has_records:
            state.last_record_at = now
            for waiter in self._fetch_waiters:  # aiokafka wakes them two steps of the event loop later
                self._notify(waiter)
        elif now - began < request._max_wait_ms / 1000 * _EARLY_RATIO:
            with suppress(asyncio.CancelledError):  # `Fetcher.close` cancels this task and awaits it
                broker = self._client.cluster.broker_metadata(node_id)  # None: it is down
                await state.wait(now, request, None if broker is None else (broker.host, broker.port))
        return has_records

    @wraps(close)
    async def close_bell(self: Fetcher) -> None:
        try:
            await close(self)
        finally:
            if (state := idle.pop(self, None)) is not None:
                state.close()

    Fetcher._proc_fetch_request, Fetcher.close = throttled_fetch, close_bell
