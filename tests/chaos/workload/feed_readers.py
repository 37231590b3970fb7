"""Readers of live feeds that reconnect without limit: they resume at another edge and keep their copy (law 4)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import httpx
from httpx_sse import SSEError, aconnect_sse
from support.clients.feed import Copy
from support.model import Reader

from chaos.environment.edge_client import EdgeClient

__all__ = ["Follower"]

# An edge sends a heartbeat each second (ATTN_HEARTBEAT_SECONDS=1). After this silence the reader reconnects.
_SILENT = 4.0
_CONNECT = 2.0
_PAUSE = (0.1, 1.0)  # seconds before the next attempt, exponential with jitter
_KEPT = 50  # last frames that explain a difference


class Follower:
    """One reader's feed over all edges. `seen`: times of frames (monotonic seconds), including heartbeats and the
    frames of a resume or snapshot."""

    def __init__(self, edge: EdgeClient, urls: Sequence[str], ws: str, reader: Reader, limit: int, first: int) -> None:
        self.ws, self.reader, self.limit = ws, reader, limit
        self.copy = Copy()
        self.seen: list[float] = []
        self.connects = self.snapshots = self.frames = self.refused = 0
        self.wrong: str | None = None  # the frame that does not apply
        self._asker, self._urls, self._at = edge, urls, first
        self._recent: deque[Any] = deque(maxlen=_KEPT)
        self._random = random.Random(first)

    @property
    def name(self) -> str:
        return f"{self.ws} {self.reader.user}/{self.reader.role} limit {self.limit}"

    async def run(self) -> None:
        """Follows until it is cancelled; ends only if a frame does not apply to the copy."""
        timeout = httpx.Timeout(_CONNECT, read=_SILENT)
        async with httpx.AsyncClient(timeout=timeout, trust_env=False) as client:
            tries = 0
            while self.wrong is None:
                before = self.frames
                with contextlib.suppress(httpx.HTTPError, httpx.StreamError, SSEError):
                    await self._follow(client)
                tries = 0 if self.frames > before else tries + 1
                self._at += 1
                await asyncio.sleep(min(_PAUSE[0] * 2**min(tries, 9), _PAUSE[1]) * self._random.uniform(0.5, 1.0))

    async def _follow(self, client: httpx.AsyncClient) -> None:
        url = self._urls[self._at % len(self._urls)]
        headers = self._asker.headers(self.ws, self.reader)
        if self.copy.cursor >= 0:
            headers["Last-Event-ID"] = str(self.copy.cursor)
        async with aconnect_sse(
            client, "GET", f"{url}/org/me/feed", params={"limit": self.limit}, headers=headers
        ) as source:
            if source.response.status_code != 200:
                self.refused += 1
                return
            self.connects += 1
            self._recent.append(("connected to", url, headers.get("Last-Event-ID")))
            async for event in source.aiter_sse():
                self._apply((int(event.id), event.event, json.loads(event.data)))

    def _apply(self, frame: tuple[int, str, Any]) -> None:
        self.frames += 1
        event = frame[1]
        if event != "heartbeat":
            self._recent.append(frame)
        self.snapshots += event == "snapshot"
        if event in ("added", "changed", "removed", "snapshot"):
            self.seen.append(time.monotonic())
        try:
            self.copy.apply(frame)
        except (AssertionError, KeyError) as error:
            self.wrong = f"{self.name}: frame {frame[0]} {event} does not apply to its copy: {error!r}"
            raise httpx.StreamError(self.wrong) from error

    def last_frames(self) -> list[Any]:
        """Returns the last frames, to explain a difference."""
        return list(self._recent)

    async def difference(self, edges: Sequence[EdgeClient], seconds: float) -> str | None:
        """Returns how the copy differs from GET on each edge after it had time to catch up; None if it does not."""
        until = time.monotonic() + seconds
        while True:
            found = self.wrong or next(filter(None, [await self._compare(edge) for edge in edges]), None)
            if found is None or self.wrong or time.monotonic() > until:
                return found
            await asyncio.sleep(0.5)

    async def _compare(self, edge: EdgeClient) -> str | None:
        try:
            page = await asyncio.to_thread(
                edge.get, "/org/me/inbox", self.ws, self.reader, limit=min(self.limit, 500))
        except (httpx.HTTPError, AssertionError) as error:
            return f"{self.name}: {error!r}"
        if self.copy.cursor < 0:
            return f"{self.name}: received no snapshot"
        mine = self.copy.page
        items = mine["items"][:500]
        if [item["id"] for item in items] != [item["id"] for item in page["items"]]:
            return (f"{self.name}: its copy at {self.copy.cursor} lists {_ids(items)}, GET at {page['cursor']} "
                    f"{_ids(page['items'])}")
        for own, got in zip(items, page["items"], strict=True):
            if own != got:
                return f"{self.name}: its copy at {self.copy.cursor} has {own}, GET at {page['cursor']} {got}"
        if mine["counts"] != page["counts"]:
            return f"{self.name}: its copy counts {mine['counts']}, GET {page['counts']}"
        return None


def _ids(items: Sequence[dict[str, Any]]) -> str:
    return f"{len(items)} items {[item['id'][-8:] for item in items[:20]]}"
