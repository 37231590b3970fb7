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
    """`reject_ratio`: of rejects among the records of `window` seconds; 0: never stop. `min_records`: records
    before it is judged,
    and records of a try. `initial_delay` and `max_delay`: seconds until it is tried again, twice as long after
    each try in vain."""

    reject_ratio: float = 0.0
    min_records: int = 100
    window: float = 60.0
    initial_delay: float = 30.0
    max_delay: float = 600.0

    @classmethod
    def of(cls, settings: Settings) -> BreakerPolicy:
        return cls(
            settings.reject_ratio, settings.reject_min_records, settings.reject_window_seconds,
            settings.reject_retry_seconds)


class CircuitState(Enum):
    CLOSED = "reading"
    OPEN = "stopped"
    HALF_OPEN = "trying"  # a few records are read, to see
    FORCED_CLOSED = "told to go on"  # whatever it brings, until it is good again


class CircuitBreaker:
    """Of one topic."""

    def __init__(self, policy: BreakerPolicy) -> None:
        self.state = CircuitState.CLOSED
        self.rejected = self.count = 0  # of the window, or of the try
        self._policy = policy
        self._buckets: deque[list[int]] = deque()  # [second, count, rejected]
        self._delay = policy.initial_delay
        self._probe_at = 0.0

    def record(self, now: float, rejected: bool) -> bool:
        """Count a record. True: read no further."""
        self._count(now, rejected)
        if self.state is CircuitState.HALF_OPEN:
            return self.count >= self._policy.min_records and not self.evaluate_probe(now)
        if self.count < self._policy.min_records:
            return False
        if self.state is CircuitState.FORCED_CLOSED:
            if not self._ratio_exceeded:
                self._close()
        elif self._ratio_exceeded:
            self._open(now)
            return True
        return False

    def is_probe_due(self, now: float) -> bool:
        """Whether it is time to try."""
        return self.state is CircuitState.OPEN and now >= self._probe_at

    def start_probe(self) -> int:
        """How many records to read now."""
        self._reset_window()
        self.state = CircuitState.HALF_OPEN
        return self._policy.min_records

    def evaluate_probe(self, now: float) -> bool:
        """After what was there for the try was read: True: it goes on; False: stopped, for longer."""
        if self.state is CircuitState.HALF_OPEN and self.count:
            if self._ratio_exceeded:
                self._delay = min(self._delay * 2, self._policy.max_delay)
                self._open(now)
            else:
                self._close()
        elif self.state is CircuitState.HALF_OPEN:  # retention took what was there: nothing is known
            self.state, self._probe_at = CircuitState.OPEN, now
        return self.state is not CircuitState.OPEN

    def force_close(self) -> None:
        """An operator says so."""
        if self.state in (CircuitState.OPEN, CircuitState.HALF_OPEN):
            self._reset_window()
            self.state, self._delay = CircuitState.FORCED_CLOSED, self._policy.initial_delay

    def seconds_until_probe(self, now: float) -> float:
        """Seconds until it is tried again."""
        return max(0.0, self._probe_at - now)

    @property
    def _ratio_exceeded(self) -> bool:
        return 0 < self._policy.reject_ratio <= self.rejected / self.count

    def _open(self, now: float) -> None:
        self.state, self._probe_at = CircuitState.OPEN, now + self._delay

    def _close(self) -> None:
        self._reset_window()
        self.state, self._delay = CircuitState.CLOSED, self._policy.initial_delay

    def _count(self, now: float, rejected: bool) -> None:
        second = int(now)
        if not self._buckets or self._buckets[-1][0] != second:
            self._buckets.append([second, 0, 0])
            while self._buckets[0][0] <= now - self._policy.window:
                _, count, bad = self._buckets.popleft()
                self.count, self.rejected = self.count - count, self.rejected - bad
        self._buckets[-1][1] += 1
        self._buckets[-1][2] += rejected
        self.count += 1
        self.rejected += rejected

    def _reset_window(self) -> None:
        self._buckets.clear()
        self.count = self.rejected = 0
