"""Schedules the demo's events: many concurrent threads of events. Pure; the seed determines all events.

A thread is a generator that yields an `Emit`, or seconds to wait. Threads begin at random times, more by day than by
night. Each kind has a mean number of threads per day.
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
    """An event to emit. `expires_in` in `data` is seconds from the time of the event."""

    type: str
    subject: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScheduledEvent:
    """An event and its time. `at`: seconds since the beginning of the story."""

    at: float
    emit: Emit


Thread = Generator["float | Emit", None, None]


class Story:
    """A sequence of events. `kinds`: thread factory -> threads per day. `begins`: time of day at 0, in seconds."""

    def __init__(self, seed: int, kinds: Mapping[Callable[[random.Random, str], Thread], float],
                 begins: float = 0.0) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - repeatable is the point
        self._kinds = kinds
        self._begins = begins
        self._order = count()  # orders entries of the same time as they were planned

    def scheduled_events(self) -> Iterator[ScheduledEvent]:
        """Yields the events in order of time, without end."""
        names = count(1)
        due: list[tuple[float, int, Thread | Callable[[random.Random, str], Thread]]] = []
        for factory in self._kinds:
            self._plan(due, self._next_beginning(0.0, self._kinds[factory]), factory)
        while True:
            at, _, thread = heapq.heappop(due)
            if callable(thread):  # a factory: a new thread begins
                self._plan(due, self._next_beginning(at, self._kinds[thread]), thread)
                thread = thread(random.Random(self._rng.random()), f"{next(names):05}")  # noqa: S311
            step = next(thread, None)
            if isinstance(step, Emit):
                yield ScheduledEvent(at, step)
                self._plan(due, at, thread)
            elif step is not None:
                self._plan(due, at + step, thread)

    def _plan(self, due: list[Any], at: float, thread: Any) -> None:
        heapq.heappush(due, (at, next(self._order), thread))

    def _next_beginning(self, at: float, per_day: float) -> float:
        """Returns the next time of a Poisson process whose rate depends on the time of day.

        Thinning: times are drawn at twice the mean rate, and each is dropped with probability 1 - `busy`.
        """
        while True:
            at += self._rng.expovariate(per_day * 2 / DAY)
            if self._rng.random() < busy(self._begins + at):
                return at


def busy(second: float) -> float:
    """Returns the relative load at a time of day: mean 0.5, at noon 0.9."""
    return 0.5 + 0.4 * math.cos((second % DAY - NOON) / DAY * 2 * math.pi)
