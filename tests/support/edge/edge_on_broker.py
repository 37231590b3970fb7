"""Runs an edge in this process on a real broker, as `attn edge` does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
from support.edge.edges import SECRET

from api.main import run
from ops.process.ports import free_port
from schemas.settings import Settings


@contextlib.asynccontextmanager
async def edge(settings: Settings, **more: Any) -> AsyncIterator[str]:
    """Runs an edge until the block ends. Yields its address once it is ready."""
    port = free_port()
    stop = asyncio.Event()
    given = settings.model_dump(include=settings.model_fields_set)
    own = Settings(_env_file=None, **{**given, "port": port, "jwt_secret": SECRET, "heartbeat_seconds": 1e6, **more})
    task = asyncio.create_task(run(own, stop))
    base = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient() as client:
            while not task.done():
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get(base + "/readyz")).status_code == 200:
                        break
                await asyncio.sleep(0.05)
        yield base
    finally:
        stop.set()
        await asyncio.wait_for(task, 30)
