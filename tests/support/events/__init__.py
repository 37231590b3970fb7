"""Valid source events of every type: from hypothesis (`sequences`), or from a seed (`support.events.generator`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hypothesis import strategies as st
from support.events.generator import (
    CLUSTERS,
    END,
    ROLES,
    SLOT,
    SLOTS,
    START,
    USERS,
    WORKSPACES,
    Line,
    event,
    garbage,
    generate,
    untied,
)

__all__ = [
    "CLUSTERS", "END", "ROLES", "SLOT", "SLOTS", "START", "USERS", "WORKSPACES", "Line", "garbage", "generate",
    "sequences",
]

T = TypeVar("T")


class Drawn:
    """`Pick` whose choices hypothesis draws."""

    def __init__(self, draw: Callable[[Any], Any]) -> None:
        self._draw = draw

    def one(self, options: Sequence[T]) -> T:
        return self._draw(st.sampled_from(options))  # type: ignore[no-any-return]

    def number(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))  # type: ignore[no-any-return]


def sequences(max_size: int = 40, **options: Any) -> st.SearchStrategy[list[Line]]:
    """Returns a strategy for lists of lines in any order of time, without repeats; callers add these."""
    one = st.composite(lambda draw: event(Drawn(draw), **options))()
    # By default hypothesis draws about five elements. Collisions of events need more.
    return st.one_of(st.lists(one, max_size=8), st.lists(one, min_size=max_size // 3, max_size=max_size)).map(untied)
