"""Circuit breaker of one source topic, by the share of rejected records (decision 0015). Pure: time is an argument, in
seconds of a monotonic clock.

After a faulty deployment of a producer nearly all its records are rejected. While the circuit is open, the records stay
in their topic in order, for the topic's retention. Without the breaker they would become dead letters that an operator
has to send again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum

from schemas.settings import Settings

__all__ = ["BreakerPolicy", "CircuitBreaker", "CircuitState"]


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a circuit opens, and when it is probed.

    `reject_ratio`: share of rejected records in the last `window` seconds at which the circuit opens; 0 disables it.
    `min_records`: records needed before the ratio is evaluated, and records read by a probe. `initial_delay`,
    `max_delay`: seconds before the next probe; doubles after each failed probe.
    """

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
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"  # a probe reads a few records
    FORCED_CLOSED = "forced closed"  # by an operator; stays closed whatever is rejected, until the ratio is good again


class CircuitBreaker:
    """State of one topic. `count`, `rejected`: records and rejects in the current window or probe."""

    def __init__(self, policy: BreakerPolicy) -> None:
        self.state = CircuitState.CLOSED
        self.rejected = self.count = 0
        self._policy = policy
        self._buckets: deque[list[int]] = deque()  # one per second: [second, count, rejected]
        self._delay = policy.initial_delay
        self._probe_at = 0.0

    def record(self, now: float, rejected: bool) -> bool:
        """Counts a record. Returns True if the circuit is open after it."""
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
        """Whether the circuit is open and the time of the next probe has come."""
        return self.state is CircuitState.OPEN and now >= self._probe_at

    def start_probe(self) -> int:
        """Begins a probe. Returns how many records to read."""
        self._reset_window()
        self.state = CircuitState.HALF_OPEN
        return self._policy.min_records

    def evaluate_probe(self, now: float) -> bool:
        """Ends a probe that has read the records available. Closes the circuit, or opens it with twice the delay.
        Returns whether the circuit is not open."""
        if self.state is CircuitState.HALF_OPEN and self.count:
            if self._ratio_exceeded:
                self._delay = min(self._delay * 2, self._policy.max_delay)
                self._open(now)
            else:
                self._close()
        elif self.state is CircuitState.HALF_OPEN:  # retention has deleted the records, so the probe read none
            self.state, self._probe_at = CircuitState.OPEN, now
        return self.state is not CircuitState.OPEN

    def force_close(self) -> None:
        """Closes the circuit by an operator's command, if it is open or half-open."""
        if self.state in (CircuitState.OPEN, CircuitState.HALF_OPEN):
            self._reset_window()
            self.state, self._delay = CircuitState.FORCED_CLOSED, self._policy.initial_delay

    def seconds_until_probe(self, now: float) -> float:
        """Returns the seconds until the next probe."""
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
