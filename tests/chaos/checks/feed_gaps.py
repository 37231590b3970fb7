"""Silences of readers, and the fault to which each is attributed. Pure."""

from __future__ import annotations

import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["Fault", "Figures", "by_kind"]

_LONGEST = 100.0  # seconds; no fault lasts longer


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of one kind of fault: its count, the number of measured ones, which no other fault hid, and the longest
    silence of a reader after each of those, in seconds."""

    count: int
    measured: int
    p50: float
    most: float


Fault = tuple[str, float, float]  # kind, begin, end


def by_kind(
    faults: Iterable[Fault], readers: Iterable[Sequence[float]], weight: Mapping[str, int], usual: float,
    after: float = 2.0,
) -> dict[str, Figures]:
    """Returns figures by kind. `readers`: times at which each received something new, ascending; `usual`: an interval
    that is no silence.

    A silence is attributed to one fault: the heaviest (`weight`) of those that were active when it began, or had ended
    at most `after` seconds before. It hides the others of them, and faults that began during the silence. A fault
    without a silence that is not hidden has the interval between two frames in which it began.
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
                # Of equal weights, the one that began last before the silence.
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
    """Returns the faults that were active during the silence or had just ended."""
    low = bisect_left(faults, begun - _LONGEST, key=lambda one: one[1])
    high = bisect_right(faults, ended, key=lambda one: one[1])
    return [index for index in range(low, high) if begun <= max(faults[index][1:]) + after]


def _figures(lengths: Sequence[float | None]) -> Figures:
    measured = [length for length in lengths if length is not None]
    return Figures(len(lengths), len(measured), statistics.median(measured or [0.0]), max(measured, default=0.0))
