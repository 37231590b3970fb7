"""Limits per user: writes a second (token bucket), and reads in progress."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["RateLimiter", "ReadLimiter", "TooManyReads"]

_MAX_BUCKETS = 10_000  # users; the limiter drops the longest unused bucket, whose user then starts with a full one


class RateLimiter:
    """Token bucket of each user: refills with `rate` tokens a second up to `burst`. `clock` is a monotonic clock in
    seconds."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst = rate, burst
        self._clock = clock
        self._buckets: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()  # tokens, time of that count

    def acquire(self, ws: str, user: str, cost: float = 1.0) -> int:
        """Takes `cost` tokens and returns 0 if the bucket has at least one token; else returns the whole seconds until
        it has one. A cost above the available tokens leaves a debt of at most `burst`, which delays later writes."""
        tokens = self._tokens(ws, user)
        wait = 0 if tokens >= 1 else math.ceil((1 - tokens) / self.rate)
        self._store(ws, user, tokens if wait else tokens - cost)
        return wait

    def charge(self, ws: str, user: str, cost: float) -> None:
        """Takes `cost` more tokens for a write that was already admitted."""
        self._store(ws, user, self._tokens(ws, user) - cost)

    def _tokens(self, ws: str, user: str) -> float:
        now = self._clock()
        tokens, then = self._buckets.get((ws, user), (float(self.burst), now))
        return min(self.burst, tokens + (now - then) * self.rate)

    def _store(self, ws: str, user: str, tokens: float) -> None:
        self._buckets.pop((ws, user), None)
        self._buckets[ws, user] = (max(tokens, -float(self.burst)), self._clock())
        if len(self._buckets) > _MAX_BUCKETS:
            self._buckets.popitem(last=False)


class TooManyReads(Exception):
    """The user has too many reads in progress."""


@dataclass
class _UserReads:
    semaphore: asyncio.Semaphore
    count: int = 0  # in progress or waiting


class ReadLimiter:
    """Allows `at_once` concurrent reads of a user. Up to `waiting` more wait in order of arrival, for at most `seconds`
    each."""

    def __init__(self, at_once: int = 8, waiting: int = 128, seconds: float = 10.0) -> None:
        self.at_once, self._waiting, self._seconds = at_once, waiting, seconds
        self._users: dict[tuple[str, str], _UserReads] = {}

    def __len__(self) -> int:
        return len(self._users)

    async def acquire(self, ws: str, user: str) -> Callable[[], None]:
        """Waits until the read may start. Returns the function that ends it; the caller calls it exactly once.

        Raises TooManyReads if the user's queue is full or the wait exceeds `seconds`.
        """
        reads = self._users.get((ws, user))
        if reads is None:
            reads = self._users[ws, user] = _UserReads(asyncio.Semaphore(self.at_once))
        if reads.count >= self.at_once + self._waiting:
            raise TooManyReads
        reads.count += 1
        try:
            async with asyncio.timeout(self._seconds):
                await reads.semaphore.acquire()
        except TimeoutError:
            self._discount(ws, user)
            raise TooManyReads from None
        except BaseException:
            self._discount(ws, user)
            raise

        def release() -> None:
            reads.semaphore.release()
            self._discount(ws, user)

        return release

    def _discount(self, ws: str, user: str) -> None:
        reads = self._users[ws, user]
        reads.count -= 1
        if not reads.count:
            del self._users[ws, user]
