"""How long to wait before the next try."""

from __future__ import annotations

import random

__all__ = ["Backoff"]


class Backoff:
    """Doubling waits with jitter: each is a random part, at least half, of what it could be. Seconds."""

    def __init__(self, first: float = 0.2, most: float = 10.0) -> None:
        self._first, self._most = first, most
        self._tries = 0

    @property
    def tries(self) -> int:
        return self._tries

    def next(self) -> float:
        most: float = min(self._most, self._first * 2.0 ** min(self._tries, 30))
        self._tries += 1
        return most * random.uniform(0.5, 1.0)  # noqa: S311

    def reset(self) -> None:
        self._tries = 0
