"""Read-your-writes barrier. The worker writes the outcome of a command before the rows that the command changed. An
edge may therefore receive the outcome first. The barrier holds outcomes until the replica has applied their position.
"""

from __future__ import annotations

from collections.abc import Callable

from schemas.facts import Outcome

__all__ = ["VisibilityBarrier"]


class VisibilityBarrier:
    """Outcomes of one edge that its replica does not show yet. `position_of` returns the replica's position of a
    partition."""

    def __init__(self, position_of: Callable[[int], int]) -> None:
        self._position_of = position_of
        self._waiting: list[tuple[int, Outcome]] = []

    def add(self, partition: int, outcome: Outcome) -> None:
        """Holds an outcome of this partition."""
        self._waiting.append((partition, outcome))

    def pop_visible(self) -> list[Outcome]:
        """Removes and returns the outcomes whose position the replica has applied, in the order they were added."""
        waiting, self._waiting, visible = self._waiting, [], []
        for partition, outcome in waiting:
            if self._position_of(partition) > outcome.pos:
                visible.append(outcome)
            else:
                self._waiting.append((partition, outcome))
        return visible
