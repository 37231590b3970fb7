"""What one batch changed in one workspace: the rows before and after it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple

from api.readmodel.readers import Reader
from schemas.views import ActivityRow, DraftRow, ItemRow, MarkRow, PreferencesRow
from streams.core.domain.drafts import draft_users
from streams.core.domain.rank import sort_key

__all__ = ["Changes", "ItemChange", "ListedRow"]

_counted_fields = attrgetter("state", "kind", "priority", "target_user_id", "target_role", "surge")


class ListedRow(NamedTuple):
    """A row that is in the ranked list, and its sort key without pins."""

    row: ItemRow
    key: bytes

    @classmethod
    def of(cls, row: ItemRow | None) -> ListedRow | None:
        """Returns None if there is no row or the row is not in the ranked list."""
        return cls(row, sort_key(row)) if row is not None and row.is_listed else None


class ItemChange:
    """The row of one item before and after a batch. At least one of the two rows exists.

    `listed_before` and `listed_after` are None if the item was or is not in the ranked list. `same_counts` is true if
    no field that is counted, or that decides who sees the item, has changed.
    """

    __slots__ = ("id", "listed_after", "listed_before", "row_after", "row_before", "same_counts")

    def __init__(self, before: ItemRow | None, after: ItemRow | None) -> None:
        row = after if after is not None else before
        assert row is not None
        self.id = row.id.encode()
        self.row_before, self.row_after = before, after
        self.listed_before, self.listed_after = ListedRow.of(before), ListedRow.of(after)
        self.same_counts = (
            self.listed_before is not None and self.listed_after is not None
            and _counted_fields(before) == _counted_fields(after))

    @classmethod
    def unchanged(cls, row: ItemRow) -> ItemChange:
        """Returns the change of an item whose row stayed the same, for a reader whose mark on it changed."""
        return cls(row, row)

    def is_visible_to(self, reader: Reader) -> bool:
        """Returns whether the item was or is in the reader's list, without regard to the reader's marks."""
        after, before = self.listed_after, self.listed_before
        return (
            after is not None and reader.can_see(after.row.target_user_id, after.row.target_role)
        ) or (
            before is not None and reader.can_see(before.row.target_user_id, before.row.target_role)
        )


@dataclass(slots=True)
class Changes:
    """What one batch changed in one workspace. Each list but `items` holds the rows before and the rows after."""

    items: list[ItemChange] = field(default_factory=list)
    marks: list[MarkRow] = field(default_factory=list)  # only the user and the item of each are used
    drafts: list[DraftRow] = field(default_factory=list)
    preferences: list[PreferencesRow] = field(default_factory=list)
    activity: list[ActivityRow] = field(default_factory=list)
    of_sources: bool = False  # whether a decision changed, or a key of a source

    @property
    def concerns_sources(self) -> bool:
        """Returns whether a key, a decision, or an item that asks has changed."""
        return self.of_sources or any(
            row is not None and row.question is not None
            for change in self.items for row in (change.row_before, change.row_after))

    def affected_users(self) -> set[str]:
        """Returns the users whose view of the workspace may now differ from that of others with the same roles."""
        users = {mark.user for mark in self.marks} | {row.user for row in self.preferences}
        for change in self.items:
            rows = (change.row_before, change.row_after)
            users.update(row.target_user_id for row in rows if row and row.target_user_id)
        users.update(row.target_user_id for row in self.activity if row.target_user_id)
        for draft in self.drafts:
            users.update(draft_users(draft))
        return users
