"""What one batch changed in a workspace: the rows before and after it."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import attrgetter

from api.readmodel.readers import Reader
from schemas.views import ActivityRow, DraftRow, ItemRow, MarkRow, PreferencesRow
from streams.core.domain.drafts import draft_users
from streams.core.domain.rank import sort_key

__all__ = ["Changes", "ItemChange"]

_counted = attrgetter("state", "kind", "priority", "target_user_id", "target_role", "surge")


class ItemChange:
    """One item's row before and after. The keys are those without pins, None where it was not or is not listed."""

    __slots__ = ("id", "new", "new_key", "old", "old_key", "same_counts")

    def __init__(self, old: ItemRow | None, new: ItemRow | None) -> None:
        row = new if new is not None else old
        assert row is not None
        self.id = row.id.encode()
        self.old, self.new = old, new
        self.old_key = sort_key(old) if old is not None and old.is_listed else None
        self.new_key = sort_key(new) if new is not None and new.is_listed else None
        # For every reader: nothing that is counted, or decides who sees it, is another than before.
        self.same_counts = (
            self.old_key is not None and self.new_key is not None and _counted(old) == _counted(new))

    def is_visible_to(self, reader: Reader) -> bool:
        """Whether it was or is in the list of the reader, marks aside."""
        return (
            self.new_key is not None and reader.can_see(self.new.target_user_id, self.new.target_role)  # type: ignore[union-attr]
        ) or (
            self.old_key is not None and reader.can_see(self.old.target_user_id, self.old.target_role)  # type: ignore[union-attr]
        )



@dataclass(slots=True)
class Changes:
    """What one batch changed in one workspace: rows before and after."""

    items: list[ItemChange] = field(default_factory=list)
    marks: list[MarkRow] = field(default_factory=list)  # before or after: whose, and on what, is all that matters
    drafts: list[DraftRow] = field(default_factory=list)
    preferences: list[PreferencesRow] = field(default_factory=list)
    activity: list[ActivityRow] = field(default_factory=list)

    def affected_users(self) -> set[str]:
        """Everybody for whom something personal may have begun or ended: such a reader needs a window of their own."""
        found = {mark.user for mark in self.marks} | {row.user for row in self.preferences}
        for change in self.items:
            found.update(row.target_user_id for row in (change.old, change.new) if row and row.target_user_id)
        found.update(row.target_user_id for row in self.activity if row.target_user_id)
        for draft in self.drafts:
            found.update(draft_users(draft))
        return found
