"""Readers of live feeds who don't give up: they go to another edge with what they have, and keep their copy (law 4)."""

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

from chaos.environment.edge_client import Asker

__all__ = ["Follower"]

# An edge says something each second (ATTN_HEARTBEAT_SECONDS=1): one that is silent for so long is taken for dead.
_SILENT = 4.0
_CONNECT = 2.0
_PAUSE = (0.1, 1.0)  # seconds before the next try, longer each time, with jitter
_KEPT = 50  # frames kept to explain a difference


class Follower:
    """One reader's feed over all edges. `seen`: when something new came (monotonic seconds), heartbeats and what a
    resume or snapshot brings of the past included, as a person would see it."""

    def __init__(self, asker: Asker, urls: Sequence[str], ws: str, reader: Reader, limit: int, first: int) -> None:
        self.ws, self.reader, self.limit = ws, reader, limit
        self.copy = Copy()
        self.seen: list[float] = []
        self.connects = self.snapshots = self.frames = self.refused = 0
        self.wrong: str | None = None  # what a frame did not fit
        self._asker, self._urls, self._at = asker, urls, first
        self._recent: deque[Any] = deque(maxlen=_KEPT)
        self._random = random.Random(first)

    @property
    def name(self) -> str:
        return f"{self.ws} {self.reader.user}/{self.reader.role} limit {self.limit}"

    async def run(self) -> None:
        """For ever; ends early only when a frame can't be right."""
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
                self._take((int(event.id), event.event, json.loads(event.data)))

    def _take(self, frame: tuple[int, str, Any]) -> None:
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
            self.wrong = f"{self.name}: frame {frame[0]} {event} does not fit its copy: {error!r}"
            raise httpx.StreamError(self.wrong) from error

    def told(self) -> list[Any]:
        """The last of what it was sent, to explain a difference."""
        return list(self._recent)

    async def difference(self, askers: Sequence[Asker], seconds: float) -> str | None:
        """How the copy differs from what GET says on each edge, once there was time to get there; None: not at all."""
        until = time.monotonic() + seconds
        while True:
            found = self.wrong or next(filter(None, [await self._compare(asker) for asker in askers]), None)
            if found is None or self.wrong or time.monotonic() > until:
                return found
            await asyncio.sleep(0.5)

    async def _compare(self, asker: Asker) -> str | None:
        try:
            page = await asyncio.to_thread(
                asker.get, "/org/me/inbox", self.ws, self.reader, limit=min(self.limit, 500))
        except (httpx.HTTPError, AssertionError) as error:
            return f"{self.name}: {error!r}"
        if self.copy.cursor < 0:
            return f"{self.name}: never got a snapshot"
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
