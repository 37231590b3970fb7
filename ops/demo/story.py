"""What happens, and when: many threads of events side by side. Pure; all of it follows from the seed.

A thread is a generator: it yields seconds to wait for, or an `Emit`. Threads begin at random, more of them by day than
by night, each kind as often as the day has it.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

__all__ = ["DAY", "NOON", "Emit", "ScheduledEvent", "Story", "Thread"]

DAY = 86_400.0
NOON = 13 * 3600.0  # the busiest time of the day


@dataclass(frozen=True, slots=True)
class Emit:
    """An event of this type. In `data`, `expires_in` is in seconds from then on."""

    type: str
    subject: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScheduledEvent:
    """`at`: seconds of the story, which begins at 0."""

    at: float
    say: Emit


Thread = Generator["float | Emit", None, None]


class Story:
    """`kinds`: how often a day each sort of thread begins, by what makes one. `begins`: the time of day of second 0."""

    def __init__(self, seed: int, kinds: Mapping[Callable[[random.Random, str], Thread], float],
                 begins: float = 0.0) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - repeatable is the point
        self._kinds = kinds
        self._begins = begins
        self._order = count()  # what is due at one moment happens in the order in which it was planned

    def scheduled_events(self) -> Iterator[ScheduledEvent]:
        """In order of time, for ever."""
        names = count(1)
        due: list[tuple[float, int, Thread | Callable[[random.Random, str], Thread]]] = []
        for make in self._kinds:
            self._plan(due, self._next_beginning(0.0, self._kinds[make]), make)
        while True:
            at, _, what = heapq.heappop(due)
            if callable(what):
                self._plan(due, self._next_beginning(at, self._kinds[what]), what)
                what = what(random.Random(self._rng.random()), f"{next(names):05}")  # noqa: S311
            step = next(what, None)
            if isinstance(step, Emit):
                yield ScheduledEvent(at, step)
                self._plan(due, at, what)
            elif step is not None:
                self._plan(due, at + step, what)

    def _plan(self, due: list[Any], at: float, what: Any) -> None:
        heapq.heappush(due, (at, next(self._order), what))

    def _next_beginning(self, at: float, a_day: float) -> float:
        """By thinning: as if it were always noon, and then some are left out."""
        while True:
            at += self._rng.expovariate(a_day * 2 / DAY)
            if self._rng.random() < busy(self._begins + at):
                return at


def busy(second: float) -> float:
    """How much is going on at a time of day, of 1 at its busiest; 0.5 on average."""
    return 0.5 + 0.4 * math.cos((second % DAY - NOON) / DAY * 2 * math.pi)
