"""Circuit breaker of one endpoint. Pure: `now` is an argument, in seconds.

After five failures in a row attn stops posting to the endpoint, except for one probe at a time, at most 60 s apart. A
dead endpoint then costs one attempt a minute, whatever number of decisions waits for it.
"""

from __future__ import annotations

from streams.runtime.backoff import Backoff

__all__ = ["Circuit"]

_FAILURES = 5  # in a row
_INITIAL_DELAY, _MAX_DELAY = 1.0, 60.0  # seconds until a probe


class Circuit:
    """`is_open`: whether only probes are sent."""

    def __init__(self) -> None:
        self.is_open = False
        self._failures = 0
        self._probing = False
        self._not_before = 0.0  # next probe
        self._paused_until = 0.0
        self._backoff = Backoff(_INITIAL_DELAY, _MAX_DELAY)

    def allows(self, now: float) -> bool:
        """Whether an attempt may start. While the circuit is open, one attempt runs at a time."""
        return now >= self.next_attempt_at and not (self.is_open and self._probing)

    @property
    def next_attempt_at(self) -> float:
        """Time before which no attempt may start."""
        return max(self._not_before, self._paused_until)

    def begin(self) -> None:
        """Records that an attempt starts."""
        self._probing = self.is_open

    def abandon(self) -> None:
        """Records that an attempt ended before anything was sent."""
        self._probing = False

    def succeed(self) -> bool:
        """Records an answer that accepts or refuses a decision. Returns True if this closed the circuit."""
        was_open, self.is_open = self.is_open, False
        self._probing, self._failures, self._not_before = False, 0, 0.0
        self._backoff.reset()
        return was_open

    def fail(self, now: float) -> bool:
        """Records a failed attempt. Returns True if this opened the circuit."""
        self._failures += 1
        opened = not self.is_open and self._failures >= _FAILURES
        if self.is_open and not self._probing:
            return False  # it started before the circuit opened
        self.is_open |= opened
        self._probing = False
        if self.is_open:
            self._not_before = max(self._not_before, now + self._backoff.next())
        return opened

    def pause(self, until: float) -> None:
        """Starts no attempt before `until`: the receiver asked for it with `Retry-After`. A success of an attempt that
        runs already does not end the pause."""
        self._paused_until = max(self._paused_until, until)
