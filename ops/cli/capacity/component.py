"""One row of a plan: how many processes of a role, what each needs, and which resource decides the number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Component", "TooLarge", "fewest", "limiting"]


class TooLarge(Exception):
    """No number of processes of one installation suffices. The message names the role and the resource."""


@dataclass(frozen=True, slots=True)
class Component:
    """`needs`: the number that each resource alone requires. `cores`, `memory_gb`, `disk_gb` and `network_mb_s` are
    those of the busiest process at the peak; 0: not modelled."""

    name: str
    count: int
    limited_by: str
    needs: Mapping[str, int]
    cores: float = 0.0
    memory_gb: float = 0.0
    disk_gb: float = 0.0
    network_mb_s: float = 0.0


def limiting(needs: Mapping[str, int]) -> tuple[int, str]:
    """Returns the largest need and its resource; of equal needs, the first."""
    count = max(needs.values())
    return count, next(resource for resource, need in needs.items() if need == count)


def fewest(numbers: Sequence[int], suffices: Callable[[int], bool]) -> int | None:
    """Returns the first of the ascending numbers that suffices, None if none does.

    A larger number than one that suffices must suffice, too."""
    low, high = 0, len(numbers)
    while low < high:
        middle = (low + high) // 2
        if suffices(numbers[middle]):
            high = middle
        else:
            low = middle + 1
    return numbers[low] if low < len(numbers) else None
