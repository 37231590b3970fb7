"""Wires the history and runs it (`attn history`)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from schemas.deadletters import DeadLetter
from schemas.settings import Settings
from streams import health, kafka, topics
from streams.history import client, metrics, migrate
from streams.history.background import Background
from streams.history.backoff import Backoff
from streams.history.client import Unavailable
from streams.history.consumer import Bury, Consumer
from streams.history.store import Store
from streams.pacing import PacedConsumer

__all__ = ["GROUP", "run"]

log = logging.getLogger("attn.history")

GROUP = "attn-history"

_CLOSE = 1.0  # seconds for each part to close; a clean stop takes less than 5 in all


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Until `stop`. Raises TopicError when no broker answers at start, MigrationError for tables of another attn."""
    state: list[Consumer] = []
    async with health.serve(settings.metrics_port, lambda: bool(state) and state[0].ready):
        await topics.ensure(settings)
        background = Background("clickhouse")
        async with _store(settings, background, stop) as store, _consumer(settings) as reader, _bury(settings) as bury:
            if store is None:
                return
            state.append(Consumer(settings, reader, store, background, bury))
            await state[0].run(stop)


@contextlib.asynccontextmanager
async def _store(settings: Settings, background: Background, stop: asyncio.Event) -> AsyncIterator[Store | None]:
    """ClickHouse with its tables, as soon as it is there. None: stopped before."""
    store = None
    backoff = Backoff()
    while store is None and not stop.is_set():
        try:
            store = await background(_open, settings)
        except Unavailable as unavailable:
            metrics.UP.set(0)
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


def _open(settings: Settings) -> Store:
    found = client.connect(settings)
    database = client.database_of(settings)
    try:
        with client.translated():
            migrate.apply(found, database)
    except BaseException:
        found.close()
        raise
    return Store(found, database, local=not settings.clickhouse)


@contextlib.asynccontextmanager
async def _consumer(settings: Settings) -> AsyncIterator[AIOKafkaConsumer]:
    reader = PacedConsumer(
        rest=settings.poll_rest, bootstrap_servers=settings.kafka, group_id=GROUP,
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
    async with contextlib.AsyncExitStack() as stack:
        started: list[AIOKafkaProducer] = []

        async def bury(letters: Iterable[DeadLetter]) -> None:
            if not started:
                out = kafka.producer(settings, "history")
                await stack.enter_async_context(out)
                started.append(out)
            await kafka.bury(started[0], letters)

        yield bury
