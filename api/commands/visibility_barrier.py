"""Outcomes wait here until the view shows what they speak of: facts are written before rows, so they come first."""

from __future__ import annotations

from collections.abc import Callable

from schemas.facts import Outcome

__all__ = ["Shown"]


class Shown:
    """`position_of`: where this edge's view of a partition is."""

    def __init__(self, position_of: Callable[[int], int]) -> None:
        self._position_of = position_of
        self._waiting: list[tuple[int, Outcome]] = []

    def add(self, partition: int, outcome: Outcome) -> None:
        self._waiting.append((partition, outcome))

    def take(self) -> list[Outcome]:
        """Those that the view shows now, in their order; the others go on waiting."""
        waiting, self._waiting, found = self._waiting, [], []
        for partition, outcome in waiting:
            if self._position_of(partition) > outcome.pos:
                found.append(outcome)
            else:
                self._waiting.append((partition, outcome))
        return found
