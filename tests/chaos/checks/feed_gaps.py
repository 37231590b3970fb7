"""How long readers saw nothing new, and what that is put down to. Pure."""

from __future__ import annotations

import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["Fault", "Figures", "by_kind"]

_LONGEST = 100.0  # seconds; no fault is on for longer


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one kind of fault: how many there were; how many of them could be measured, because no other fault hid what
    they did; and the silence of the reader worst off after each of those, in seconds."""

    count: int
    measured: int
    p50: float
    most: float


Fault = tuple[str, float, float]  # kind, from when, to when


def by_kind(
    faults: Iterable[Fault], readers: Iterable[Sequence[float]], weight: Mapping[str, int], usual: float,
    after: float = 2.0,
) -> dict[str, Figures]:
    """Figures by kind. `readers`: when each saw something new, ascending; `usual`: an interval that is no silence.

    A silence is put down to one fault: the heaviest (`weight`) of those that were on when it began, or had been over
    for at most `after` seconds. The others of them, and those that came while it lasted, are hidden by it. A fault that
    has no silence, and is not hidden, has what interval it fell into.
    """
    found = sorted(faults, key=lambda one: one[1])
    worst: dict[int, float] = {}
    ordinary = [0.0] * len(found)
    hidden: set[int] = set()
    for seen in readers:
        for begun, ended in pairwise(seen):
            within = _within(found, begun, ended, after if ended - begun > usual else 0.0)
            if ended - begun <= usual:
                for index in within:
                    ordinary[index] = max(ordinary[index], ended - begun)
            elif within:
                # Of one weight, the one that began last before the silence.
                first = [index for index in within if found[index][1] <= begun + usual] or within
                cause = max(first, key=lambda index: (weight.get(found[index][0], 0), found[index][1]))
                worst[cause] = max(worst.get(cause, 0.0), ended - begun)
                hidden.update(index for index in within if index != cause)
    grouped: dict[str, list[float | None]] = {}
    for index, (kind, _, _) in enumerate(found):
        length = worst.get(index, None if index in hidden else ordinary[index])
        grouped.setdefault(kind, []).append(length)
    return {kind: _figures(lengths) for kind, lengths in sorted(grouped.items())}


def _within(faults: Sequence[Fault], begun: float, ended: float, after: float) -> list[int]:
    """Those that were on, or had just been, while nothing came."""
    low = bisect_left(faults, begun - _LONGEST, key=lambda one: one[1])
    high = bisect_right(faults, ended, key=lambda one: one[1])
    return [index for index in range(low, high) if begun <= max(faults[index][1:]) + after]


def _figures(lengths: Sequence[float | None]) -> Figures:
    measured = [length for length in lengths if length is not None]
    return Figures(len(lengths), len(measured), statistics.median(measured or [0.0]), max(measured, default=0.0))
