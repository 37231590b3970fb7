"""Who reads, and by what order and counts: the words that the edge's indexes, pages and feeds share. Pure.

An item is filed under its *audiences*: everybody of the workspace, a role, a user. A reader's list is the merge of the
audiences the reader belongs to. An item addressed to a user and a role is in both lists, so counts take off what is
counted twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from schemas.views import ItemRow
from streams.core.domain.rank import BANDS
from streams.core.domain.visibility import can_see

__all__ = [
    "EVERYBODY", "Counts", "ItemCounts", "Reader", "audiences_of", "overlap_of", "role_audience", "user_audience",
]

EVERYBODY = "*"


def role_audience(role: str) -> str:
    return "r:" + role


def user_audience(user: str) -> str:
    return "u:" + user


def overlap_of(user: str, role: str) -> tuple[str, str]:
    """The name under which items addressed to this user and this role are counted, to be taken off once."""
    return user_audience(user), role_audience(role)


def audiences_of(target_user_id: str | None, target_role: str | None) -> tuple[str, ...]:
    """Where a row with these targets is filed; the same rule as `can_see`."""
    if target_user_id is None:
        return (EVERYBODY,) if target_role is None else (role_audience(target_role),)
    if target_role is None:
        return (user_audience(target_user_id),)
    return user_audience(target_user_id), role_audience(target_role)


@dataclass(frozen=True, slots=True)
class Reader:
    """Somebody in a workspace. `user` "" is nobody in particular: whoever holds `roles` and has nothing personal."""

    workspace_id: str
    user: str
    roles: frozenset[str]
    audiences: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        mine = (user_audience(self.user),) if self.user else ()
        object.__setattr__(self, "audiences", (EVERYBODY, *map(role_audience, sorted(self.roles)), *mine))

    def can_see(self, target_user_id: str | None, target_role: str | None) -> bool:
        return can_see(target_user_id, target_role, self.user, self.roles)

    def overlaps(self) -> Iterator[tuple[str, str]]:
        """Names of what is in two of the reader's audiences."""
        return (overlap_of(self.user, role) for role in self.roles) if self.user else iter(())


class Counts(msgspec.Struct, frozen=True):
    """Of a reader's whole inbox, less what the reader put away; zeros are left out of the two tables."""

    total: int
    unread: int
    by_kind: dict[str, int]
    by_priority: dict[str, int]


class ItemCounts:
    """How many listed items are filed under one name."""

    __slots__ = ("kinds", "priorities", "total", "unread")

    def __init__(self) -> None:
        self.total = self.unread = 0
        self.kinds: dict[str, int] = {}
        self.priorities: dict[str, int] = {}

    def count(self, row: ItemRow, step: int) -> None:
        self.total += step
        self.unread += step * (row.state == "unread")
        self.kinds[row.kind] = self.kinds.get(row.kind, 0) + step
        self.priorities[row.priority] = self.priorities.get(row.priority, 0) + step

    def add(self, other: ItemCounts, sign: int) -> None:
        self.total += sign * other.total
        self.unread += sign * other.unread
        for mine, theirs in ((self.kinds, other.kinds), (self.priorities, other.priorities)):
            for name, number in theirs.items():
                mine[name] = mine.get(name, 0) + sign * number

    def copy(self) -> ItemCounts:
        new = ItemCounts()
        new.add(self, 1)
        return new

    def to_counts(self) -> Counts:
        return Counts(
            self.total, self.unread,
            {kind: self.kinds[kind] for kind in sorted(self.kinds) if self.kinds[kind]},
            {name: self.priorities[name] for name in BANDS if self.priorities.get(name)},
        )
