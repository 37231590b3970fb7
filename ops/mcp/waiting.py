"""Wakes the calls that wait for an answer: one long poll and one sweep for all of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import structlog

__all__ = ["Bell", "TooManyWaiting"]

log = structlog.get_logger("attn.mcp")

MAX_WAITING = 200  # calls of one key
TICK_SECONDS = 10.0  # at most, between two progress notifications
SWEEP_SECONDS = 5.0
_RETRY_SECONDS = 2.0


class TooManyWaiting(Exception):
    """The limit of waiting calls of one key is reached."""


class Watched(Protocol):
    """The part of AttnClient that the bell needs."""

    async def items(self, *, state: str = "all", source: str | None = None) -> Sequence[dict[str, Any]]: ...

    def watch_decisions(
        self, *, state: str, source: str | None = None) -> AsyncIterator[Sequence[dict[str, Any]]]: ...


class Bell:
    """Wakes the waiting calls of a subject when its question may have changed.

    The long poll of decisions in state `sending` sees answers. The sweep of open items sees what makes no decision: an
    expiry, a withdrawal, an item that a person resolved. Both run only while a call waits.
    """

    def __init__(self, client: Watched, source: str) -> None:
        self._client, self._source = client, source
        self._waiters: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._watchers: list[asyncio.Task[None]] = []

    @property
    def waiting(self) -> int:
        """Number of waiting calls."""
        return sum(map(len, self._waiters.values()))

    def is_waited_for(self, subject: str) -> bool:
        return subject in self._waiters

    @asynccontextmanager
    async def waiter(self, subject: str) -> AsyncIterator[Callable[[float], Awaitable[None]]]:
        """Yields a function that waits until the subject may have changed, for at most the given seconds and one tick.

        Raises TooManyWaiting above MAX_WAITING calls.
        """
        if self.waiting >= MAX_WAITING:
            raise TooManyWaiting(f"{MAX_WAITING} calls of this key wait already: withdraw some, or wait for them")
        event = asyncio.Event()
        self._waiters[subject].add(event)
        self._start()

        async def rung(seconds: float) -> None:
            with contextlib.suppress(TimeoutError):
                # Not `wait_for`: in Python 3.11 it swallows a cancellation that comes together with the event.
                async with asyncio.timeout(min(seconds, TICK_SECONDS)):
                    await event.wait()
            event.clear()

        try:
            yield rung
        finally:
            self._waiters[subject].discard(event)
            if not self._waiters[subject]:
                del self._waiters[subject]
            if not self._waiters:
                self._stop()

    async def close(self) -> None:
        watchers = self._watchers
        self._stop()
        await asyncio.gather(*watchers, return_exceptions=True)

    def _start(self) -> None:
        if not self._watchers:
            self._watchers = [asyncio.create_task(self._retrying(run)) for run in (self._watch, self._sweep)]

    def _stop(self) -> None:
        for task in self._watchers:
            task.cancel()
        self._watchers = []

    async def _retrying(self, run: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await run()
            except Exception as error:  # attn is unreachable or restarts: the calls go on waiting
                log.warning("attn cannot be read", error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(_RETRY_SECONDS)

    async def _watch(self) -> None:
        async for decisions in self._client.watch_decisions(state="sending", source=self._source):
            for decision in decisions:
                self._ring(decision["source_id"])

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            open_items = {item["source_id"] for item in await self._client.items(state="active", source=self._source)}
            for subject in [subject for subject in self._waiters if subject not in open_items]:
                self._ring(subject)

    def _ring(self, subject: str) -> None:
        for event in self._waiters.get(subject, ()):
            event.set()
