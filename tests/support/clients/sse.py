"""Reads a live feed over HTTP, as frames (id, event, data)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
from httpx_sse import aconnect_sse
from support.edge.edges import bearer, until


class Client:
    """Reads a feed until `close`. `who`: (user, role[, workspace])."""

    def __init__(self, base: str, path: str = "/org/me/feed", **more: Any) -> None:
        self.frames: list[tuple[int, str, Any]] = []
        self.task = asyncio.create_task(self._read(base + path, **more))

    async def _read(self, url: str, who: Any = ("ann", "OWNER"), **more: Any) -> None:
        headers = {**bearer(*who), **more.pop("headers", {})}
        async with httpx.AsyncClient(timeout=60) as client, aconnect_sse(
            client, "GET", url, headers=headers, **more) as source:
            source.response.raise_for_status()
            async for event in source.aiter_sse():
                self.frames.append((int(event.id), event.event, json.loads(event.data)))

    async def get(self, number: int) -> list[tuple[int, str, Any]]:
        """Waits for `number` frames. Returns all frames so far."""
        await until(lambda: len(self.frames) >= number or self.task.done(),
                    what=lambda: f"for {number} frames, got {[(cursor, event) for cursor, event, _ in self.frames]}")
        if self.task.done():
            await self.task
        return self.frames

    async def ended(self) -> None:
        """Waits at most 30 s until the server has ended the stream."""
        await asyncio.wait_for(self.task, 30)

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
