"""Starts an edge without state on a broker. Measures the time until it is ready, and its response times meanwhile. Part
of `bench edge`."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil
from rich.table import Table

from bench.harness.workload import send
from ops.embedded.broker import EmbeddedBroker
from ops.process.ports import free_port
from schemas.settings import Settings
from schemas.topics import VIEWS
from streams.kafka import topics

__all__ = ["measure"]

_IN_FLIGHT = 20_000
_LOOK = 0.05  # seconds between two requests
_PATIENCE = 900.0


async def measure(
    records: Iterable[tuple[int, bytes, bytes]], partitions: int, kafka: str, scratch: Path
) -> Table:
    """Writes the records to a broker and starts an edge. `kafka`: address of a broker without topics of attn; "":
    an embedded one. Returns a table."""
    async with _broker(kafka, scratch) as address:
        settings = Settings(_env_file=None, kafka=address, log_partitions=partitions)  # type: ignore[call-arg]
        await topics.ensure_topics(settings)
        count = await send(address, VIEWS, records, _IN_FLIGHT, linger_ms=20, max_batch_size=1 << 20)
        table = Table(title=f"start of an edge: {count:,} records on {kafka or 'the embedded broker'}")
        for name in ("seconds until ready", "CPU s", "RSS MB", "/healthz meanwhile: p50 ms", "max ms"):
            table.add_column(name, justify="right")
        table.add_row(*await _start(settings))
        return table


@asynccontextmanager
async def _broker(kafka: str, scratch: Path) -> AsyncIterator[str]:
    if kafka:
        yield kafka
        return
    broker = EmbeddedBroker(scratch / "broker")
    await broker.start()
    try:
        yield broker.bootstrap
    finally:
        await broker.stop()


async def _start(settings: Settings) -> list[str]:
    port = free_port()
    given = {
        "ATTN_KAFKA": settings.kafka, "ATTN_LOG_PARTITIONS": str(settings.log_partitions), "ATTN_PORT": str(port),
        "ATTN_JWT_SECRET": "a secret for the bench, long enough for an HMAC",
        "ATTN_RESUME_HOURS": "0.0001",  # the edge keeps no batches for feeds that resume
    }
    begun = time.monotonic()
    edge = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ops.cli", "edge", env=os.environ | given, stderr=subprocess.DEVNULL)
    process = psutil.Process(edge.pid)
    waits: list[float] = []
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            while time.monotonic() - begun < _PATIENCE and not await _ready(client, waits):
                await asyncio.sleep(_LOOK)
        seconds, used, rss = time.monotonic() - begun, process.cpu_times(), process.memory_info().rss
    finally:
        edge.kill()
        await edge.wait()
    waits.sort()
    return [f"{seconds:.1f}", f"{used.user + used.system:.1f}", f"{rss / 1e6:.0f}",
            f"{waits[len(waits) // 2] * 1e3:.1f}", f"{waits[-1] * 1e3:.0f}"]


async def _ready(client: httpx.AsyncClient, waits: list[float]) -> bool:
    begun = time.perf_counter()
    try:
        (await client.get("/healthz")).raise_for_status()
    except httpx.TransportError:
        return False  # the edge does not listen yet
    waits.append(time.perf_counter() - begun)
    return (await client.get("/readyz")).status_code == 200
