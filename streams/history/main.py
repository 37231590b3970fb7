"""Wires the history and runs it (`attn history`)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Collection
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from schemas.dead_letters import DeadLetter
from schemas.settings import Settings
from streams.history import metrics
from streams.history.clickhouse import client, migrate, retention
from streams.history.clickhouse.client import ClickHouseUnavailable
from streams.history.clickhouse.repository import ActivityRepository
from streams.history.consumer import Bury, Consumer
from streams.history.embedded import query_server
from streams.history.rebuild.group_lock import GROUP
from streams.kafka import dead_letters, idle_fetch, producer, topics
from streams.kafka.connection import client_arguments, close_client
from streams.runtime import health
from streams.runtime.backoff import Backoff
from streams.runtime.worker_thread import WorkerThread

__all__ = ["run"]

log = logging.getLogger("attn.history")

_TAKEN = 5.0  # seconds until a port that is taken is tried again
_CLOSE = 1.0  # seconds for each part to close; a clean stop takes less than 5 in all


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Until `stop`. Raises TopicError when no broker answers at start, MigrationError for tables of another attn."""
    idle_fetch.install_throttle()
    state: list[Consumer] = []
    away: list[str] = []  # why the tables could not be opened, the last time
    async with health.serve(settings.metrics_port, lambda: _unready(state, away), settings.host):
        if not await topics.ensure_topics_or_stop(settings, stop):
            return
        background = WorkerThread("clickhouse")
        async with (
            _store(settings, background, stop, away) as store, _consumer(settings) as reader, _bury(settings) as bury,
        ):
            if store is None:
                return
            state.append(Consumer(settings, reader, store, background, bury))
            answering = asyncio.create_task(_answer(settings))
            try:
                await state[0].run(stop)
            finally:
                answering.cancel()
                await asyncio.wait({answering})


def _unready(state: list[Consumer], away: list[str]) -> str | None:
    return state[0].unready() if state else next(iter(away), "starting")


@contextlib.asynccontextmanager
async def _store(
    settings: Settings, background: WorkerThread, stop: asyncio.Event, away: list[str]
) -> AsyncIterator[ActivityRepository | None]:
    """ClickHouse with its tables, as soon as it is there. None: stopped before."""
    store = None
    backoff = Backoff()
    while store is None and not stop.is_set():
        try:
            store = await background(_open, settings)
        except ClickHouseUnavailable as unavailable:
            metrics.UP.set(0)
            away[:] = [f"waiting: ClickHouse: {unavailable}"]
            if backoff.tries % 8 == 0:
                log.warning("waiting: ClickHouse: %s", unavailable)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), backoff.next())
    try:
        yield store
    finally:
        if store is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(background(store.close), _CLOSE)
        background.stop()


async def _answer(settings: Settings) -> None:
    """Embedded ClickHouse answers queries, until cancelled. The writer does not depend on it."""
    if settings.clickhouse or not settings.clickhouse_port:
        return
    while True:
        try:
            with query_server.serve(settings, client.directory(settings)) as port:
                log.info("ClickHouse answers on 127.0.0.1:%d", port)
                await asyncio.Event().wait()
        except OSError as error:
            log.error("ClickHouse can't be asked: port %d: %s", settings.clickhouse_port, error.strerror or error)
        await asyncio.sleep(_TAKEN)


def _open(settings: Settings) -> ActivityRepository:
    found = client.connect(settings)
    try:
        with client.translate_errors():
            _prepare(settings, found)
    except BaseException:
        found.close()
        raise
    local, expires = not settings.clickhouse, settings.history_days > 0
    return ActivityRepository(found, client.database_of(settings), local, expires)


def _prepare(settings: Settings, found: Any) -> None:
    """Tables as this attn and its settings want them. MigrationError; Unavailable: that is left to `attn migrate`."""
    database = client.database_of(settings)
    todo = [file.name for file in migrate.pending(found, database)]
    if not settings.clickhouse_migrate and settings.clickhouse:
        if todo:
            raise ClickHouseUnavailable(f"{', '.join(todo)} of database {database} must be applied first: attn migrate")
        return
    if todo and settings.clickhouse:
        with contextlib.closing(client.connect(settings, client.MIGRATION_SECONDS)) as patient:
            migrate.apply(patient, database, settings.clickhouse_cluster)
    elif todo:
        migrate.apply(found, database)
    for statement in retention.retention_statements(found, database, settings):
        log.info("applying: %s", statement)
        found.command(statement)


@contextlib.asynccontextmanager
async def _consumer(settings: Settings) -> AsyncIterator[AIOKafkaConsumer]:
    reader = AIOKafkaConsumer(
        **client_arguments(settings), group_id=GROUP,
        client_id=f"attn-history-{settings.instance}",
        # Static: a killed process is back at once as the same member, and a restart moves no partitions.
        group_instance_id=f"history-{settings.instance}", session_timeout_ms=10_000, heartbeat_interval_ms=2_000,
        rebalance_timeout_ms=20_000,
        # An outage of ClickHouse may last: who does not poll meanwhile is still alive, its heartbeats say so.
        max_poll_interval_ms=2**31 - 1,
        enable_auto_commit=False, auto_offset_reset="earliest", max_partition_fetch_bytes=1 << 20,
        fetch_max_wait_ms=100,
    )
    await reader.start()
    try:
        yield reader
    finally:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reader.stop(), _CLOSE)


@contextlib.asynccontextmanager
async def _bury(settings: Settings) -> AsyncIterator[Bury]:
    """Writes dead letters. Its producer starts with the first one."""
    started: list[AIOKafkaProducer] = []

    async def bury(letters: Collection[DeadLetter]) -> None:
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
        yield bury
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE):
                for out in started:
                    await close_client(out)
