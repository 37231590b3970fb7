"""Exponential backoff with jitter."""

from __future__ import annotations

import random

__all__ = ["Backoff"]


class Backoff:
    """Computes waits between tries, in seconds: they double from `initial_delay` up to `max_delay`, and each is
    multiplied by a random factor between 0.5 and 1."""

    def __init__(self, initial_delay: float = 0.2, max_delay: float = 10.0) -> None:
        self._initial_delay, self._max_delay = initial_delay, max_delay
        self._tries = 0

    @property
    def tries(self) -> int:
        """How many waits were computed since the start or the last `reset`."""
        return self._tries

    def next(self) -> float:
        """Returns the next wait."""
        delay: float = min(self._max_delay, self._initial_delay * 2.0 ** min(self._tries, 30))
        self._tries += 1
        return delay * random.uniform(0.5, 1.0)  # noqa: S311

    def reset(self) -> None:
        """Starts again at `initial_delay`, after a success."""
        self._tries = 0
