"""Sizes of workspaces by Zipf's law: the largest share, the fan-out, and the hottest of several partitions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["Shares", "zipf"]

_EXACT = 200  # ranks that are summed one by one; later ranks are summed in groups of growing size
_GROWTH = 1.02


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of workspaces in the whole, the largest first: pairs of a number of workspaces and the share of each."""

    groups: tuple[tuple[float, float], ...]
    squares: float  # sum of the squared shares of all workspaces but the largest

    @classmethod
    def of(cls, groups: Sequence[tuple[float, float]]) -> Shares:
        squares = sum(number * share * share for number, share in groups) - groups[0][1] ** 2
        return cls(tuple(groups), max(0.0, squares))

    @property
    def largest(self) -> float:
        """Returns the share of the largest workspace."""
        return self.groups[0][1]

    def hottest(self, partitions: int) -> float:
        """Returns a share that the hottest of so many partitions hardly exceeds; at most 1.

        It is the largest workspace, an equal part of the rest, and three standard deviations of the rest's distribution
        by hash."""
        spread = math.sqrt(self.squares / partitions * (1 - 1 / partitions))
        return min(1.0, self.largest + (1 - self.largest) / partitions + 3 * spread)

    def split(self, installations: int) -> tuple[float, Shares]:
        """Returns the share of the whole that the busiest of so many installations carries, which is the one with the
        largest workspace, and the shares of the workspaces within it. Workspaces are spread evenly."""
        part = self.largest + (1 - self.largest) / installations
        rest = ((number - (index == 0)) / installations for index, (number, _) in enumerate(self.groups))
        inside = [(number, share / part) for number, (_, share) in zip(rest, self.groups, strict=True)]
        return part, Shares.of(
            [(1.0, self.largest / part), *(group for group in inside if group[0] > 0)])

    def fan_out(self, streams: float, audience: float) -> float:
        """Returns the streams that an average event reaches: those of its workspace, at most `audience` unless 0."""
        limit = audience or math.inf
        return sum(number * share * min(streams * share, limit) for number, share in self.groups)


@lru_cache(maxsize=256)
def zipf(workspaces: int, exponent: float) -> Shares:
    """Returns the shares of workspaces whose sizes are proportional to rank^-exponent. They add up to 1."""
    weights: list[tuple[float, float]] = [
        (1.0, rank ** -exponent) for rank in range(1, min(workspaces, _EXACT) + 1)]
    first = _EXACT + 1
    while first <= workspaces:
        last = min(workspaces, math.ceil(first * _GROWTH))
        weights.append((last - first + 1.0, math.sqrt(first * last) ** -exponent))
        first = last + 1
    total = sum(number * weight for number, weight in weights)
    return Shares.of([(number, weight / total) for number, weight in weights])
