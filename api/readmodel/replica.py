"""The replica of `attn.views`: partitions of rows, workspaces of indexes, and the last batches for who resumes. Pure.

A cursor names the state after a batch. `since` answers what happened after one, as long as its batches are held.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from api.readmodel.changes import Changes, ItemChange
from api.readmodel.rollback import past
from api.readmodel.workspace import PREFIXES, Workspace
from schemas.topics import partition_of
from schemas.views import (
    CURSOR_BITS,
    ActivityRow,
    DraftRow,
    ItemRow,
    MarkRow,
    PositionRow,
    PreferencesRow,
    Row,
    cursor_of,
    decode_row,
)

__all__ = ["Batch", "Missed", "Replica", "Update", "redo"]

Changed = tuple[bytes, bytes | None, bytes | None]  # key, value before, value after

# What holding a change costs beside the value it replaced: the tuple, its place in two lists, the key.
_OVERHEAD = 250
# A resume costs CPU for every row changed since, on the loop that serves everybody; beyond this a snapshot is cheaper.
MAX_MISSED = 20_000
_FRAME = (1 << CURSOR_BITS) - 1


@dataclass(slots=True)
class Batch:
    """What one batch changed: `before` and `after` are positions; by workspace."""

    partition: int
    before: int
    after: int
    changed: dict[str, list[Changed]] = field(default_factory=dict)
    size: int = 0
    _users: dict[str, set[str]] = field(default_factory=dict)

    def users(self, workspace: str) -> set[str]:
        """Everybody for whom something personal may have begun or ended."""
        found = self._users.get(workspace)
        if found is None:
            changes = Changes()
            for key, old, new in self.changed[workspace]:
                _sort_in(changes, _row(key, old), _row(key, new))
            found = self._users[workspace] = changes.users()
        return found


@dataclass(frozen=True, slots=True)
class Update:
    """What a batch changed in one workspace, decoded; the workspace is after it."""

    space: Workspace
    before: int
    after: int
    changes: Changes


@dataclass(frozen=True, slots=True)
class Missed:
    """What a reader missed: the workspace as it was then, the batches since, and how many frames of the first one
    the reader has already."""

    space: Workspace
    batches: list[Batch]
    skip: int


@dataclass(slots=True)
class _Partition:
    rows: dict[bytes, bytes] = field(default_factory=dict)
    position: PositionRow = field(default_factory=lambda: PositionRow(next=0))
    at: int = 0  # its position
    starts: set[int] = field(default_factory=set)  # positions from which the batches held lead on


class Replica:
    """All workspaces of the partitions that this edge serves."""

    def __init__(self, partitions: int, served: Collection[int] | None = None, resume_bytes: int = 64 << 20) -> None:
        self.partitions = partitions
        self.served = frozenset(range(partitions) if served is None else served)
        self.held = 0  # bytes
        self._resume_bytes = resume_bytes
        self._parts = {number: _Partition() for number in self.served}
        self._spaces: dict[str, Workspace] = {}
        self._batches: deque[Batch] = deque()
        self._recent: dict[str, deque[Batch]] = {}

    # --- keeping it ---

    def load(self, partition: int, rows: Mapping[bytes, bytes], position: PositionRow) -> None:
        """The partition's state to begin with."""
        for _ in self.loading(partition, rows, position):
            pass

    def loading(self, partition: int, rows: Mapping[bytes, bytes], position: PositionRow) -> Iterator[None]:
        """The same, one row a step; done at the last one."""
        part = self._parts[partition]
        keys: dict[str, list[bytes]] = {}
        for key, raw in rows.items():
            if key[:2] in PREFIXES:
                part.rows[key] = raw
                keys.setdefault(_workspace(raw).ws, []).append(key)
                yield
        for name, own in keys.items():
            space = self._spaces[name] = Workspace(name, part.rows)
            space.hold(own)
        part.position, part.at = position, position.position

    def apply(self, partition: int, rows: Iterable[tuple[bytes, bytes | None]], position: PositionRow) -> list[Update]:
        """One batch; what it changed, workspace by workspace, to be published before the next one is applied.

        A batch that does not lead on changes nothing: a worker that had lost the partition wrote once more, or its
        owner wrote rows again that are held already.
        """
        part = self._parts[partition]
        batch = Batch(partition, part.at, position.position)
        if batch.after <= batch.before:
            return []
        updates: dict[str, Update] = {}
        for key, raw in dict(rows).items():
            before = part.rows.get(key)
            if key[:2] not in PREFIXES or raw == before:
                continue
            space = self._space(_workspace(raw or before or b"").ws, part)  # one of them is there: they differ
            batch.changed.setdefault(space.name, []).append((key, before, raw))
            batch.size += _OVERHEAD + len(before or b"")
            if not space.built:  # so nobody is looking
                space.put(key, raw)
                continue
            update = updates.get(space.name)
            if update is None:
                update = updates[space.name] = Update(space, batch.before, batch.after, Changes())
            old, new = _row(key, before), _row(key, raw)
            space.apply(key, raw, old, new)
            _sort_in(update.changes, old, new)
        for name in batch.changed:
            if self._spaces[name].empty:  # as good as one that never had a row; it may have been the last of it
                del self._spaces[name]
        part.position, part.at = position, batch.after
        self._hold(part, batch)
        return list(updates.values())

    def _space(self, name: str, part: _Partition) -> Workspace:
        space = self._spaces.get(name)
        if space is None:
            space = self._spaces[name] = Workspace(name, part.rows)
        return space

    def _hold(self, part: _Partition, batch: Batch) -> None:
        self._batches.append(batch)
        part.starts.add(batch.before)
        for name in batch.changed:
            self._recent.setdefault(name, deque()).append(batch)
        self.held += batch.size + _OVERHEAD
        while self.held > self._resume_bytes:
            self._forget(self._batches.popleft())

    def _forget(self, batch: Batch) -> None:
        self.held -= batch.size + _OVERHEAD
        self._parts[batch.partition].starts.discard(batch.before)
        for name in batch.changed:
            recent = self._recent[name]
            recent.popleft()
            if not recent:
                del self._recent[name]

    # --- asking it ---

    def serves(self, workspace: str) -> bool:
        return self.partition(workspace) in self.served

    def partition(self, workspace: str) -> int:
        return partition_of(workspace, self.partitions)

    def space(self, workspace: str) -> Workspace:
        """The workspace, an empty one if nothing is known of it. Its partition must be one that is served."""
        space = self._spaces.get(workspace)
        if space is None:
            return Workspace(workspace, self._parts[self.partition(workspace)].rows)
        if not space.built:
            for _ in space.build():
                pass
        return space

    def known(self, workspace: str) -> Workspace | None:
        """The workspace, its indexes made or not."""
        return self._spaces.get(workspace)

    def position(self, workspace: str) -> int:
        return self.position_of(self.partition(workspace))

    def cursor(self, workspace: str) -> int:
        return cursor_of(self.position(workspace))

    def clock(self, workspace: str) -> int:
        """The clock of the log, in microseconds."""
        return self._parts[self.partition(workspace)].position.clock

    def position_of(self, partition: int) -> int:
        return self._parts[partition].at

    def rows(self) -> int:
        return sum(len(part.rows) for part in self._parts.values())

    def indexed(self) -> int:
        """Workspaces whose indexes are made."""
        return sum(space.built for space in self._spaces.values())

    def touched(self, workspace: str, cursor: int, user: str) -> bool:
        """Whether anything personal of the user's changed after a cursor."""
        batches = _from(self._recent.get(workspace, ()), cursor >> CURSOR_BITS)
        return any(user in batch.users(workspace) for batch in batches)

    def since(self, workspace: str, cursor: int) -> Missed | None:
        """What happened after a cursor. None: it is unknown, too old or of another future, so begin with a snapshot."""
        part = self._parts[self.partition(workspace)]
        at, skip = cursor >> CURSOR_BITS, cursor & _FRAME
        if at != part.at and at not in part.starts:
            return None
        batches = _from(self._recent.get(workspace, ()), at)
        if skip and not (batches and batches[0].before == at):
            return None
        changed = [change for batch in batches for change in batch.changed[workspace]]
        if len(changed) > MAX_MISSED:
            return None
        return Missed(past(self.space(workspace), changed), batches, skip)


