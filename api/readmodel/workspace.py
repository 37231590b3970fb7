"""One workspace as an edge knows it: rows as bytes, and the indexes that make every page cost its own length. Pure.

Beside the rows there are sorted sets of keys, by name. Those of items are in `api.readmodel.indexes`; the others:

    away   user, audience            listed items that the user put away, by rank
    marks  user                      items the user has a mark on; without a user: item and user
    drafts user                      drafts in progress by when they were touched
    done   audience, type            activity by when it happened; of two audiences, what is in both

They are made when the workspace is first asked for, and a family of indexes when somebody first needs it: of a million
rows most belong to people who are not looking. `api.edge.index_builder` makes them without a pause for others.

`rows`, `lists` and `tallies` may be overlays (`api.readmodel.rollback`), so this code shows the workspace as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping

from api.readmodel import listing
from api.readmodel.indexes import (
    TIME,
    IndexEntry,
    case_prefix,
    family_of,
    index_entries,
    same_index_entries,
    tally_names,
)
from api.readmodel.readers import Counts, ItemCounts, Reader, audiences_of, user_audience
from api.readmodel.sorted_sets import Name, SortedKeys, SortedSets, SortedSetsOverlay
from schemas.views import ActivityRow, DraftRow, ItemRow, MarkRow, PreferencesRow, Row, decode_row
from streams.core.domain.drafts import draft_users
from streams.core.domain.keys import item_key, mark_key, preferences_key
from streams.core.domain.rank import ID_OFFSET, sort_key
from streams.core.domain.visibility import Targets

__all__ = ["PREFIXES", "Workspace"]

# The rows an edge keeps; the others are the fold's own.
PREFIXES = frozenset({b"i:", b"m:", b"d:", b"p:", b"a:"})
_RANK = frozenset({"rank"})
# Keys of rows that are gone stay in `keys` until there are so many, and more than others. Few: there may be a hundred
# thousand workspaces whose rows come and go one by one.
_MAX_DELETED_KEYS = 30

_Tallied = tuple[Name, ItemRow]
_Filed = dict[Name, list[bytes]]


class Workspace:
    """Rows and indexes of one workspace. `rows` may hold other workspaces' rows too: they are never shown.

    `built`: the indexes are there, of the `families` named; without, only rows are kept and nothing can be asked.
    """

    __slots__ = (
        "_deleted", "changes_during_build", "families", "is_indexed", "keys", "rows", "sets", "tallies", "workspace_id",
    )

    def __init__(
        self, name: str, rows: MutableMapping[bytes, bytes], lists: SortedSets | SortedSetsOverlay | None = None,
        tallies: MutableMapping[Name, ItemCounts] | None = None, families: frozenset[str] = _RANK,
    ) -> None:
        self.workspace_id = name
        self.rows = rows
        self.sets = lists if lists is not None else SortedSets()
        self.tallies = tallies if tallies is not None else {}
        self.families = families
        self.is_indexed = True
        self.keys: list[bytes] = []  # of its rows, and of some that are gone
        self._deleted = 0
        # Noted while its indexes are being made.
        self.changes_during_build: list[tuple[bytes, bytes | None]] | None = None

    # --- keeping it ---

    def set_keys(self, keys: list[bytes]) -> None:
        """Rows with these keys are in `rows`, to be looked at when somebody asks."""
        self.keys, self.is_indexed, self.families = keys, False, frozenset()

    def store_row(self, key: bytes, raw: bytes | None) -> None:
        """Takes over one row, leaving the indexes alone."""
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
        """Whether it has no rows."""
        return len(self.keys) == self._deleted

    def existing_keys(self) -> list[bytes]:
        return list(dict.fromkeys(key for key in self.keys if key in self.rows))

    def apply(self, key: bytes, raw: bytes | None, old: Row | None, new: Row | None) -> None:
        """Takes over one row: `raw` is its new value, `old` and `new` the row before and after (None: not there)."""
        if isinstance(old, ItemRow) and isinstance(new, ItemRow) and same_index_entries(old, new):
            self.store_row(key, raw)
            return
        gone, less = self._index_entries(key, old)
        self.store_row(key, raw)
        come, more = self._index_entries(key, new)
        for name, entry in gone - come:
            self.sets.discard(name, entry)
        for name, entry in come - gone:
            self.sets.add(name, entry)
        for name, row in less:
            self._add_to_tally(name, row, -1)
        for name, row in more:
            self._add_to_tally(name, row, 1)
        if isinstance(new, PreferencesRow) and new.pinned_clusters:
            self.ensure_family("cluster")

    def build(self, families: Iterable[str] = ()) -> Iterator[None]:
        """Makes all indexes anew, a row or a list a step, far cheaper than applying row by row. Nothing may change
        between."""
        self.sets, self.tallies = SortedSets(), {}
        wanted, found = {*_RANK, *families}, _Filed()
        keys, marks = self.existing_keys(), []
        self.families = frozenset(wanted)
        for key in keys:
            if key[:2] == b"m:":
                marks.append(key)
                continue
            row = decode_row(key, self.rows[key])
            if isinstance(row, PreferencesRow) and row.pinned_clusters:
                wanted.add("cluster")
            self._collect_entries(key, row, found)
            yield
        for name in list(found):
            self.sets.fill(name, found.pop(name))
            yield
        for key in marks:  # last, as where a mark is filed depends on its item
            self.apply(key, self.rows[key], None, decode_row(key, self.rows[key]))
            yield
        for family in sorted(wanted - self.families):
            yield from self._add_family(family)
        self.is_indexed = True

    def _collect_entries(self, key: bytes, row: Row, found: _Filed) -> None:
        """As `_filed`, of a row that no mark is known of yet."""
        if isinstance(row, ItemRow):
            for name, entry in index_entries(row, self.families):
                found.setdefault(name, []).append(entry)
            if row.is_listed:
                for name in tally_names(row):
                    self._add_to_tally(name, row, 1)
            return
        for name, entry in self._index_entries(key, row)[0]:
            found.setdefault(name, []).append(entry)

    def ensure_family(self, family: str) -> None:
        """Sees to it that a family of index_entries is there."""
        if family not in self.families:
            for _ in self._add_family(family):
                pass

    def _add_family(self, family: str) -> Iterator[None]:
        assert isinstance(self.sets, SortedSets), "the past has what the present has"
        found = _Filed()
        for key in self.existing_keys():
            if key[:2] == b"i:":
                row = decode_row(key, self.rows[key])
                assert isinstance(row, ItemRow)
                for name, entry in index_entries(row, frozenset({family})):
                    found.setdefault(name, []).append(entry)
            yield
        for name, entries in found.items():
            self.sets.fill(name, entries)
            yield
        self.families |= {family}

    def _index_entries(self, key: bytes, row: Row | None) -> tuple[set[IndexEntry], list[_Tallied]]:
        """Where a row belongs, given the other rows as they are."""
        if isinstance(row, ItemRow):
            return self._item_index_entries(row)
        filed: set[IndexEntry] = set()
        tallied: list[_Tallied] = []
        if isinstance(row, MarkRow):
            item = row.item.encode()
            filed = {(("marks", row.user), item), (("marks",), item + b"\0" + row.user.encode())}
            about = self.item(item)
            if about is not None:
                self._dismissed_entries(about, row, filed, tallied)
        elif isinstance(row, DraftRow) and row.in_progress:
            filed = {(("drafts", user), TIME.pack(row.touched_at) + key) for user in draft_users(row)}
        elif isinstance(row, ActivityRow):
            filed = {(("done", *name, row.type), TIME.pack(row.at) + key) for name in tally_names(row)}
        return filed, tallied

    def _item_index_entries(self, row: ItemRow) -> tuple[set[IndexEntry], list[_Tallied]]:
        found = set(index_entries(row, self.families))
        tallied: list[_Tallied] = []
        if row.is_listed:
            item = row.id.encode()
            tallied.extend((name, row) for name in tally_names(row))
            for user in self._users_with_mark(item):
                mark = self.mark(user, item)
                if mark is not None:
                    self._dismissed_entries(row, mark, found, tallied)
        return found, tallied

    def _dismissed_entries(self, row: ItemRow, mark: MarkRow, filed: set[IndexEntry], tallied: list[_Tallied]) -> None:
        if row.is_listed and mark.surge == row.surge:
            for audience in audiences_of(row.target_user_id, row.target_role):
                filed.add((("away", mark.user, audience), sort_key(row)))
            tallied.extend((("away", mark.user, *name), row) for name in tally_names(row))

    def _users_with_mark(self, item: bytes) -> list[str]:
        found = self.sets.get(("marks",))
        if found is None:
            return []
        return [key[len(item) + 1:].decode() for key in found.ascending(item + b"\0", item + b"\1")]

    def _add_to_tally(self, name: Name, row: ItemRow, step: int) -> None:
        tally = self.tallies.get(name)
        if tally is None:
            tally = self.tallies[name] = ItemCounts()
        tally.count(row, step)
        if not tally.total:
            del self.tallies[name]

    # --- asking it ---

    def item(self, item: bytes) -> ItemRow | None:
        """The item's row, whoever may see it and whatever its state."""
        key = b"i:" + item
        raw = self.rows.get(key)
        row = decode_row(key, raw) if raw is not None else None
        return row if isinstance(row, ItemRow) and row.ws == self.workspace_id else None

    def visible_item(self, reader: Reader, item: str) -> ItemRow | None:
        """The item, if it is shown at all and to this reader. The only way from an id that a caller names to a row."""
        row = self.item(item_key(item)[2:])
        if row is None or row.state == "hidden" or not reader.can_see(row.target_user_id, row.target_role):
            return None
        return row

    def has_item(self, item: str) -> bool:
        """Whether the view knows of this item, shown or not."""
        return self.item(item_key(item)[2:]) is not None

    def targets_of(self, item: str) -> Targets | None:
        """Returns who the item is for; None while nothing says so: no opening has arrived, or the row is gone."""
        row = self.item(item_key(item)[2:])
        if row is None or (row.base is None and row.target_user_id is None and row.target_role is None):
            return None
        return row.target_user_id, row.target_role

    def mark(self, user: str, item: bytes) -> MarkRow | None:
        marks = self.sets.get(("marks", user))
        if marks is None or item not in marks:
            return None
        key = mark_key(item.decode(), user)
        row = decode_row(key, self.rows[key])
        return row if isinstance(row, MarkRow) else None

    def preferences(self, user: str) -> PreferencesRow | None:
        key = preferences_key(self.workspace_id, user)
        raw = self.rows.get(key) if user else None
        row = decode_row(key, raw) if raw is not None else None
        return row if isinstance(row, PreferencesRow) else None

    def pins(self, user: str) -> frozenset[str]:
        row = self.preferences(user)
        return frozenset(row.pinned_clusters) if row is not None else frozenset()

    def counts(self, reader: Reader) -> Counts:
        total = ItemCounts()
        for sign, names in ((1, [(audience,) for audience in reader.audiences]), (-1, reader.overlaps())):
            for name in names:
                self._add_tally(total, name, sign)
                if reader.user:
                    self._add_tally(total, ("away", reader.user, *name), -sign)
        return total.to_counts()

    def _add_tally(self, total: ItemCounts, name: Name, sign: int) -> None:
        tally = self.tallies.get(name)
        if tally is not None:
            total.add(tally, sign)

    def unread_count(self, reader: Reader) -> int:
        """Unread items that the reader sees, put-away ones too."""
        names: Iterable[tuple[int, Name]] = (
            *((1, (audience,)) for audience in reader.audiences), *((-1, name) for name in reader.overlaps()))
        return sum(sign * tally.unread for sign, name in names if (tally := self.tallies.get(name)) is not None)

    def ranked(self, reader: Reader, pins: frozenset[str], after: bytes | None = None) -> Iterator[bytes]:
        return listing.ranked(self, reader, pins, after)

    def row_size(self, key: bytes) -> int:
        """Bytes of the row of the item with this sort key."""
        return len(self.rows[b"i:" + key[ID_OFFSET:]])

    def sets_of(self, reader: Reader, kind: str, *rest: str) -> list[SortedKeys]:
        """The reader's lists of one kind, one for each audience that has one. `rest` is what follows the audience."""
        if kind in ("rank", "new", "case"):
            self.ensure_family(family_of(kind, rest))
        found = (self.sets.get((kind, audience, *rest)) for audience in reader.audiences)
        return [keys for keys in found if keys is not None]  # type: ignore[misc]

    def has_case(self, reader: Reader, case: str) -> bool:
        """Whether an item of the case is shown to this reader."""
        prefix = case_prefix(case)
        return any(
            next(iter(keys.ascending(prefix)), b"").startswith(prefix) for keys in self.sets_of(reader, "case"))

    def has_personal_rows(self, user: str, types: Iterable[str]) -> bool:
        """Whether the user's view may differ from that of others with the same roles."""
        mine = user_audience(user)
        names: Iterator[Name] = iter((
            ("rank", mine, "", ""), ("marks", user), ("drafts", user), *(("done", mine, name) for name in types)))
        return any(self.sets.get(name) is not None for name in names) or self.preferences(user) is not None
