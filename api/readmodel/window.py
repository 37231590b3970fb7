"""A reader's window and what a batch changes in it: fold(snapshot, frames) is the fresh page (law 4). Pure.

The window is the first `limit` sort keys of the reader's ranked list, or fewer: it ends before the item that would make
its rows more than `PAGE_BYTES`. A page ends at the same item (`first`), so both stay equal whatever the items weigh. A
batch costs it what the batch changed, never the length of the inbox: items that move are found by their keys, and what
leaves room is filled from below the window.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from api.readmodel.changes import Changes, ItemChange
from api.readmodel.readers import Counts, Reader
from schemas.views import ItemRow, MarkRow
from streams.core.domain.drafts import draft_users
from streams.core.domain.rank import ID_OFFSET, is_pinned, pinned_sort_key, sort_key

__all__ = ["PAGE_BYTES", "Frame", "View", "Window", "first_page"]

# Bytes of rows in a page or a window, unless one item alone has more: 500 items of 8 KB. An item may have 128 KiB, so
# without it a page could have 64 MB, which takes half a second to make and several times its size in memory.
PAGE_BYTES = 4 << 20


class Frame(NamedTuple):
    """`event` and what it is about: the sort key of an item added or changed, the id of one removed."""

    event: str
    key: bytes = b""
    reason: str = ""
    action: str | None = None


class View(Protocol):
    """A workspace at one position, as the window asks it."""

    def item(self, item: bytes) -> ItemRow | None: ...
    def mark(self, user: str, item: bytes) -> MarkRow | None: ...
    def pins(self, user: str) -> frozenset[str]: ...
    def ranked(self, reader: Reader, pins: frozenset[str], after: bytes | None = None) -> Iterator[bytes]: ...
    def counts(self, reader: Reader) -> Counts: ...
    def row_size(self, key: bytes) -> int:
        """Bytes of the row of the item with this sort key."""


def first_page(keys: Iterator[bytes], view: View, limit: int) -> tuple[list[bytes], bool]:
    """The page of these sort keys: at most `limit` of them and PAGE_BYTES of rows, but at least one. Also returns
    whether more keys follow."""
    found: list[bytes] = []
    left = PAGE_BYTES
    for key in keys:
        left -= view.row_size(key)
        if len(found) == limit or (found and left < 0):
            return found, True
        found.append(key)
    return found, False


class Window:
    """The first items of a reader's list, at most `limit`, kept up to date batch by batch."""

    __slots__ = ("_bytes", "_sizes", "complete", "counts", "keys", "limit", "pins", "reader")

    def __init__(self, reader: Reader, limit: int, view: View) -> None:
        self.reader = reader
        self.limit = limit
        self.pins = view.pins(reader.user)
        self.counts = view.counts(reader)
        self.keys: list[bytes] = []
        self._sizes = array("Q")  # of the rows of `keys`
        self._bytes = 0  # their sum
        self.complete = False  # it holds the whole list: nothing lies below it
        self._read(view)

    def fork_for(self, user: str) -> Window:
        """A copy for one of those who shared this window, to go its own way from here."""
        new = object.__new__(Window)
        new.reader = Reader(self.reader.workspace_id, user, self.reader.roles)
        new.limit, new.pins, new.counts = self.limit, self.pins, self.counts
        new.keys, new.complete = self.keys.copy(), self.complete
        new._sizes, new._bytes = self._sizes[:], self._bytes
        return new

    def apply(self, changes: Changes, view: View) -> list[Frame]:
        """The frames of a batch, `view` being the workspace after it. A function of state, batch and reader alone."""
        reader, user = self.reader, self.reader.user
        touched: dict[bytes, ItemChange | None] = {
            change.id: change for change in changes.items if change.is_visible_to(reader)
        }
        prefers = bool(user) and any(row.user == user for row in changes.preferences)
        # Counting costs as much as the rest, and most changes leave the counts alone.
        recount = not all(change is not None and change.same_counts for change in touched.values())
        if user:
            for mark in changes.marks:
                if mark.user == user:
                    recount = True
                    row = view.item(mark.item.encode())
                    if row is not None and row.is_listed and reader.can_see(row.target_user_id, row.target_role):
                        touched.setdefault(mark.item.encode(), None)
        pins = view.pins(user) if prefers else self.pins
        frames: list[Frame] = []
        if pins != self.pins:
            frames = self._rearrange(pins, touched, view, recount)
        elif touched:
            frames = self._move(touched, view, recount)
        if any(reader.can_see(row.target_user_id, row.target_role) for row in changes.activity):
            frames.append(Frame("activity"))
        if user and any(user in draft_users(draft) for draft in changes.drafts):
            frames.append(Frame("drafts"))
        if prefers:
            frames.append(Frame("preferences"))
        return frames

    def _read(self, view: View) -> None:
        self.keys, self._sizes, self._bytes = [], array("Q"), 0
        self._fill(view)

    def _fill(self, view: View) -> list[bytes]:
        """Takes in what fits from below the window; the keys taken."""
        found = []
        self.complete = len(self.keys) < self.limit
        if self.complete:
            for key in view.ranked(self.reader, self.pins, self.keys[-1] if self.keys else None):
                size = view.row_size(key)
                if self.keys and self._bytes + size > PAGE_BYTES:
                    self.complete = False
                    break
                self._put(len(self.keys), key, size)
                found.append(key)
                if len(self.keys) == self.limit:
                    self.complete = False
                    break
        return found

    def _put(self, at: int, key: bytes, size: int) -> None:
        self.keys.insert(at, key)
        self._sizes.insert(at, size)
        self._bytes += size

    def _pop(self, at: int) -> bytes:
        self._bytes -= self._sizes.pop(at)
        return self.keys.pop(at)

    def _rearrange(
        self, pins: frozenset[str], touched: dict[bytes, ItemChange | None], view: View, recount: bool
    ) -> list[Frame]:
        """Other pins are another order: read the window anew. It costs a page, and happens when a person pins."""
        gone = {key[ID_OFFSET:]: key for key in self.keys}
        self.pins = pins
        self._read(view)
        came = {key[ID_OFFSET:]: key for key in self.keys}
        return self._frames(gone, came, touched, view, recount)

    def _move(self, touched: dict[bytes, ItemChange | None], view: View, recount: bool) -> list[Frame]:
        keys, bound = self.keys, None if self.complete else self.keys[-1]
        gone: dict[bytes, bytes] = {}
        came: dict[bytes, bytes] = {}
        for item, change in touched.items():
            old, new = self._keys(item, change, view)
            if old is not None:
                at = bisect_left(keys, old)
                if at < len(keys) and keys[at] == old:
                    self._pop(at)
                    gone[item] = old
            if new is not None and (bound is None or new <= bound):
                self._put(bisect_left(keys, new), new, view.row_size(new))
                came[item] = new
        while len(keys) > self.limit or (self._bytes > PAGE_BYTES and len(keys) > 1):
            self.complete = False
            key = self._pop(-1)
            if came.pop(key[ID_OFFSET:], None) is None:
                gone[key[ID_OFFSET:]] = key
        if not self.complete:
            # Also where nothing left: what is just below the window may weigh less than before.
            came.update((key[ID_OFFSET:], key) for key in self._fill(view))
        return self._frames(gone, came, touched, view, recount)

    def _keys(self, item: bytes, change: ItemChange | None, view: View) -> tuple[bytes | None, bytes | None]:
        """Where the item may have been in the window, and where it belongs now, if anywhere."""
        if change is None:
            row = view.item(item)
            old = new = sort_key(row) if row is not None and row.is_listed else None
            was = row
        else:
            was, row, old, new = change.old, change.new, change.old_key, change.new_key
        if old is not None and self.pins and is_pinned(was, self.pins):  # type: ignore[arg-type]
            old = pinned_sort_key(old)
        if new is not None and row is not None:
            if not self.reader.can_see(row.target_user_id, row.target_role) or self._away(row, view) is not None:
                new = None
            elif self.pins and is_pinned(row, self.pins):
                new = pinned_sort_key(new)
        return old, new

    def _away(self, row: ItemRow, view: View) -> MarkRow | None:
        mark = view.mark(self.reader.user, row.id.encode()) if self.reader.user else None
        return mark if mark is not None and mark.surge == row.surge else None

    def _frames(
        self, gone: dict[bytes, bytes], came: dict[bytes, bytes], touched: dict[bytes, ItemChange | None], view: View,
        recount: bool,
    ) -> list[Frame]:
        frames = [self._removed(item, touched.get(item), view) for item in sorted(gone.keys() - came.keys())]
        for key in sorted(came.values()):
            item = key[ID_OFFSET:]
            if item not in gone:
                frames.append(Frame("added", key))
            elif gone[item] != key or touched.get(item) is not None:
                frames.append(Frame("changed", key))
        if not recount:
            return frames
        counts = view.counts(self.reader)
        if not frames and counts != self.counts:
            # Something beyond the window changed what is counted: the frame says what, the counts are its point.
            item = min(touched.keys() - came.keys())
            frames.append(self._removed(item, touched[item], view))
        self.counts = counts
        return frames

    def _removed(self, item: bytes, change: ItemChange | None, view: View) -> Frame:
        row = change.new if change is not None else view.item(item)
        if row is None:
            return Frame("removed", item, "resolved")
        # Asked first: of an item that is no longer the reader's, nothing may be told but that.
        if not self.reader.can_see(row.target_user_id, row.target_role):
            return Frame("removed", item, "retargeted")
        if not row.is_open:
            return Frame("removed", item, "resolved", row.resolved_action)
        if row.incident is not None:
            return Frame("removed", item, "grouped")
        mark = self._away(row, view)
        if mark is not None:
            return Frame("removed", item, "dismissed" if mark.until is None else "snoozed")
        return Frame("removed", item, "beyond")