def redo(space: Workspace, changed: Iterable[Changed]) -> Changes:
    """Rolls a workspace of the past over one batch."""
    found = Changes()
    for key, old_raw, raw in changed:
        old, new = _row(key, old_raw), _row(key, raw)
        space.apply(key, raw, old, new)
        _sort_in(found, old, new)
    return found


def _from(batches: Collection[Batch], position: int) -> list[Batch]:
    found: list[Batch] = []
    for batch in reversed(batches):  # type: ignore[call-overload]
        if batch.before < position:
            break
        found.append(batch)
    return found[::-1]


class _Where(msgspec.Struct):
    """As much of any row as says whose it is."""

    ws: str


_workspace = msgspec.json.Decoder(_Where).decode


def _row(key: bytes, raw: bytes | None) -> Row | None:
    return decode_row(key, raw) if raw is not None else None


def _sort_in(changes: Changes, old: Row | None, new: Row | None) -> None:
    row = new if new is not None else old
    if isinstance(row, ItemRow):
        changes.items.append(ItemChange(old, new))  # type: ignore[arg-type]
        return
    for one in (old, new):
        if isinstance(one, MarkRow):
            changes.marks.append(one)
        elif isinstance(one, DraftRow):
            changes.drafts.append(one)
        elif isinstance(one, PreferencesRow):
            changes.preferences.append(one)
        elif isinstance(one, ActivityRow):
            changes.activity.append(one)
