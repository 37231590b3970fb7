"""Random events for the simulation: times with bursts, and workspaces by Zipf's law. The same seed gives the same."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator
from itertools import accumulate, islice
from random import Random

from ops.cli.capacity.skew import Shares
from schemas.topics import partition_of

__all__ = ["Workspaces", "arrivals"]

_NAMED = 20_000  # workspaces with a name of their own; each of the rest is too small to load a partition
_BURST_SHARE = 0.1  # of the time
_SLOT = 1.0  # seconds; one slot of ten is a burst


class Workspaces:
    """Workspaces by rank, their shares, and the partition of each by the hash of its name."""

    def __init__(self, shares: Shares, partitions: int, random: Random) -> None:
        self._random, self._partitions = random, partitions
        each = (share for number, share in shares.groups for _ in range(max(1, round(number))))
        self.shares = list(islice(each, _NAMED))
        self._cumulative = list(accumulate(self.shares))
        self._total = max(1.0, self._cumulative[-1])
        self._partition = [partition_of(f"ws_{rank}", partitions) for rank in range(len(self.shares))]

    def draw(self) -> tuple[int, int]:
        """Returns rank and partition of the workspace of an event; rank -1: one of the many small ones."""
        rank = bisect(self._cumulative, self._random.random() * self._total)
        if rank < len(self.shares):
            return rank, self._partition[rank]
        return -1, self._random.randrange(self._partitions)


def arrivals(rate: float, seconds: float, burst: float, random: Random) -> Iterator[float]:
    """Yields times of a Poisson process. In a tenth of the time its rate is `burst` times the average."""
    rest = (1 - _BURST_SHARE * burst) / (1 - _BURST_SHARE)
    time = random.expovariate(1.0)  # in expected events: one unit passes for each event
    passed = slot = 0.0
    while slot < seconds:
        length = min(_SLOT, seconds - slot)
        current = rate * (burst if round(slot / _SLOT) % round(1 / _BURST_SHARE) == 5 else rest)
        end = passed + current * length
        while time < end:
            yield slot + (time - passed) / current
            time += random.expovariate(1.0)
        passed, slot = end, slot + length
