"""Readers, their audiences, and item counts per audience. Indexes, pages and feeds use these terms. Pure.

An item is indexed under its audiences: everybody in the workspace, a role, a user. A reader's list is the merge of the
audiences that the reader belongs to. An item for a user and a role is in two lists, therefore the counts of a reader
subtract what two audiences share (the overlap).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from sys import intern

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
    """Returns the two audiences of items that are for this user and this role."""
    return user_audience(user), role_audience(role)


def audiences_of(target_user_id: str | None, target_role: str | None) -> tuple[str, ...]:
    """Returns the audiences of a row with these targets. Same rule as `streams.core.domain.visibility.can_see`."""
    if target_user_id is None:
        return (EVERYBODY,) if target_role is None else (role_audience(target_role),)
    if target_role is None:
        return (user_audience(target_user_id),)
    return user_audience(target_user_id), role_audience(target_role)


@dataclass(frozen=True, slots=True)
class Reader:
    """A user in a workspace. `user` "" stands for all users who hold `roles` and have no personal rows."""

    workspace_id: str
    user: str
    roles: frozenset[str]
    audiences: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        own = (user_audience(self.user),) if self.user else ()
        object.__setattr__(self, "audiences", (EVERYBODY, *map(role_audience, sorted(self.roles)), *own))

    def can_see(self, target_user_id: str | None, target_role: str | None) -> bool:
        """Returns whether the reader may see a row with these targets."""
        return can_see(target_user_id, target_role, self.user, self.roles)

    def overlaps(self) -> Iterator[tuple[str, str]]:
        """Returns the pairs of the reader's audiences that can share items: the user and each role."""
        return (overlap_of(self.user, role) for role in self.roles) if self.user else iter(())


class Counts(msgspec.Struct, frozen=True):
    """Counts of a reader's list without dismissed items. The two tables hold no zeros (CONTRACT: `counts`)."""

    total: int
    unread: int
    by_kind: dict[str, int]
    by_priority: dict[str, int]


class ItemCounts:
    """Counts of the listed items of one audience, or of one overlap."""

    __slots__ = ("kinds", "priorities", "total", "unread")

    def __init__(self) -> None:
        self.total = self.unread = 0
        self.kinds: dict[str, int] = {}
        self.priorities: dict[str, int] = {}

    def count(self, row: ItemRow, step: int) -> None:
        """Adds the item with `step` 1, removes it with `step` -1."""
        self.total += step
        self.unread += step * (row.state == "unread")
        # Interned: each decoded row has strings of its own, and an edge keeps thousands of these tables.
        kind, priority = intern(row.kind), intern(row.priority)
        self.kinds[kind] = self.kinds.get(kind, 0) + step
        self.priorities[priority] = self.priorities.get(priority, 0) + step

    def add(self, other: ItemCounts, sign: int) -> None:
        """Adds the other counts with `sign` 1, subtracts them with `sign` -1."""
        self.total += sign * other.total
        self.unread += sign * other.unread
        for table, added in ((self.kinds, other.kinds), (self.priorities, other.priorities)):
            for name, number in added.items():
                table[name] = table.get(name, 0) + sign * number

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
