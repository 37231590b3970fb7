"""Process `attn deliver`: reads decisions, posts them to endpoints, and appends what became of them to the log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from schemas.settings import Settings
from schemas.topics import DECISIONS
from streams.delivery import metrics
from streams.delivery.backlog import Backlog
from streams.delivery.consumer import DecisionConsumer, load_body
from streams.delivery.dispatcher import Dispatcher
from streams.delivery.endpoints import EndpointsFile
from streams.delivery.http.client import HttpClient
from streams.delivery.reporter import Reporter
from streams.delivery.signing import public_keys
from streams.kafka import doorbell, idle_fetch, topics
from streams.kafka.connection import client_arguments
from streams.runtime import health
from streams.runtime.lag import LagTracker
from streams.tracing import hooks

__all__ = ["GROUP", "group_of", "run"]

log = logging.getLogger("attn.deliver")

GROUP = "attn-deliver"
_MAX_BODY_BYTES = 64 << 20  # of all bodies that are kept in memory
_INTERVAL = 1.0  # seconds between two observations
_REQUEST_TIMEOUT = 10.0
_MAX_STALL = 90.0
_CLOSE_TIMEOUT = 1.0


def group_of(settings: Settings) -> str:
    """Returns the consumer group. A broker that lost records (ATTN_INCARNATION) may have reused offsets, so the group
    begins anew; outcomes in the topic keep it from posting again what was delivered."""
    return f"{GROUP}-{settings.incarnation}" if settings.incarnation else GROUP


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Delivers until `stop` is set. Raises EndpointsError if the file of endpoints is invalid at start, and TopicError
    if no broker answers or the topics do not match the settings."""
    hooks.start(settings, "deliver")
    idle_fetch.install_throttle(doorbell.directory(settings))
    endpoints = EndpointsFile(settings.endpoints)
    for endpoint in endpoints.current().values():
        log.info("endpoint %s: host %s, %d HMAC secrets, ed25519 keys %s", endpoint.name, endpoint.host,
                 len(endpoint.hmac_keys), ", ".join(public_keys(endpoint)) or "none")
    process = _Process(settings, endpoints)
    async with health.serve(settings.metrics_port, process.not_ready_reason, settings.host):
        if not await topics.ensure_topics_or_stop(settings, stop):
            return
        async with _kafka_consumer(settings) as kafka:
            await process.run(kafka, stop)
    hooks.stop()


class _Process:
    """The parts of the process, its readiness and its metrics."""

    def __init__(self, settings: Settings, endpoints: EndpointsFile) -> None:
        self._settings = settings
        self._endpoints = endpoints
        self._backlog = Backlog(settings.delivery_max_waiting, _MAX_BODY_BYTES)
        self._tracker = LagTracker(settings, time.monotonic())
        self._reporter = Reporter(settings)
        self._consumer: DecisionConsumer | None = None

    def not_ready_reason(self) -> str | None:
        """Returns why the process is not ready: it starts, Kafka does not answer, or it is behind. An endpoint that is
        down is no reason."""
        if self._consumer is None or not self._consumer.assignments:
            return "starting: waiting for partitions from the consumer group"
        if self._reporter.problem is not None:
            return f"waiting: {self._reporter.problem}"
        if self._consumer.is_catching_up:
            return f"starting: reading {DECISIONS}"
        return self._tracker.not_ready_reason(time.monotonic(), time.time())

    async def run(self, kafka: AIOKafkaConsumer, stop: asyncio.Event) -> None:
        dispatcher = Dispatcher(
            self._settings, self._backlog, self._endpoints, HttpClient(), self._reporter,
            partial(load_body, self._settings))
        self._consumer = DecisionConsumer(self._settings, kafka, self._backlog, dispatcher, self._endpoints)
        reading = asyncio.create_task(self._consumer.run(stop))
        work = [
            asyncio.create_task(task) for task in
            (self._reporter.run(), dispatcher.run(), dispatcher.gate.run(), self._observe(kafka))
        ]
        try:
            await asyncio.wait([reading, *work], return_when=asyncio.FIRST_COMPLETED)
            for task in (reading, *work):
                if task.done():
                    task.result()
        finally:
            for task in (reading, *work):
                task.cancel()
            await asyncio.gather(reading, *work, return_exceptions=True)

    async def _observe(self, kafka: AIOKafkaConsumer) -> None:
        """Updates lag and metrics every second, until cancelled. Raises ConsumerStalled if the consumer does not
        advance for 90 s although the backlog has room."""
        while True:
            await asyncio.sleep(_INTERVAL)
            self._endpoints.current()
            metrics.ENDPOINTS_INVALID.set(self._endpoints.problem is not None)
            self._measure()
            done = {
                TopicPartition(DECISIONS, number): state.read_to
                for number, state in self._backlog.partitions.items()
            }
            try:
                async with asyncio.timeout(_REQUEST_TIMEOUT):
                    ends = await kafka.end_offsets(list(done) or [TopicPartition(DECISIONS, 0)])
            except (TimeoutError, KafkaError):
                continue
            paused = done if self._backlog.is_full else ()
            self._tracker.observe(time.monotonic(), time.time(), done, ends, paused=paused)
            self._tracker.check_stalled(_MAX_STALL)

    def _measure(self) -> None:
        now = time.time()
        waiting: Counter[str] = Counter()
        oldest: dict[str, float] = {}
        for entry in self._backlog:
            waiting[entry.queue] += 1
            oldest[entry.queue] = max(oldest.get(entry.queue, 0.0), now - max(entry.recorded_at, entry.held))
        for name in {*self._endpoints.current(), *waiting, ""}:
            label = name or metrics.UNKNOWN_ENDPOINT
            metrics.start_counters(label)
            metrics.WAITING.labels(label).set(waiting[name])
            metrics.OLDEST_SECONDS.labels(label).set(max(0.0, oldest.get(name, 0.0)))


@contextlib.asynccontextmanager
async def _kafka_consumer(settings: Settings) -> AsyncIterator[AIOKafkaConsumer]:
    reader = AIOKafkaConsumer(
        **client_arguments(settings), group_id=group_of(settings), client_id=f"attn-deliver-{settings.instance}",
        # Static membership: a restarted process rejoins at once as the same member, without a rebalance.
        group_instance_id=f"deliver-{settings.instance}", session_timeout_ms=10_000, heartbeat_interval_ms=2_000,
        rebalance_timeout_ms=20_000,
        # While the backlog is full the consumer does not poll. Its heartbeats keep it in the group.
        max_poll_interval_ms=2**31 - 1,
        enable_auto_commit=False, auto_offset_reset="earliest", max_partition_fetch_bytes=1 << 20,
        fetch_max_wait_ms=100, isolation_level="read_committed",
    )
    await reader.start()
    try:
        yield reader
    finally:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reader.stop(), _CLOSE_TIMEOUT)
