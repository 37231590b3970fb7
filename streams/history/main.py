"""Process `attn history`: connects to ClickHouse, migrates its tables, and runs the consumer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from schemas.dead_letters import DeadLetter
from schemas.settings import Settings
from streams.history import metrics
from streams.history.clickhouse import client, migrate, retention
from streams.history.clickhouse.client import ClickHouseUnavailable
from streams.history.clickhouse.repository import ActivityRepository
from streams.history.consumer import Consumer
from streams.history.embedded import library_pages, query_server
from streams.history.insert_pipeline import SendDeadLetters
from streams.history.rebuild.group_lock import GROUP
from streams.kafka import dead_letters, doorbell, idle_fetch, producer, topics
from streams.kafka.connection import client_arguments, close_client
from streams.runtime import health
from streams.runtime.backoff import Backoff
from streams.runtime.worker_thread import WorkerThread

__all__ = ["run"]

log = logging.getLogger("attn.history")

# Seconds.
_PORT_RETRY = 5.0  # until the next attempt to listen on a port that is taken
_START_OVER = 10.0  # until the engine has been used by the first recovery
_CLOSE_TIMEOUT = 1.0  # of each client; a clean stop takes less than 5 in all


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Runs the history until `stop` is set. Raises TopicError if no broker answers at start or the topics do not match
    the settings. Raises MigrationError if the tables are of another version of attn."""
    idle_fetch.install_throttle(doorbell.directory(settings))
    startup = _Startup()
    async with health.serve(settings.metrics_port, startup.not_ready_reason, settings.host):
        if not await topics.ensure_topics_or_stop(settings, stop):
            return
        in_thread = WorkerThread("clickhouse")
        async with (
            _repository(settings, in_thread, stop, startup) as repository, _kafka_consumer(settings) as kafka,
            _dead_letter_sender(settings) as send_dead_letters,
        ):
            if repository is None:
                return
            startup.consumer = Consumer(settings, kafka, repository, in_thread, send_dead_letters)
            answering = asyncio.create_task(_serve_queries(settings))
            releasing = asyncio.create_task(_release_pages(settings))
            try:
                await startup.consumer.run(stop)
            finally:
                answering.cancel()
                releasing.cancel()
                await asyncio.wait({answering, releasing})


@dataclass
class _Startup:
    """Readiness before and after the consumer exists."""

    consumer: Consumer | None = None
    problem: str = "starting"  # why the tables could not be opened, of the last attempt

    def not_ready_reason(self) -> str | None:
        return self.consumer.not_ready_reason() if self.consumer is not None else self.problem


@contextlib.asynccontextmanager
async def _repository(
    settings: Settings, in_thread: WorkerThread, stop: asyncio.Event, startup: _Startup
) -> AsyncIterator[ActivityRepository | None]:
    """Opens ClickHouse and its tables, and retries while ClickHouse is unavailable. Yields None if `stop` is set
    first."""
    repository = None
    backoff = Backoff()
    while repository is None and not stop.is_set():
        try:
            repository = await in_thread(_open, settings)
        except ClickHouseUnavailable as unavailable:
            metrics.UP.set(0)
            startup.problem = f"waiting: ClickHouse: {unavailable}"
            if backoff.tries % 8 == 0:
                log.warning("waiting: ClickHouse: %s", unavailable)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff.next()):
                    await stop.wait()
    try:
        yield repository
    finally:
        if repository is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(in_thread(repository.close), _CLOSE_TIMEOUT)
        in_thread.stop()


async def _serve_queries(settings: Settings) -> None:
    """Serves queries on embedded ClickHouse until cancelled. Retries every 5 s while the port is taken: the consumer
    does not depend on it."""
    if settings.clickhouse or not settings.clickhouse_port:
        return
    while True:
        try:
            with query_server.serve(settings, client.directory(settings)) as port:
                log.info("embedded ClickHouse listens on 127.0.0.1:%d", port)
                await asyncio.Event().wait()
        except OSError as error:
            log.error(
                "embedded ClickHouse can't listen on port %d: %s; next attempt in %g s",
                settings.clickhouse_port, error.strerror or error, _PORT_RETRY)
        await asyncio.sleep(_PORT_RETRY)


async def _release_pages(settings: Settings) -> None:
    """Releases pages of embedded ClickHouse once its start is over."""
    if settings.clickhouse:
        return
    await asyncio.sleep(_START_OVER)
    released = await asyncio.to_thread(library_pages.release)
    log.debug("released unused pages in %d MB of chdb's library", released >> 20)


def _open(settings: Settings) -> ActivityRepository:
    """Connects and prepares the tables. Raises MigrationError, ClickHouseUnavailable."""
    connected = client.connect(settings)
    try:
        with client.translate_errors():
            _prepare(settings, connected)
    except BaseException:
        connected.close()
        raise
    local, expires = not settings.clickhouse, settings.history_days > 0
    return ActivityRepository(connected, settings.clickhouse_database, local, expires)


def _prepare(settings: Settings, connected: Any) -> None:
    """Applies migrations and table TTLs. With ATTN_CLICKHOUSE_MIGRATE=false on a server it only checks: raises
    ClickHouseUnavailable while migrations are pending. Raises MigrationError."""
    database = settings.clickhouse_database
    todo = [file.name for file in migrate.pending(connected, database)]
    if not settings.clickhouse_migrate and settings.clickhouse:
        if todo:
            raise ClickHouseUnavailable(
                f"{', '.join(todo)} of database {database} must be applied first: run `attn migrate`")
        return
    if todo and settings.clickhouse:
        with contextlib.closing(client.connect(settings, client.MIGRATION_SECONDS)) as slow_client:
            migrate.apply(slow_client, database, settings.clickhouse_cluster)
    elif todo:
        migrate.apply(connected, database)
    for statement in retention.retention_statements(connected, database, settings):
        log.info("applying: %s", statement)
        connected.command(statement)


@contextlib.asynccontextmanager
async def _kafka_consumer(settings: Settings) -> AsyncIterator[AIOKafkaConsumer]:
    reader = AIOKafkaConsumer(
        **client_arguments(settings), group_id=GROUP,
        client_id=f"attn-history-{settings.instance}",
        # Static membership: a restarted process rejoins at once as the same member, without a rebalance.
        group_instance_id=f"history-{settings.instance}", session_timeout_ms=10_000, heartbeat_interval_ms=2_000,
        rebalance_timeout_ms=20_000,
        # During an outage of ClickHouse the consumer does not poll. Its heartbeats keep it in the group.
        max_poll_interval_ms=2**31 - 1,
        enable_auto_commit=False, auto_offset_reset="earliest", max_partition_fetch_bytes=1 << 20,
        fetch_max_wait_ms=500,
    )
    await reader.start()
    try:
        yield reader
    finally:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reader.stop(), _CLOSE_TIMEOUT)


@contextlib.asynccontextmanager
async def _dead_letter_sender(settings: Settings) -> AsyncIterator[SendDeadLetters]:
    """Yields the function that sends dead letters. Its producer starts with the first dead letter."""
    started: list[AIOKafkaProducer] = []

    async def send(letters: Collection[DeadLetter]) -> None:
        if not started:
            out = producer.idempotent_producer(settings, "history")
            try:
                await out.start()
            except BaseException:
                await close_client(out)
                raise
            started.append(out)
        await dead_letters.send_dead_letters(started[0], letters)

    try:
        yield send
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                for out in started:
                    await close_client(out)
