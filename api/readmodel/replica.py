"""Replica of `attn.views` in memory: rows by partition, indexes by workspace, and the latest batches for resume. Pure.

A cursor names the state after a batch. `missed_since` returns the batches after a cursor as long as they are retained.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from api.readmodel.access.sessions import ACCESS_PREFIXES, AccessIndex
from api.readmodel.access.source_keys import SourceKeys
from api.readmodel.changes import Changes, ItemChange
from api.readmodel.rollback import workspace_as_of
from api.readmodel.workspace import PREFIXES, Workspace
from schemas.asking.question import DecisionRow
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
    SourceKeyRow,
    cursor_of,
    decode_row_or_none,
    workspace_of,
)

__all__ = ["AppliedBatch", "MissedBatches", "Replica", "WorkspaceUpdate", "apply_changes_to_past"]

Changed = tuple[bytes, bytes | None, bytes | None]  # key, value before, value after

# Bytes that a retained change costs in addition to the value before: the tuple, its slots in two lists, the key.
_OVERHEAD = 250
# Changes up to which a feed resumes. A resume costs CPU on the event loop for each of them; above this number a
# snapshot is cheaper.
MAX_MISSED = 20_000
_FRAME = (1 << CURSOR_BITS) - 1
_ACCESS_KINDS = ACCESS_PREFIXES | {b"x:"}
_STEP = 50  # rows that `load_steps` loads in one step


@dataclass(slots=True)
class AppliedBatch:
    """Changes of one batch by workspace. `before` and `after` are positions of the partition."""

    partition: int
    before: int
    after: int
    changed: dict[str, list[Changed]] = field(default_factory=dict)
    size: int = 0
    _users: dict[str, set[str]] = field(default_factory=dict)

    def affected_users(self, workspace_id: str) -> set[str]:
        """Returns the users of a workspace whose personal view the batch may have changed. Computed once."""
        users = self._users.get(workspace_id)
        if users is None:
            changes = Changes()
            for key, old, new in self.changed[workspace_id]:
                _add_change(changes, decode_row_or_none(key, old), decode_row_or_none(key, new))
            users = self._users[workspace_id] = changes.affected_users()
        return users


@dataclass(frozen=True, slots=True)
class WorkspaceUpdate:
    """Decoded changes of a batch in one workspace. `workspace` is the state after the batch."""

    workspace: Workspace
    before: int
    after: int
    changes: Changes


@dataclass(frozen=True, slots=True)
class MissedBatches:
    """Batches after a cursor. `workspace` is the state at the cursor's position.

    `skip`: number of frames of the first batch that the reader has received already.
    """

    workspace: Workspace
    batches: list[AppliedBatch]
    skip: int


@dataclass(slots=True)
class _Partition:
    rows: dict[bytes, bytes] = field(default_factory=dict)
    position: PositionRow = field(default_factory=lambda: PositionRow(next=0))
    at: int = 0  # number of the position
    starts: set[int] = field(default_factory=set)  # positions before the retained batches


class Replica:
    """All workspaces of the partitions that this edge serves, and the rows of access of all partitions.

    A session may enter workspaces of several partitions, and a key or a link does not name its workspace. Therefore
    every edge knows those of all workspaces.
    """

    def __init__(self, partitions: int, served: Collection[int] | None = None, resume_bytes: int = 64 << 20) -> None:
        self.partitions = partitions
        self.served = frozenset(range(partitions) if served is None else served)
        self.retained_bytes = 0  # bytes
        self.access = AccessIndex()
        self._resume_bytes = resume_bytes
        self._partitions = {number: _Partition() for number in range(partitions)}
        self._workspaces: dict[str, Workspace] = {}
        self._batches: deque[AppliedBatch] = deque()
        self._recent: dict[str, deque[AppliedBatch]] = {}

    @property
    def source_keys(self) -> SourceKeys:
        return self.access.source_keys

    # --- writes ---

    def load(self, partition: int, rows: Mapping[bytes, bytes], position: PositionRow) -> None:
        """Loads the first state of a partition."""
        for _ in self.load_steps(partition, rows, position):
            pass

    def load_steps(self, partition: int, rows: Mapping[bytes, bytes], position: PositionRow) -> Iterator[None]:
        """Loads the first state of a partition, `_STEP` rows a step. The rows may be those of other partitions."""
        part, served = self._partitions[partition], partition in self.served
        keys: dict[str, list[bytes]] = {}
        for number, (key, raw) in enumerate(rows.items()):
            kind = key[:2]
            if kind in _ACCESS_KINDS:
                self.access.apply(key, raw)
            if served and kind in PREFIXES:
                part.rows[key] = raw
                name = workspace_of(raw)
                own = keys.get(name)
                if own is None:
                    keys[name] = [key]
                else:
                    own.append(key)
            if number % _STEP == 0:
                yield
        for name, own in keys.items():
            workspace = self._workspaces[name] = Workspace(name, part.rows)
            workspace.set_keys(own)
        part.position, part.at = position, position.position

    def apply(
        self, partition: int, rows: Iterable[tuple[bytes, bytes | None]], position: PositionRow
    ) -> list[WorkspaceUpdate]:
        """Applies one batch. Returns the changes by workspace; publish them before the next batch is applied.

        Ignores a batch whose position is not above that of the partition: a worker that lost the partition wrote it,
        or the owner wrote rows again.
        """
        part = self._partitions[partition]
        batch = AppliedBatch(partition, part.at, position.position)
        if batch.after <= batch.before:
            return []
        if partition not in self.served:
            self._apply_access(part, dict(rows), position)
            return []
        updates: dict[str, WorkspaceUpdate] = {}
        for key, raw in dict(rows).items():
            before = part.rows.get(key)
            if self.access.apply(key, raw) or key[:2] not in PREFIXES or raw == before:
                continue
            # The values differ, therefore one of them exists.
            workspace = self._get_or_create_workspace(workspace_of(raw or before or b""), part)
            batch.changed.setdefault(workspace.workspace_id, []).append((key, before, raw))
            batch.size += _OVERHEAD + len(before or b"")
            if not workspace.is_indexed:  # no reader has requested the workspace
                workspace.store_row(key, raw)
                continue
            update = updates.get(workspace.workspace_id)
            if update is None:
                update = WorkspaceUpdate(workspace, batch.before, batch.after, Changes())
                updates[workspace.workspace_id] = update
            old, new = decode_row_or_none(key, before), decode_row_or_none(key, raw)
            workspace.apply(key, raw, old, new)
            _add_change(update.changes, old, new)
        for name in batch.changed:
            if self._workspaces[name].is_empty:  # equal to a workspace that never had a row
                del self._workspaces[name]
        part.position, part.at = position, batch.after
        self._retain(part, batch)
        return list(updates.values())

    def _apply_access(self, part: _Partition, rows: dict[bytes, bytes | None], position: PositionRow) -> None:
        """Applies a batch of a partition that another edge serves: its rows of access only."""
        for key, raw in rows.items():
            self.access.apply(key, raw)
        part.position, part.at = position, position.position

    def _get_or_create_workspace(self, name: str, part: _Partition) -> Workspace:
        workspace = self._workspaces.get(name)
        if workspace is None:
            workspace = self._workspaces[name] = Workspace(name, part.rows)
        return workspace

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

    # --- reads ---

    def serves(self, workspace_id: str) -> bool:
        return self.partition(workspace_id) in self.served

    def partition(self, workspace_id: str) -> int:
        return partition_of(workspace_id, self.partitions)

    def workspace(self, workspace_id: str) -> Workspace:
        """Returns an indexed workspace; an empty one if no row of it exists. The edge must serve its partition."""
        workspace = self._workspaces.get(workspace_id)
        if workspace is None:
            return Workspace(workspace_id, self._partitions[self.partition(workspace_id)].rows)
        if not workspace.is_indexed:
            for _ in workspace.build():
                pass
        return workspace

    def drop_indexes(self, read_before: float, in_use: Collection[str]) -> Iterator[bool]:
        """Drops the indexes of workspaces that were last requested before `read_before` (monotonic seconds).

        Checks one workspace a step, and yields whether its indexes were dropped. Keeps the workspaces in `in_use`:
        their streams and long polls need the changes that `apply` decodes. Keeps those whose indexes are being built.
        """
        for name, workspace in list(self._workspaces.items()):
            dropped = (workspace.is_indexed and workspace.last_read < read_before and name not in in_use
                       and workspace.changes_during_build is None)
            if dropped:
                workspace.drop_indexes()
            yield dropped

    def find_workspace(self, workspace_id: str) -> Workspace | None:
        """Returns the workspace with or without indexes. None if no row of it exists."""
        return self._workspaces.get(workspace_id)

    def position(self, workspace_id: str) -> int:
        return self.position_of(self.partition(workspace_id))

    def cursor(self, workspace_id: str) -> int:
        return cursor_of(self.position(workspace_id))

    def clock(self, workspace_id: str) -> int:
        """Returns the clock of the log, in microseconds."""
        return self._partitions[self.partition(workspace_id)].position.clock

    def position_of(self, partition: int) -> int:
        return self._partitions[partition].at

    def row_count(self) -> int:
        return sum(len(part.rows) for part in self._partitions.values())

    def indexed_count(self) -> int:
        """Returns the number of workspaces with indexes."""
        return sum(workspace.is_indexed for workspace in self._workspaces.values())

    def has_personal_change(self, workspace_id: str, cursor: int, user: str) -> bool:
        """Returns whether a personal row of the user changed after a cursor, as far as batches are retained."""
        batches = _batches_since(self._recent.get(workspace_id, ()), cursor >> CURSOR_BITS)
        return any(user in batch.affected_users(workspace_id) for batch in batches)

    def missed_since(self, workspace_id: str, cursor: int) -> MissedBatches | None:
        """Returns the batches after a cursor.

        Returns None if the cursor is unknown or too old, or if more than `MAX_MISSED` changes follow: send a snapshot.
        """
        part = self._partitions[self.partition(workspace_id)]
        at, skip = cursor >> CURSOR_BITS, cursor & _FRAME
        if at != part.at and at not in part.starts:
            return None
        batches = _batches_since(self._recent.get(workspace_id, ()), at)
        if skip and not (batches and batches[0].before == at):
            return None
        changed = [change for batch in batches for change in batch.changed[workspace_id]]
        if len(changed) > MAX_MISSED:
            return None
        return MissedBatches(workspace_as_of(self.workspace(workspace_id), changed), batches, skip)


def apply_changes_to_past(workspace: Workspace, changed: Iterable[Changed]) -> Changes:
    """Applies one batch to a workspace of an earlier position. Returns the decoded changes."""
    changes = Changes()
    for key, old_raw, raw in changed:
        old, new = decode_row_or_none(key, old_raw), decode_row_or_none(key, raw)
        workspace.apply(key, raw, old, new)
        _add_change(changes, old, new)
    return changes


def _batches_since(batches: Sequence[AppliedBatch], position: int) -> list[AppliedBatch]:
    """Returns the batches from a position on, the oldest first. Reads from the end, where most cursors are."""
    later: list[AppliedBatch] = []
    for batch in reversed(batches):
        if batch.before < position:
            break
        later.append(batch)
    return later[::-1]


def _add_change(changes: Changes, old: Row | None, new: Row | None) -> None:
    """Adds the change of one row: its values before and after."""
    if isinstance(old, ItemRow) or isinstance(new, ItemRow):
        changes.items.append(ItemChange(old, new))  # type: ignore[arg-type]  # rows of one key have one type
        return
    for row in (old, new):
        if isinstance(row, MarkRow):
            changes.marks.append(row)
        elif isinstance(row, DraftRow):
            changes.drafts.append(row)
        elif isinstance(row, PreferencesRow):
            changes.preferences.append(row)
        elif isinstance(row, ActivityRow):
            changes.activity.append(row)
        elif isinstance(row, DecisionRow | SourceKeyRow):
            changes.of_sources = True
