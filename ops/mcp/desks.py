"""Finds the desk of a call: one for all calls over stdio, one for each key and source over HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import structlog

from ops.mcp.desk import Client, Desk, TooManyCallers
from ops.mcp.http_app import Verdict, caller_of

__all__ = ["HttpDesks", "OneDesk", "verify_key"]

log = structlog.get_logger("attn.mcp")

MAX_DESKS = 1000
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


async def _repair(desk: Desk) -> None:
    """Refuses answers that nobody fetched in time (`Desk.refuse_unfetched`)."""
    try:
        if refused := await desk.refuse_unfetched():
            log.info("answers that no caller fetched were refused", answers=refused)
    except Exception as error:
        log.warning("answers that nobody fetched could not be listed", error=f"{type(error).__name__}: {error}")


class OneDesk:
    """The desk of the one client of a stdio server."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @classmethod
    @asynccontextmanager
    async def open(cls, connect: Connect, key: str, source: str) -> AsyncIterator[OneDesk]:
        """Yields the desk of a key, and repairs every hour."""
        async with connect(key) as client:
            desk = Desk(client, source)
            repairs = asyncio.create_task(_repair_hourly(desk))
            try:
                yield cls(desk)
            finally:
                repairs.cancel()
                await desk.close(_CLOSE)

    async def of(self, _: Any) -> Desk:
        return self._desk


async def _repair_hourly(desk: Desk) -> None:
    while True:
        await _repair(desk)
        await asyncio.sleep(_REPAIR)


class _Open:
    """A desk with its connection to attn."""

    def __init__(self, desk: Desk, stack: AsyncExitStack) -> None:
        self.desk, self.stack = desk, stack
        self.used_at = self.repaired_at = time.monotonic()


class HttpDesks:
    """The desks of an HTTP server. `maintain` closes those that are idle and repairs the others."""

    def __init__(self, connect: Connect, source: str) -> None:
        self._connect, self._source = connect, source
        self._open: dict[tuple[str, str], _Open] = {}
        self._lock = asyncio.Lock()

    async def of(self, request: Any) -> Desk:
        """Returns the desk of the caller's key. Raises TooManyCallers above MAX_DESKS desks that are in use."""
        key, source = caller_of(request, self._source)
        async with self._lock:
            found = self._open.get((key, source))
            if found is None:
                await self._make_room()
                stack = AsyncExitStack()
                client = await stack.enter_async_context(self._connect(key))
                found = self._open[key, source] = _Open(Desk(client, source), stack)
                found.desk.later(_repair(found.desk))
            found.used_at = time.monotonic()
            return found.desk

    async def maintain(self) -> None:
        """Runs until it is cancelled; closes all desks then."""
        try:
            while True:
                await asyncio.sleep(_ROUND)
                now = time.monotonic()
                for name, one in list(self._open.items()):
                    if now - one.used_at > _IDLE and not one.desk.busy:
                        await self._close(name)
                    elif now - one.repaired_at > _REPAIR:
                        one.repaired_at = now
                        one.desk.later(_repair(one.desk))
        finally:
            await asyncio.gather(*map(self._close, list(self._open)))

    async def _make_room(self) -> None:
        if len(self._open) < MAX_DESKS:
            return
        idle = [(one.used_at, name) for name, one in self._open.items() if not one.desk.busy]
        if not idle:
            raise TooManyCallers(f"{MAX_DESKS} keys have calls in progress: try again later")
        await self._close(min(idle)[1])

    async def _close(self, name: tuple[str, str]) -> None:
        one = self._open.pop(name)
        await one.desk.close(_CLOSE)
        await one.stack.aclose()
