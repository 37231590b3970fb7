"""How often somebody may write: a bucket of tokens for each user. Pure; `clock` gives seconds that only go forward."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["Throttle"]

_REMEMBERED = 10_000  # users; one who is forgotten begins with a full bucket


class Throttle:
    """`rate` tokens a second flow in, up to `burst`."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst = rate, burst
        self._clock = clock
        self._buckets: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()  # tokens, as of when

    def take(self, ws: str, user: str) -> int:
        """0, and a token is gone; or in how many whole seconds there is one."""
        now = self._clock()
        tokens, then = self._buckets.pop((ws, user), (float(self.burst), now))
        tokens = min(self.burst, tokens + (now - then) * self.rate)
        wait = 0 if tokens >= 1 else math.ceil((1 - tokens) / self.rate)
        self._buckets[ws, user] = (tokens if wait else tokens - 1, now)
        if len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)
        return wait
