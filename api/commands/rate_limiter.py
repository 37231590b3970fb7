"""Limits per user: writes a second (a token bucket), and reads in progress (turns)."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["RateLimiter", "ReadLimiter", "TooManyReads"]

_REMEMBERED = 10_000  # users; one who is forgotten begins with a full bucket


class RateLimiter:
    """`rate` tokens a second flow in, up to `burst`. `clock` gives seconds that only go forward."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst = rate, burst
        self._clock = clock
        self._buckets: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()  # tokens, as of when

    def acquire(self, ws: str, user: str, cost: float = 1.0) -> int:
        """Returns 0 and takes `cost` tokens if there is one, or in how many whole seconds there is one. A write that
        costs more than there is puts the bucket into debt, by at most `burst`: then its user waits afterwards."""
        tokens = self._tokens(ws, user)
        wait = 0 if tokens >= 1 else math.ceil((1 - tokens) / self.rate)
        self._keep(ws, user, tokens if wait else tokens - cost)
        return wait

    def charge(self, ws: str, user: str, cost: float) -> None:
        """Takes `cost` tokens more, for a write that was let through."""
        self._keep(ws, user, self._tokens(ws, user) - cost)

    def _tokens(self, ws: str, user: str) -> float:
        now = self._clock()
        tokens, then = self._buckets.get((ws, user), (float(self.burst), now))
        return min(self.burst, tokens + (now - then) * self.rate)

    def _keep(self, ws: str, user: str, tokens: float) -> None:
        self._buckets.pop((ws, user), None)
        self._buckets[ws, user] = (max(tokens, -float(self.burst)), self._clock())
        if len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)


class TooManyReads(Exception):
    """The user has too many reads in progress."""


@dataclass
class _UserReads:
    semaphore: asyncio.Semaphore
    count: int = 0  # in progress or waiting


class ReadLimiter:
    """At most `at_once` reads of a user in progress. Others wait for their turn in the order they came: at most
    `waiting` of them, for `seconds`."""

    def __init__(self, at_once: int = 8, waiting: int = 128, seconds: float = 10.0) -> None:
        self.at_once, self._waiting, self._seconds = at_once, waiting, seconds
        self._users: dict[tuple[str, str], _UserReads] = {}

    def __len__(self) -> int:
        return len(self._users)

    async def acquire(self, ws: str, user: str) -> Callable[[], None]:
        """Waits for a turn; what is returned gives it back, and must be called once. Raises Crowded."""
        mine = self._users.get((ws, user))
        if mine is None:
            mine = self._users[ws, user] = _UserReads(asyncio.Semaphore(self.at_once))
        if mine.count >= self.at_once + self._waiting:
            raise TooManyReads
        mine.count += 1
        try:
            async with asyncio.timeout(self._seconds):
                await mine.semaphore.acquire()
        except TimeoutError:
            self._leave(ws, user)
            raise TooManyReads from None
        except BaseException:
            self._leave(ws, user)
            raise

        def release() -> None:
            mine.semaphore.release()
            self._leave(ws, user)

        return release

    def _leave(self, ws: str, user: str) -> None:
        mine = self._users[ws, user]
        mine.count -= 1
        if not mine.count:
            del self._users[ws, user]
