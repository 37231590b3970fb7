"""The replica of `attn.views`: partitions of rows, workspaces of indexes, and the last batches for who resumes. Pure.

A cursor names the state after a batch. `since` answers what happened after one, as long as its batches are held.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from api.readmodel.changes import Changes, ItemChange
from api.readmodel.rollback import workspace_as_of
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
    decode_row_or_none,
)

__all__ = ["AppliedBatch", "MissedBatches", "Replica", "WorkspaceUpdate", "apply_changes_to_past"]

Changed = tuple[bytes, bytes | None, bytes | None]  # key, value before, value after

# What holding a change costs beside the value it replaced: the tuple, its place in two lists, the key.
_OVERHEAD = 250
# A resume costs CPU for every row changed since, on the loop that serves everybody; beyond this a snapshot is cheaper.
MAX_MISSED = 20_000
_FRAME = (1 << CURSOR_BITS) - 1


@dataclass(slots=True)
class AppliedBatch:
    """What one batch changed: `before` and `after` are positions; by workspace."""

    partition: int
    before: int
    after: int
    changed: dict[str, list[Changed]] = field(default_factory=dict)
    size: int = 0
    _users: dict[str, set[str]] = field(default_factory=dict)

    def affected_users(self, workspace: str) -> set[str]:
        """Everybody for whom something personal may have begun or ended."""
        found = self._users.get(workspace)
        if found is None:
            changes = Changes()
            for key, old, new in self.changed[workspace]:
                _add_change(changes, decode_row_or_none(key, old), decode_row_or_none(key, new))
            found = self._users[workspace] = changes.affected_users()
        return found


@dataclass(frozen=True, slots=True)
class WorkspaceUpdate:
    """What a batch changed in one workspace, decoded; the workspace is after it."""

    workspace: Workspace
    before: int
    after: int
    changes: Changes


@dataclass(frozen=True, slots=True)
class MissedBatches:
    """What a reader missed: the workspace as it was then, the batches since, and how many frames of the first one
    the reader has already."""

    workspace: Workspace
    batches: list[AppliedBatch]
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
        self.retained_bytes = 0  # bytes
        self._resume_bytes = resume_bytes
        self._partitions = {number: _Partition() for number in self.served}
        self._workspaces: dict[str, Workspace] = {}
        self._batches: deque[AppliedBatch] = deque()
        self._recent: dict[str, deque[AppliedBatch]] = {}

    # --- keeping it ---

    def load(self, partition: int, rows: Mapping[bytes, bytes], position: PositionRow) -> None:
        """The partition's state to begin with."""
        for _ in self.load_steps(partition, rows, position):
            pass

    def load_steps(self, partition: int, rows: Mapping[bytes, bytes], position: PositionRow) -> Iterator[None]:
        """The same, one row a step; done at the last one."""
        part = self._partitions[partition]
        keys: dict[str, list[bytes]] = {}
        for key, raw in rows.items():
            if key[:2] in PREFIXES:
                part.rows[key] = raw
                keys.setdefault(_decode_workspace_id(raw).ws, []).append(key)
                yield
        for name, own in keys.items():
            space = self._workspaces[name] = Workspace(name, part.rows)
            space.set_keys(own)
        part.position, part.at = position, position.position

    def apply(
        self, partition: int, rows: Iterable[tuple[bytes, bytes | None]], position: PositionRow
    ) -> list[WorkspaceUpdate]:
        """One batch; what it changed, workspace by workspace, to be published before the next one is applied.

        A batch that does not lead on changes nothing: a worker that had lost the partition wrote once more, or its
        owner wrote rows again that are held already.
        """
        part = self._partitions[partition]
        batch = AppliedBatch(partition, part.at, position.position)
        if batch.after <= batch.before:
            return []
        updates: dict[str, WorkspaceUpdate] = {}
        for key, raw in dict(rows).items():
            before = part.rows.get(key)
            if key[:2] not in PREFIXES or raw == before:
                continue
            # One of them is there: they differ.
            space = self._get_or_create_workspace(_decode_workspace_id(raw or before or b"").ws, part)
            batch.changed.setdefault(space.workspace_id, []).append((key, before, raw))
            batch.size += _OVERHEAD + len(before or b"")
            if not space.is_indexed:  # so nobody is looking
                space.store_row(key, raw)
                continue
            update = updates.get(space.workspace_id)
            if update is None:
                update = updates[space.workspace_id] = WorkspaceUpdate(space, batch.before, batch.after, Changes())
            old, new = decode_row_or_none(key, before), decode_row_or_none(key, raw)
            space.apply(key, raw, old, new)
            _add_change(update.changes, old, new)
        for name in batch.changed:
            if self._workspaces[name].is_empty:  # as good as one that never had a row; it may have been the last of it
                del self._workspaces[name]
        part.position, part.at = position, batch.after
        self._retain(part, batch)
        return list(updates.values())

    def _get_or_create_workspace(self, name: str, part: _Partition) -> Workspace:
        space = self._workspaces.get(name)
        if space is None:
            space = self._workspaces[name] = Workspace(name, part.rows)
        return space

    def _retain(self, part: _Partition, batch: AppliedBatch) -> None:
        self._batches.append(batch)
        part.starts.add(batch.before)
        for name in batch.changed:
            self._recent.setdefault(name, deque()).append(batch)
        self.retained_bytes += batch.size + _OVERHEAD
        while self.retained_bytes > self._resume_bytes:
            self._evict(self._batches.popleft())

    def _evict(self, batch: AppliedBatch) -> None:
        self.retained_bytes -= batch.size + _OVERHEAD
        self._partitions[batch.partition].starts.discard(batch.before)
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

    def workspace(self, workspace: str) -> Workspace:
        """The workspace, an empty one if nothing is known of it. Its partition must be one that is served."""
        space = self._workspaces.get(workspace)
        if space is None:
            return Workspace(workspace, self._partitions[self.partition(workspace)].rows)
        if not space.is_indexed:
            for _ in space.build():
                pass
        return space

    def find_workspace(self, workspace: str) -> Workspace | None:
        """The workspace, its indexes made or not."""
        return self._workspaces.get(workspace)

    def position(self, workspace: str) -> int:
        return self.position_of(self.partition(workspace))

    def cursor(self, workspace: str) -> int:
        return cursor_of(self.position(workspace))

    def clock(self, workspace: str) -> int:
        """The clock of the log, in microseconds."""
        return self._partitions[self.partition(workspace)].position.clock

    def position_of(self, partition: int) -> int:
        return self._partitions[partition].at

    def row_count(self) -> int:
        return sum(len(part.rows) for part in self._partitions.values())

    def indexed_count(self) -> int:
        """Workspaces whose indexes are made."""
        return sum(space.is_indexed for space in self._workspaces.values())

    def has_personal_change(self, workspace: str, cursor: int, user: str) -> bool:
        """Whether anything personal of the user's changed after a cursor."""
        batches = _batches_since(self._recent.get(workspace, ()), cursor >> CURSOR_BITS)
        return any(user in batch.affected_users(workspace) for batch in batches)

    def missed_since(self, workspace: str, cursor: int) -> MissedBatches | None:
        """What happened after a cursor. None: it is unknown, too old or of another future, so begin with a snapshot."""
        part = self._partitions[self.partition(workspace)]
        at, skip = cursor >> CURSOR_BITS, cursor & _FRAME
        if at != part.at and at not in part.starts:
            return None
        batches = _batches_since(self._recent.get(workspace, ()), at)
        if skip and not (batches and batches[0].before == at):
            return None
        changed = [change for batch in batches for change in batch.changed[workspace]]
        if len(changed) > MAX_MISSED:
            return None
        return MissedBatches(workspace_as_of(self.workspace(workspace), changed), batches, skip)


def apply_changes_to_past(space: Workspace, changed: Iterable[Changed]) -> Changes:
    """Rolls a workspace of the past over one batch."""
    found = Changes()
    for key, old_raw, raw in changed:
        old, new = decode_row_or_none(key, old_raw), decode_row_or_none(key, raw)
        space.apply(key, raw, old, new)
        _add_change(found, old, new)
    return found


def _batches_since(batches: Collection[AppliedBatch], position: int) -> list[AppliedBatch]:
    found: list[AppliedBatch] = []
    for batch in reversed(batches):  # type: ignore[call-overload]
        if batch.before < position:
            break
        found.append(batch)
    return found[::-1]


class _WorkspaceField(msgspec.Struct):
    """As much of any row as says whose it is."""

    ws: str


_decode_workspace_id = msgspec.json.Decoder(_WorkspaceField).decode


def _add_change(changes: Changes, old: Row | None, new: Row | None) -> None:
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
