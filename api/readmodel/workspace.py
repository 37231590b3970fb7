"""Rows and indexes of one workspace. The indexes make a page cost its own length, not that of the inbox. Pure.

`rows` holds the rows as bytes. `sets` holds the indexes, sorted sets of keys by `IndexName`. The indexes of items are
in `api.readmodel.indexes`; the others are:

    dismissed, user, audience        listed items that the user dismissed, by rank
    marks, user                      row keys of the user's marks
    marks                            row keys of all marks, by item
    drafts, user                     drafts in progress, by time of the last edit
    activity, audience, kind         activity by time; with two audiences: what is in both

An edge builds the indexes when the workspace is first requested, and a family of item indexes when a request needs it:
most of a million rows belong to users who are not connected. `api.edge.index_builder` builds them in short time slices,
and `api.edge.index_eviction` drops them when nobody reads the workspace any more.

`rows`, `sets` and `tallies` may be overlays (`api.readmodel.rollback`). Then the same code shows an earlier position.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping
from sys import intern

from api.readmodel.indexes import (
    DECISIONS,
    TIME,
    IndexEntry,
    IndexName,
    TallyName,
    decision_entries,
    family_of,
    index_entries,
    same_index_entries,
    tally_names,
    text_prefix,
)
from api.readmodel.readers import Counts, ItemCounts, Reader, audiences_of, user_audience
from api.readmodel.sorted_sets import AnySortedSet, MissingSets, SortedSets, SortedSetsOverlay
from schemas.asking.question import DecisionRow
from schemas.views import ActivityRow, DraftRow, ItemRow, MarkRow, PreferencesRow, Row, decode_row
from streams.core.domain.drafts import draft_users
from streams.core.domain.keys import item_key, mark_key, preferences_key
from streams.core.domain.rank import ID_OFFSET, sort_key
from streams.core.domain.visibility import Targets

__all__ = ["PREFIXES", "Workspace"]

# Key prefixes of the rows that an edge keeps. The other rows are used by the fold only.
PREFIXES = frozenset({b"i:", b"m:", b"d:", b"p:", b"a:", b"c:", b"x:"})
_DEFAULT_FAMILIES = frozenset({"ranked"})
# `keys` is compacted once it holds more keys of deleted rows than this, and more than half of its keys are such. The
# number is small because an edge may hold 100,000 workspaces whose rows are created and deleted one by one.
_MAX_DELETED_KEYS = 30

# The indexes of a workspace that has none. Shared, because an edge may hold 100,000 such workspaces.
_MISSING_SETS = MissingSets()

_TallyEntry = tuple[TallyName, ItemRow]
_KeysByName = dict[IndexName, list[bytes]]


class Workspace:
    """Rows and indexes of one workspace. `rows` may also hold rows of other workspaces; these are never shown.

    `is_indexed`: the indexes exist, of the item families in `families`. Without indexes the workspace only stores rows,
    and a read of an index raises RuntimeError. `last_read`: time of the last request in monotonic seconds, 0 if none.
    """

    __slots__ = (
        "_deleted", "changes_during_build", "families", "is_indexed", "keys", "last_read", "rows", "sets", "tallies",
        "workspace_id",
    )

    def __init__(
        self, name: str, rows: MutableMapping[bytes, bytes], lists: SortedSets | SortedSetsOverlay | None = None,
        tallies: MutableMapping[TallyName, ItemCounts] | None = None, families: frozenset[str] = _DEFAULT_FAMILIES,
    ) -> None:
        self.workspace_id = name
        self.rows = rows
        self.sets = lists if lists is not None else SortedSets()
        self.tallies = tallies if tallies is not None else {}
        self.families = families
        self.is_indexed = True
        self.keys: list[bytes] = []  # of its rows, and of some deleted rows
        self._deleted = 0
        self.last_read = 0.0
        # (key, new value) of each row stored while `api.edge.index_builder` builds the indexes; otherwise None.
        self.changes_during_build: list[tuple[bytes, bytes | None]] | None = None

    # --- writes ---

    def set_keys(self, keys: list[bytes]) -> None:
        """Names the keys of the workspace's rows in `rows`. The indexes are built later, at the first request."""
        self.keys = keys
        self.drop_indexes()

    def drop_indexes(self) -> None:
        """Drops the indexes. The next request builds them again, from the same rows."""
        self.is_indexed, self.families, self.sets, self.tallies = False, frozenset(), _MISSING_SETS, {}

    def store_row(self, key: bytes, raw: bytes | None) -> None:
        """Stores one row without a change of the indexes. `raw` None: deletes it."""
        if self.changes_during_build is not None:
            self.changes_during_build.append((key, raw))
        if raw is not None:
            if key not in self.rows:
                self.keys.append(key)
            self.rows[key] = raw
        elif self.rows.pop(key, None) is not None:
            self._deleted += 1
            if self._deleted > _MAX_DELETED_KEYS and self._deleted > len(self.keys) // 2:
                self.keys, self._deleted = self.existing_keys(), 0

    @property
    def is_empty(self) -> bool:
        """Whether the workspace has no rows."""
        return len(self.keys) == self._deleted

    def existing_keys(self) -> list[bytes]:
        """Returns the keys of the workspace's rows, without those of deleted rows."""
        return list(dict.fromkeys(key for key in self.keys if key in self.rows))

    def apply(self, key: bytes, raw: bytes | None, old: Row | None, new: Row | None) -> None:
        """Stores one row and updates the indexes. `raw` is the new value; `old` and `new` are the decoded rows before
        and after. None: no such row."""
        if isinstance(old, ItemRow) and isinstance(new, ItemRow) and same_index_entries(old, new):
            self.store_row(key, raw)
            return
        entries_before, counted_before = self._index_entries(key, old)
        self.store_row(key, raw)
        entries_after, counted_after = self._index_entries(key, new)
        for index, entry in entries_before - entries_after:
            self.sets.discard(index, entry)
        for index, entry in entries_after - entries_before:
            self.sets.add(index, entry)
        for name, row in counted_before:
            self._add_to_tally(name, row, -1)
        for name, row in counted_after:
            self._add_to_tally(name, row, 1)
        if isinstance(new, PreferencesRow) and new.pinned_clusters:
            self.ensure_family("ranked_by_cluster")

    def build(self, families: Iterable[str] = ()) -> Iterator[None]:
        """Builds all indexes, one row or one index a step. Costs far less than `apply` for each row.

        The rows must stay the same until the last step. While rows change, `api.edge.index_builder` builds a copy.
        """
        self.sets, self.tallies = SortedSets(), {}
        wanted = {*_DEFAULT_FAMILIES, *families}
        entries = _KeysByName()
        keys, marks = self.existing_keys(), []
        self.families = frozenset(wanted)
        for key in keys:
            if key[:2] == b"m:":
                marks.append(key)
                continue
            row = decode_row(key, self.rows[key])
            if isinstance(row, PreferencesRow) and row.pinned_clusters:
                wanted.add("ranked_by_cluster")
            self._collect_entries(key, row, entries)
            yield
        for name in list(entries):
            self.sets.fill(name, entries.pop(name))
            yield
        for key in marks:  # last, because the entries of a mark depend on its item
            self.apply(key, self.rows[key], None, decode_row(key, self.rows[key]))
            yield
        for family in sorted(wanted - self.families):
            yield from self._add_family(family)
        self.is_indexed = True

    def adopt_indexes(self, other: Workspace) -> None:
        """Replaces the indexes by those of `other`, an indexed copy of this workspace."""
        assert other.is_indexed
        assert other.workspace_id == self.workspace_id
        self.sets, self.tallies, self.families, self.is_indexed = other.sets, other.tallies, other.families, True

    def _collect_entries(self, key: bytes, row: Row, entries: _KeysByName) -> None:
        """Adds the entries of a row to `entries`. Marks are not considered: `build` applies them afterwards."""
        if isinstance(row, ItemRow):
            for index, entry in index_entries(row, self.families):
                entries.setdefault(index, []).append(entry)
            if row.is_listed:
                for name in tally_names(row):
                    self._add_to_tally(name, row, 1)
            return
        for index, entry in self._index_entries(key, row)[0]:
            entries.setdefault(index, []).append(entry)

    def ensure_family(self, family: str) -> None:
        """Builds a family of item indexes if it does not exist."""
        if family not in self.families:
            for _ in self._add_family(family):
                pass

    def _add_family(self, family: str) -> Iterator[None]:
        assert isinstance(self.sets, SortedSets), "an earlier position has the families of the present"
        entries = _KeysByName()
        prefix = b"c:" if family == DECISIONS else b"i:"
        for key in self.existing_keys():
            if key[:2] == prefix:
                row = decode_row(key, self.rows[key])
                of_row = decision_entries(row) if isinstance(row, DecisionRow) else index_entries(
                    row, frozenset({family}))  # type: ignore[arg-type]  # an ItemRow
                for name, entry in of_row:
                    entries.setdefault(name, []).append(entry)
            yield
        for name, keys in entries.items():
            self.sets.fill(name, keys)
            yield
        self.families |= {family}

    def _index_entries(self, key: bytes, row: Row | None) -> tuple[set[IndexEntry], list[_TallyEntry]]:
        """Returns the index entries of a row, and the names under which it is counted, given the other rows."""
        if isinstance(row, ItemRow):
            return self._item_index_entries(row)
        entries: set[IndexEntry] = set()
        counted: list[_TallyEntry] = []
        if isinstance(row, MarkRow):
            entries = {(IndexName("marks", row.user), key), (IndexName("marks"), key)}
            marked = self.item(row.item.encode())
            if marked is not None:
                self._add_dismissed(marked, row, entries, counted)
        elif isinstance(row, DraftRow) and row.in_progress:
            entries = {(IndexName("drafts", user), TIME.pack(row.touched_at) + key) for user in draft_users(row)}
        elif isinstance(row, DecisionRow):
            entries = set(decision_entries(row)) if DECISIONS in self.families else set()
        elif isinstance(row, ActivityRow):
            entries = {
                (IndexName("activity", name.audience, name.second, row.type), TIME.pack(row.at) + key)
                for name in tally_names(row)
            }
        return entries, counted

    def _item_index_entries(self, row: ItemRow) -> tuple[set[IndexEntry], list[_TallyEntry]]:
        entries = set(index_entries(row, self.families))
        counted: list[_TallyEntry] = []
        if row.is_listed:
            item = row.id.encode()
            counted.extend((name, row) for name in tally_names(row))
            for user in self._users_with_mark(item):
                mark = self.mark(user, item)
                if mark is not None:
                    self._add_dismissed(row, mark, entries, counted)
        return entries, counted

    def _add_dismissed(
        self, row: ItemRow, mark: MarkRow, entries: set[IndexEntry], counted: list[_TallyEntry]
    ) -> None:
        """Adds the entries of an item that the mark dismisses. A mark of an earlier surge does not dismiss it."""
        if row.is_listed and mark.surge == row.surge:
            for audience in audiences_of(row.target_user_id, row.target_role):
                entries.add((IndexName("dismissed", mark.user, audience), sort_key(row)))
            counted.extend((name._replace(user=mark.user), row) for name in tally_names(row))

    def _users_with_mark(self, item: bytes) -> list[str]:
        marks = self.sets.get(IndexName("marks"))
        if marks is None:
            return []
        first = b"m:%b:" % item
        return [key[len(first):].decode() for key in marks.ascending(first, b"m:%b;" % item)]

    def _add_to_tally(self, name: TallyName, row: ItemRow, step: int) -> None:
        tally = self.tallies.get(name)
        if tally is None:
            tally = self.tallies[TallyName(*map(intern, name))] = ItemCounts()
        tally.count(row, step)
        if not tally.total:
            del self.tallies[name]

    # --- reads ---

    def item(self, item: bytes) -> ItemRow | None:
        """Returns the row of an item, without an access check and in any state."""
        key = b"i:" + item
        raw = self.rows.get(key)
        row = decode_row(key, raw) if raw is not None else None
        return row if isinstance(row, ItemRow) and row.ws == self.workspace_id else None

    def visible_item(self, reader: Reader, item: str) -> ItemRow | None:
        """Returns the row of an item if the item is shown and the reader may see it.

        Every route that gets an id from a client must use this method.
        """
        row = self.item(item_key(item)[2:])
        if row is None or row.state == "hidden" or not reader.can_see(row.target_user_id, row.target_role):
            return None
        return row

    def has_item(self, item: str) -> bool:
        """Returns whether the view holds a row of the item, shown or hidden."""
        return self.item(item_key(item)[2:]) is not None

    def targets_of(self, item: str) -> Targets | None:
        """Returns the targets of an item. None if they are unknown: no opening has arrived, or the row was deleted."""
        row = self.item(item_key(item)[2:])
        if row is None or (row.base is None and row.target_user_id is None and row.target_role is None):
            return None
        return row.target_user_id, row.target_role

    def mark(self, user: str, item: bytes) -> MarkRow | None:
        """Returns the user's mark on an item."""
        marks = self.sets.get(IndexName("marks", user))
        key = mark_key(item.decode(), user)
        if marks is None or key not in marks:
            return None
        row = decode_row(key, self.rows[key])
        return row if isinstance(row, MarkRow) else None

    def preferences(self, user: str) -> PreferencesRow | None:
        """Returns the user's preferences. None for the user "" of a shared window."""
        key = preferences_key(self.workspace_id, user)
        raw = self.rows.get(key) if user else None
        row = decode_row(key, raw) if raw is not None else None
        return row if isinstance(row, PreferencesRow) else None

    def pins(self, user: str) -> frozenset[str]:
        """Returns the clusters that the user pinned."""
        row = self.preferences(user)
        return frozenset(row.pinned_clusters) if row is not None else frozenset()

    def counts(self, reader: Reader) -> Counts:
        """Returns the counts of the reader's list: what the audiences hold, less overlaps and dismissed items."""
        total = ItemCounts()
        for sign, name in self._signed_tallies(reader):
            self._add_tally(total, name, sign)
            if reader.user:
                self._add_tally(total, name._replace(user=reader.user), -sign)
        return total.to_counts()

    def unread_count(self, reader: Reader) -> int:
        """Returns the number of unread items that the reader sees, dismissed items included."""
        return sum(
            sign * tally.unread for sign, name in self._signed_tallies(reader)
            if (tally := self.tallies.get(name)) is not None)

    def _signed_tallies(self, reader: Reader) -> Iterator[tuple[int, TallyName]]:
        """Yields the audiences of a reader with sign 1, and the overlaps of two audiences with sign -1. Raises
        RuntimeError if the workspace has no indexes."""
        if not self.is_indexed:
            raise RuntimeError(f"workspace {self.workspace_id!r} has no indexes: request it with Edge.workspace")
        for audience in reader.audiences:
            yield 1, TallyName(audience)
        for first, second in reader.overlaps():
            yield -1, TallyName(first, second)

    def _add_tally(self, total: ItemCounts, name: TallyName, sign: int) -> None:
        tally = self.tallies.get(name)
        if tally is not None:
            total.add(tally, sign)

    def row_size(self, key: bytes) -> int:
        """Returns the bytes of the row of the item with this sort key."""
        return len(self.rows[b"i:" + key[ID_OFFSET:]])

    def sets_of(self, reader: Reader, index: str, kind: str = "", selector: str = "") -> list[AnySortedSet]:
        """Returns the sets of one index, one for each audience of the reader that has entries in it."""
        if index in ("ranked", "newest", "case", DECISIONS):
            self.ensure_family(family_of(index, kind, selector))
        sets = (
            self.sets.get(IndexName(index, audience, kind=kind, selector=selector)) for audience in reader.audiences)
        return [keys for keys in sets if keys is not None]

    def has_case(self, reader: Reader, case: str) -> bool:
        """Returns whether the reader sees an item of the case."""
        prefix = text_prefix(case)
        return any(
            next(iter(keys.ascending(prefix)), b"").startswith(prefix) for keys in self.sets_of(reader, "case"))

    def has_personal_rows(self, user: str, activity_types: Iterable[str]) -> bool:
        """Returns whether the user's view may differ from that of other users with the same roles."""
        audience = user_audience(user)
        names = (
            IndexName("ranked", audience), IndexName("marks", user), IndexName("drafts", user),
            *(IndexName("activity", audience, kind=type_) for type_ in activity_types))
        return any(self.sets.get(name) is not None for name in names) or self.preferences(user) is not None
