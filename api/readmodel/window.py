"""Window: the first items of a reader's ranked list, kept up to date batch by batch. Pure.

A feed sends the window as a snapshot and then the frames of each batch. Law 4: the snapshot with the frames applied
equals a page that is read afresh.

A window holds the first `limit` sort keys of the list. It holds fewer if the next item would raise the bytes of its
rows above `PAGE_BYTES`. A page ends at the same item (`listing.first_page`).

A batch costs what the batch changed, not the length of the inbox. Binary search locates the items that moved. Items
from below the window fill the room that others left.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import NamedTuple

from api.readmodel import listing
from api.readmodel.changes import Changes, ItemChange
from api.readmodel.readers import Reader
from api.readmodel.workspace import Workspace
from schemas.views import ItemRow, MarkRow
from streams.core.domain.drafts import draft_users
from streams.core.domain.rank import ID_OFFSET, is_pinned, pinned_sort_key

__all__ = ["Frame", "Window"]


class Frame(NamedTuple):
    """One frame of a feed, not encoded yet.

    `key` is the sort key of an item that was added or changed, or the id of an item that was removed.
    """

    event: str
    key: bytes = b""
    reason: str = ""
    action: str | None = None


class TouchedItem(NamedTuple):
    """An item that a batch may have moved. `mark_only`: the row is the same, only the reader's mark changed."""

    change: ItemChange
    mark_only: bool


@dataclass(slots=True)
class Delta:
    """What a batch does to a window. The three tables are by item id.

    `left` and `entered` hold the sort keys that were removed from the window and added to it. An item that moved is in
    both. `recount` is true if the counts of the reader may have changed.
    """

    touched: dict[bytes, TouchedItem]
    recount: bool
    left: dict[bytes, bytes] = field(default_factory=dict)
    entered: dict[bytes, bytes] = field(default_factory=dict)


