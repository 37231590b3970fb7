"""A source topic is left alone while most of what it brings can't be read: a circuit breaker (decision 0015). Pure:
time is an argument, seconds of any clock that goes forward.

A producer that was deployed badly rejects nearly all it sends. Records that are not read wait in their topic, in order,
for the topic's retention; records that are read go to dead-letters, and somebody has to send them again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum

from schemas.settings import Settings

__all__ = ["BreakerPolicy", "CircuitBreaker", "CircuitState"]


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """`share`: of rejects among the records of `window` seconds; 0: never stop. `least`: records before it is judged,
    and records of a try. `first` and `most`: seconds until it is tried again, twice as long after each try in vain."""

    share: float = 0.0
    least: int = 100
    window: float = 60.0
    first: float = 30.0
    most: float = 600.0

    @classmethod
    def of(cls, settings: Settings) -> BreakerPolicy:
        return cls(
            settings.reject_ratio, settings.reject_min_records, settings.reject_window_seconds,
            settings.reject_retry_seconds)


class CircuitState(Enum):
    READING = "reading"
    STOPPED = "stopped"
    TRYING = "trying"  # a few records are read, to see
    TOLD = "told to go on"  # whatever it brings, until it is good again


class CircuitBreaker:
    """Of one topic."""

    def __init__(self, policy: BreakerPolicy) -> None:
        self.state = CircuitState.READING
        self.rejected = self.count = 0  # of the window, or of the try
        self._policy = policy
        self._seconds: deque[list[int]] = deque()  # [second, count, rejected]
        self._wait = policy.first
        self._due = 0.0

    def took(self, now: float, rejected: bool) -> bool:
        """Count a record. True: read no further."""
        self._count(now, rejected)
        if self.state is CircuitState.TRYING:
            return self.count >= self._policy.least and not self.judge(now)
        if self.count < self._policy.least:
            return False
        if self.state is CircuitState.TOLD:
            if not self._bad:
                self._read_on()
        elif self._bad:
            self._stop(now)
            return True
        return False

    def due(self, now: float) -> bool:
        """Whether it is time to try."""
        return self.state is CircuitState.STOPPED and now >= self._due

    def begin_try(self) -> int:
        """How many records to read now."""
        self._forget()
        self.state = CircuitState.TRYING
        return self._policy.least

    def judge(self, now: float) -> bool:
        """After what was there for the try was read: True: it goes on; False: stopped, for longer."""
        if self.state is CircuitState.TRYING and self.count:
            if self._bad:
                self._wait = min(self._wait * 2, self._policy.most)
                self._stop(now)
            else:
                self._read_on()
        elif self.state is CircuitState.TRYING:  # retention took what was there: nothing is known
            self.state, self._due = CircuitState.STOPPED, now
        return self.state is not CircuitState.STOPPED

    def go_on(self) -> None:
        """An operator says so."""
        if self.state in (CircuitState.STOPPED, CircuitState.TRYING):
            self._forget()
            self.state, self._wait = CircuitState.TOLD, self._policy.first

    def wait(self, now: float) -> float:
        """Seconds until it is tried again."""
        return max(0.0, self._due - now)

    @property
    def _bad(self) -> bool:
        return 0 < self._policy.share <= self.rejected / self.count

    def _stop(self, now: float) -> None:
        self.state, self._due = CircuitState.STOPPED, now + self._wait

    def _read_on(self) -> None:
        self._forget()
        self.state, self._wait = CircuitState.READING, self._policy.first

    def _count(self, now: float, rejected: bool) -> None:
        second = int(now)
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append([second, 0, 0])
            while self._seconds[0][0] <= now - self._policy.window:
                _, count, bad = self._seconds.popleft()
                self.count, self.rejected = self.count - count, self.rejected - bad
        self._seconds[-1][1] += 1
        self._seconds[-1][2] += rejected
        self.count += 1
        self.rejected += rejected

    def _forget(self) -> None:
        self._seconds.clear()
        self.count = self.rejected = 0
