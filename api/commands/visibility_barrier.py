"""Read-your-writes barrier. The worker writes the facts and the outcome of a command before the rows that the command
changed. An edge may therefore receive them first. The barrier holds them until the replica has applied their position.
"""

from __future__ import annotations

from collections.abc import Callable

from schemas.facts import Fact, Outcome

__all__ = ["VisibilityBarrier"]


class VisibilityBarrier:
    """Outcomes and facts that the replica of one edge does not show yet. `position_of` returns the replica's position
    of a partition."""

    def __init__(self, position_of: Callable[[int], int]) -> None:
        self._position_of = position_of
        self._waiting: list[tuple[int, Fact | Outcome]] = []

    def add(self, partition: int, fact: Fact | Outcome) -> None:
        """Holds an outcome or a fact of this partition."""
        self._waiting.append((partition, fact))

    def pop_visible(self) -> list[Fact | Outcome]:
        """Removes and returns those whose position the replica has applied, in the order they were added."""
        waiting, self._waiting, visible = self._waiting, [], []
        for partition, fact in waiting:
            if self._position_of(partition) > fact.pos:
                visible.append(fact)
            else:
                self._waiting.append((partition, fact))
        return visible
