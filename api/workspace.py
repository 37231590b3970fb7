"""One workspace as an edge knows it: rows as bytes, and the indexes that make every page cost its own length. Pure.

Beside the rows there are sorted sets of keys, by name:

    rank   audience, kind, cluster   listed items by rank; kind and cluster "" for any
    new    audience, state, kind     items by when they opened, for the newest-first lists; kind "" for any
    away   user, audience            listed items that the user put away, by rank
    marks  user                      items the user has a mark on; without a user: item and user
    drafts user                      drafts in progress by when they were touched
    done   audience, type            activity by when it happened; of two audiences, what is in both
    case   audience                  case and item: who knows of a case

`rows`, `lists` and `tallies` may be overlays (`api.past`), so the same code shows the workspace as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from operator import attrgetter
from struct import Struct

from api import pages
from api.ordered import Keys, Lists, Name, OverlayLists
from schemas.views import ActivityRow, DraftRow, ItemRow, MarkRow, PreferencesRow, Row, decode
from streams.core.diff import people
from streams.core.keys import item_key, mark_key, preferences_key
from streams.core.readers import Counts, Reader, Tally, audiences_of, both, for_user, sort_key

__all__ = ["PREFIXES", "TIME", "Workspace", "case_prefix"]

# The rows an edge keeps; the others are the fold's own.
PREFIXES = frozenset({b"i:", b"m:", b"d:", b"p:", b"a:"})
# A key of an index by time: the time, then what it is the time of.
TIME = Struct(">Q")
_LENGTH = Struct(">I")

_Place = tuple[Name, bytes]
_Tallied = tuple[Name, ItemRow]


def case_prefix(case: str) -> bytes:
    # The length first, so that no case's name is the beginning of another's.
    return _LENGTH.pack(len(case.encode())) + case.encode()


class Workspace:
    """Rows and indexes of one workspace. `rows` may hold other workspaces' rows too: they are never shown."""

    def __init__(
        self, name: str, rows: MutableMapping[bytes, bytes], lists: Lists | OverlayLists | None = None,
        tallies: MutableMapping[Name, Tally] | None = None,
    ) -> None:
        self.name = name
        self.rows = rows
        self.lists = lists if lists is not None else Lists()
        self.tallies = tallies if tallies is not None else {}

    # --- keeping it ---

    def apply(self, key: bytes, raw: bytes | None, old: Row | None, new: Row | None) -> None:
        """Takes over one row: `raw` is its new value, `old` and `new` the row before and after (None: not there)."""
        if isinstance(old, ItemRow) and isinstance(new, ItemRow) and _filed_by(old) == _filed_by(new):
            assert raw is not None
            self.rows[key] = raw  # it only shows something else
            return
        gone, less = self._filed(key, old)
        if raw is None:
            self.rows.pop(key, None)
        else:
            self.rows[key] = raw
        come, more = self._filed(key, new)
        for name, entry in gone - come:
            self.lists.discard(name, entry)
        for name, entry in come - gone:
            self.lists.add(name, entry)
        for name, row in less:
            self._count(name, row, -1)
        for name, row in more:
            self._count(name, row, 1)

    def load(self, rows: Mapping[bytes, bytes]) -> None:
        """Fills an empty workspace; far cheaper than applying row by row."""
        found: dict[Name, list[bytes]] = {}
        self.rows.update(rows)
        # Marks last: where a mark is filed depends on its item.
        for key in sorted(rows, key=lambda key: key.startswith(b"m:")):
            places, tallied = self._filed(key, decode(key, rows[key]))
            for name, entry in places:
                found.setdefault(name, []).append(entry)
            for name, row in tallied:
                self._count(name, row, 1)
        assert isinstance(self.lists, Lists)
        for name, entries in found.items():
            self.lists.fill(name, entries)

    def _filed(self, key: bytes, row: Row | None) -> tuple[set[_Place], list[_Tallied]]:
        """Where a row belongs, given the other rows as they are."""
        if isinstance(row, ItemRow):
            return self._item_filed(row)
        places: set[_Place] = set()
        tallied: list[_Tallied] = []
        if isinstance(row, MarkRow):
            item = row.item.encode()
            places = {(("marks", row.user), item), (("marks",), item + b"\0" + row.user.encode())}
            about = self.item(item)
            if about is not None:
                self._away(about, row, places, tallied)
        elif isinstance(row, DraftRow) and row.in_progress:
            places = {(("drafts", user), TIME.pack(row.touched_at) + key) for user in people(row)}
        elif isinstance(row, ActivityRow):
            places = {(("done", *name, row.type), TIME.pack(row.at) + key) for name in _counted_as(row)}
        return places, tallied

    def _item_filed(self, row: ItemRow) -> tuple[set[_Place], list[_Tallied]]:
        places: set[_Place] = set()
        tallied: list[_Tallied] = []
        audiences = audiences_of(row.target_user_id, row.target_role)
        case = row.data.case_id or (row.source_id if row.kind == "blocked_case" else None)
        item = row.id.encode()
        if case is not None and row.base is not None:  # what nothing opened yet has no target to go by
            places.update((("case", audience), case_prefix(case) + item) for audience in audiences)
        if row.state != "hidden" and row.incident is None:
            newest = TIME.pack(row.created_at) + item
            for audience in audiences:
                places.add((("new", audience, row.state, ""), newest))
                places.add((("new", audience, row.state, row.kind), newest))
        if row.listed:
            rank = sort_key(row)
            clusters = {row.data.cluster or "", *row.clusters, ""}
            for audience in audiences:
                for cluster in clusters:
                    places.add((("rank", audience, "", cluster), rank))
                    places.add((("rank", audience, row.kind, cluster), rank))
            tallied.extend((name, row) for name in _counted_as(row))
            for user in self._marked(item):
                mark = self.mark(user, item)
                if mark is not None:
                    self._away(row, mark, places, tallied)
        return places, tallied

    def _away(self, row: ItemRow, mark: MarkRow, places: set[_Place], tallied: list[_Tallied]) -> None:
        if row.listed and mark.surge == row.surge:
            for audience in audiences_of(row.target_user_id, row.target_role):
                places.add((("away", mark.user, audience), sort_key(row)))
            tallied.extend((("away", mark.user, *name), row) for name in _counted_as(row))

    def _marked(self, item: bytes) -> list[str]:
        found = self.lists.get(("marks",))
        if found is None:
            return []
        return [key[len(item) + 1:].decode() for key in found.ascending(item + b"\0", item + b"\1")]

    def _count(self, name: Name, row: ItemRow, step: int) -> None:
        tally = self.tallies.get(name)
        if tally is None:
            tally = self.tallies[name] = Tally()
        tally.count(row, step)
        if not tally.total:
            del self.tallies[name]

    # --- asking it ---

    def item(self, item: bytes) -> ItemRow | None:
        """The item's row, whoever may see it and whatever its state."""
        key = b"i:" + item
        raw = self.rows.get(key)
        row = decode(key, raw) if raw is not None else None
        return row if isinstance(row, ItemRow) and row.ws == self.name else None

    def visible(self, reader: Reader, item: str) -> ItemRow | None:
        """The item, if it is shown at all and to this reader. The only way from an id that a caller names to a row."""
        row = self.item(item_key(item)[2:])
        if row is None or row.state == "hidden" or not reader.sees(row.target_user_id, row.target_role):
            return None
        return row

    def mark(self, user: str, item: bytes) -> MarkRow | None:
        marks = self.lists.get(("marks", user))
        if marks is None or item not in marks:
            return None
        key = mark_key(item.decode(), user)
        row = decode(key, self.rows[key])
        return row if isinstance(row, MarkRow) else None

    def preferences(self, user: str) -> PreferencesRow | None:
        key = preferences_key(self.name, user)
        raw = self.rows.get(key) if user else None
        row = decode(key, raw) if raw is not None else None
        return row if isinstance(row, PreferencesRow) else None

    def pins(self, user: str) -> frozenset[str]:
        row = self.preferences(user)
        return frozenset(row.pinned_clusters) if row is not None else frozenset()

    def counts(self, reader: Reader) -> Counts:
        total = Tally()
        for sign, names in ((1, [(audience,) for audience in reader.audiences]), (-1, reader.twice())):
            for name in names:
                self._sum(total, name, sign)
                if reader.user:
                    self._sum(total, ("away", reader.user, *name), -sign)
        return total.counts()

    def _sum(self, total: Tally, name: Name, sign: int) -> None:
        tally = self.tallies.get(name)
        if tally is not None:
            total.add(tally, sign)

    def unread(self, reader: Reader) -> int:
        """Unread items that the reader sees, put-away ones too."""
        names: Iterable[tuple[int, Name]] = (
            *((1, (audience,)) for audience in reader.audiences), *((-1, name) for name in reader.twice()))
        return sum(sign * tally.unread for sign, name in names if (tally := self.tallies.get(name)) is not None)

    def ranked(self, reader: Reader, pins: frozenset[str], after: bytes | None = None) -> Iterator[bytes]:
        return pages.ranked(self, reader, pins, after)

    def lists_of(self, reader: Reader, kind: str, *rest: str) -> list[Keys]:
        """The reader's lists of one kind, one for each audience that has one. `rest` is what follows the audience."""
        found = (self.lists.get((kind, audience, *rest)) for audience in reader.audiences)
        return [keys for keys in found if keys is not None]  # type: ignore[misc]

    def knows(self, reader: Reader, case: str) -> bool:
        """Whether anything about the case was ever for this reader."""
        prefix = case_prefix(case)
        return any(
            next(iter(keys.ascending(prefix)), b"").startswith(prefix) for keys in self.lists_of(reader, "case"))

    def is_personal(self, user: str, types: Iterable[str]) -> bool:
        """Whether the user's view may differ from that of others with the same roles."""
        mine = for_user(user)
        names: Iterator[Name] = iter((
            ("rank", mine, "", ""), ("marks", user), ("drafts", user), *(("done", mine, name) for name in types)))
        return any(self.lists.get(name) is not None for name in names) or self.preferences(user) is not None


_filed_by = attrgetter(
    "state", "incident", "kind", "target_user_id", "target_role", "priority", "surge", "band", "blocking", "due_at",
    "created_at", "clusters", "data.cluster", "data.case_id", "base",
)


def _counted_as(row: ItemRow | ActivityRow) -> list[Name]:
    """The names a row is counted under: each of its audiences, and one that says it is in two."""
    names: list[Name] = [(audience,) for audience in audiences_of(row.target_user_id, row.target_role)]
    if row.target_user_id is not None and row.target_role is not None:
        names.append(both(row.target_user_id, row.target_role))
    return names