class Window:
    """The first items of a reader's list, at most `limit`. `complete` is true if the window holds the whole list."""

    __slots__ = ("_bytes", "_sizes", "complete", "counts", "keys", "limit", "pins", "reader")

    def __init__(self, reader: Reader, limit: int, workspace: Workspace) -> None:
        self.reader = reader
        self.limit = limit
        self.pins = workspace.pins(reader.user)
        self.counts = workspace.counts(reader)
        self.keys: list[bytes] = []
        self._sizes = array("Q")  # bytes of each row of `keys`
        self._bytes = 0  # sum of `_sizes`
        self.complete = False
        self._fill(workspace)

    def fork_for(self, user: str) -> Window:
        """Returns a copy for one user who shared this window until now."""
        fork = object.__new__(Window)
        fork.reader = Reader(self.reader.workspace_id, user, self.reader.roles)
        fork.limit, fork.pins, fork.counts = self.limit, self.pins, self.counts
        fork.keys, fork.complete = self.keys.copy(), self.complete
        fork._sizes, fork._bytes = self._sizes[:], self._bytes
        return fork

    def apply(self, changes: Changes, workspace: Workspace) -> list[Frame]:
        """Returns the frames of a batch. `workspace` is the workspace after the batch.

        The result depends on the window, the workspace and the batch only, therefore every edge sends the same frames.
        """
        reader, user = self.reader, self.reader.user
        delta = self._touched_items(changes, workspace)
        preferences_changed = bool(user) and any(row.user == user for row in changes.preferences)
        pins = workspace.pins(user) if preferences_changed else self.pins
        frames: list[Frame] = []
        if pins != self.pins:
            self._reload(pins, delta, workspace)
            frames = self._item_frames(delta, workspace)
        elif delta.touched:
            self._move(delta, workspace)
            frames = self._item_frames(delta, workspace)
        if any(reader.can_see(row.target_user_id, row.target_role) for row in changes.activity):
            frames.append(Frame("activity"))
        if user and any(user in draft_users(draft) for draft in changes.drafts):
            frames.append(Frame("drafts"))
        if preferences_changed:
            frames.append(Frame("preferences"))
        return frames

    def _touched_items(self, changes: Changes, workspace: Workspace) -> Delta:
        """Returns the items of the batch that the reader saw or sees, by row or by the reader's own mark."""
        reader, user = self.reader, self.reader.user
        touched = {
            change.id: TouchedItem(change, False) for change in changes.items if change.is_visible_to(reader)
        }
        # Counting costs as much as all other steps together, and most changes do not change the counts.
        delta = Delta(touched, recount=not all(item.change.same_counts for item in touched.values()))
        if not user:
            return delta
        for mark in changes.marks:
            if mark.user == user:
                delta.recount = True
                item = mark.item.encode()
                row = workspace.item(item)
                if (item not in touched and row is not None and row.is_listed
                        and reader.can_see(row.target_user_id, row.target_role)):
                    touched[item] = TouchedItem(ItemChange.unchanged(row), True)
        return delta

    def _fill(self, workspace: Workspace) -> list[bytes]:
        """Appends the items from below the window that fit. Returns their sort keys."""
        appended: list[bytes] = []
        self.complete = len(self.keys) < self.limit
        if not self.complete:
            return appended
        last = self.keys[-1] if self.keys else None
        for key in listing.ranked(workspace, self.reader, self.pins, last):
            size = workspace.row_size(key)
            if self.keys and self._bytes + size > listing.PAGE_BYTES:
                self.complete = False
                break
            self._insert(len(self.keys), key, size)
            appended.append(key)
            if len(self.keys) == self.limit:
                self.complete = False
                break
        return appended

    def _insert(self, index: int, key: bytes, size: int) -> None:
        self.keys.insert(index, key)
        self._sizes.insert(index, size)
        self._bytes += size

    def _pop(self, index: int) -> bytes:
        self._bytes -= self._sizes.pop(index)
        return self.keys.pop(index)

    def _reload(self, pins: frozenset[str], delta: Delta, workspace: Workspace) -> None:
        """Reads the window again in the order of other pins. Costs a page, each time the user changes the pins."""
        delta.left = {key[ID_OFFSET:]: key for key in self.keys}
        self.pins = pins
        self.keys, self._sizes, self._bytes = [], array("Q"), 0
        self._fill(workspace)
        delta.entered = {key[ID_OFFSET:]: key for key in self.keys}

    def _move(self, delta: Delta, workspace: Workspace) -> None:
        """Moves the touched items, then drops what exceeds the limits, then fills from below."""
        keys, last = self.keys, None if self.complete else self.keys[-1]
        for item, touched in delta.touched.items():
            before = self._key_before(touched)
            if before is not None:
                index = bisect_left(keys, before)
                if index < len(keys) and keys[index] == before:
                    self._pop(index)
                    delta.left[item] = before
            after = self._key_after(touched, workspace)
            if after is not None and (last is None or after <= last):
                self._insert(bisect_left(keys, after), after, workspace.row_size(after))
                delta.entered[item] = after
        while len(keys) > self.limit or (self._bytes > listing.PAGE_BYTES and len(keys) > 1):
            self.complete = False
            key = self._pop(-1)
            if delta.entered.pop(key[ID_OFFSET:], None) is None:
                delta.left[key[ID_OFFSET:]] = key
        if not self.complete:
            # Needed even if no item left: the first item below the window may have fewer bytes than before.
            delta.entered.update((key[ID_OFFSET:], key) for key in self._fill(workspace))

    def _key_before(self, touched: TouchedItem) -> bytes | None:
        """Returns the sort key under which the item may be in the window. None if the item was not listed."""
        listed = touched.change.listed_before
        if listed is None:
            return None
        return pinned_sort_key(listed.key) if self.pins and is_pinned(listed.row, self.pins) else listed.key

    def _key_after(self, touched: TouchedItem, workspace: Workspace) -> bytes | None:
        """Returns the sort key that the item has in the reader's list now. None if the item is not in the list."""
        listed = touched.change.listed_after
        if listed is None:
            return None
        row = listed.row
        if not self.reader.can_see(row.target_user_id, row.target_role) or self._dismissing_mark(row, workspace):
            return None
        return pinned_sort_key(listed.key) if self.pins and is_pinned(row, self.pins) else listed.key

    def _dismissing_mark(self, row: ItemRow, workspace: Workspace) -> MarkRow | None:
        """Returns the reader's mark if it hides the item. A mark of an earlier surge does not."""
        mark = workspace.mark(self.reader.user, row.id.encode()) if self.reader.user else None
        return mark if mark is not None and mark.surge == row.surge else None

    def _item_frames(self, delta: Delta, workspace: Workspace) -> list[Frame]:
        """Returns `removed` frames by item id, then `added` and `changed` frames by sort key."""
        left, entered, touched = delta.left, delta.entered, delta.touched
        frames = [
            self._removed_frame(item, touched.get(item), workspace) for item in sorted(left.keys() - entered.keys())]
        for key in sorted(entered.values()):
            item = key[ID_OFFSET:]
            if item not in left:
                frames.append(Frame("added", key))
            elif left[item] != key or (item in touched and not touched[item].mark_only):
                frames.append(Frame("changed", key))
        if not delta.recount:
            return frames
        counts = workspace.counts(self.reader)
        if not frames and counts != self.counts:
            # An item below the window changed the counts. Its `removed` frame carries the new counts to the reader.
            item = min(touched.keys() - entered.keys())
            frames.append(self._removed_frame(item, touched[item], workspace))
        self.counts = counts
        return frames

    def _removed_frame(self, item: bytes, touched: TouchedItem | None, workspace: Workspace) -> Frame:
        """Returns the `removed` frame with the reason. `touched` None: the batch did not touch the item."""
        row = touched.change.row_after if touched is not None else workspace.item(item)
        if row is None:
            return Frame("removed", item, "resolved")
        # Must be the first check: a reader who may not see the item any more must not learn any other reason.
        if not self.reader.can_see(row.target_user_id, row.target_role):
            return Frame("removed", item, "retargeted")
        if row.state == "decided":
            return Frame("removed", item, "decided")
        if not row.is_open:
            return Frame("removed", item, "resolved", row.resolved_action)
        if row.incident is not None:
            return Frame("removed", item, "grouped")
        mark = self._dismissing_mark(row, workspace)
        if mark is not None:
            return Frame("removed", item, "dismissed" if mark.until is None else "snoozed")
        return Frame("removed", item, "beyond")
