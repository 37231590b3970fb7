"""Finds the asker of a call: one for all calls over stdio, one for each key and source over HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import structlog

from ops.mcp.asker import Asker, Client, TooManyCallers
from ops.mcp.http_app import Verdict, caller_of

__all__ = ["HttpAskers", "OneAsker", "verify_key"]

log = structlog.get_logger("attn.mcp")

MAX_ASKERS = 1000
# Seconds.
_IDLE, _ROUND, _REPAIR, _CLOSE, _VERIFY = 600.0, 30.0, 3600.0, 2.0, 10.0

Connect = Callable[[str], AbstractAsyncContextManager[Client]]  # of a key


async def verify_key(session: aiohttp.ClientSession, url: str, key: str) -> Verdict:
    """Asks attn whether it accepts the key."""
    try:
        async with session.get(
            f"{url}/org/me/decisions", params={"limit": 1}, headers={"authorization": f"Bearer {key}"},
            timeout=aiohttp.ClientTimeout(total=_VERIFY), allow_redirects=False,
        ) as response:
            if response.status == 200:
                return "valid"
            return "refused" if response.status in (401, 403) else "unreachable"
    except (aiohttp.ClientError, TimeoutError, OSError):
        return "unreachable"


async def _repair(asker: Asker) -> None:
    """Refuses answers that nobody fetched in time (`Asker.refuse_unfetched`)."""
    try:
        if refused := await asker.refuse_unfetched():
            log.info("answers that no caller fetched were refused", answers=refused)
    except Exception as error:
        log.warning("answers that nobody fetched could not be listed", error=f"{type(error).__name__}: {error}")


class OneAsker:
    """The asker of the one client of a stdio server."""

    def __init__(self, asker: Asker) -> None:
        self._desk = asker

    @classmethod
    @asynccontextmanager
    async def open(cls, connect: Connect, key: str, source: str) -> AsyncIterator[OneAsker]:
        """Yields the asker of a key, and repairs every hour."""
        async with connect(key) as client:
            asker = Asker(client, source)
            repairs = asyncio.create_task(_repair_hourly(asker))
            try:
                yield cls(asker)
            finally:
                repairs.cancel()
                await asker.close(_CLOSE)

    async def of(self, _: Any) -> Asker:
        return self._desk


async def _repair_hourly(asker: Asker) -> None:
    while True:
        await _repair(asker)
        await asyncio.sleep(_REPAIR)


class _Open:
    """An asker with its connection to attn."""

    def __init__(self, asker: Asker, stack: AsyncExitStack) -> None:
        self.asker, self.stack = asker, stack
        self.used_at = self.repaired_at = time.monotonic()


class HttpAskers:
    """The askers of an HTTP server. `maintain` closes those that are idle and repairs the others."""

    def __init__(self, connect: Connect, source: str) -> None:
        self._connect, self._source = connect, source
        self._open: dict[tuple[str, str], _Open] = {}
        self._lock = asyncio.Lock()

    async def of(self, request: Any) -> Asker:
        """Returns the asker of the caller's key. Raises TooManyCallers above MAX_ASKERS askers that are in use."""
        key, source = caller_of(request, self._source)
        async with self._lock:
            found = self._open.get((key, source))
            if found is None:
                await self._make_room()
                stack = AsyncExitStack()
                client = await stack.enter_async_context(self._connect(key))
                found = self._open[key, source] = _Open(Asker(client, source), stack)
                found.asker.later(_repair(found.asker))
            found.used_at = time.monotonic()
            return found.asker

    async def maintain(self) -> None:
        """Runs until it is cancelled; closes all askers then."""
        try:
            while True:
                await asyncio.sleep(_ROUND)
                now = time.monotonic()
                for name, one in list(self._open.items()):
                    if now - one.used_at > _IDLE and not one.asker.busy:
                        await self._close(name)
                    elif now - one.repaired_at > _REPAIR:
                        one.repaired_at = now
                        one.asker.later(_repair(one.asker))
        finally:
            await asyncio.gather(*map(self._close, list(self._open)))

    async def _make_room(self) -> None:
        if len(self._open) < MAX_ASKERS:
            return
        idle = [(one.used_at, name) for name, one in self._open.items() if not one.asker.busy]
        if not idle:
            raise TooManyCallers(f"{MAX_ASKERS} keys have calls in progress: try again later")
        await self._close(min(idle)[1])

    async def _close(self, name: tuple[str, str]) -> None:
        one = self._open.pop(name)
        await one.asker.close(_CLOSE)
        await one.stack.aclose()
