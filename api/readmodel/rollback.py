"""A workspace as of an earlier position: an overlay with the later changes undone. Pure.

The overlay costs what changed since that position, not what the workspace holds. The workspace itself stays as it is.
The changes can be applied to the overlay again, batch by batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping

from api.readmodel.indexes import TallyName
from api.readmodel.readers import ItemCounts
from api.readmodel.sorted_sets import SortedSets, SortedSetsOverlay
from api.readmodel.workspace import Workspace
from schemas.views import decode_row_or_none

__all__ = ["workspace_as_of"]


class _OverlayRows(MutableMapping[bytes, bytes]):
    def __init__(self, base: MutableMapping[bytes, bytes]) -> None:
        self._base = base
        self._changed: dict[bytes, bytes | None] = {}

    def __getitem__(self, key: bytes) -> bytes:
        raw = self._changed[key] if key in self._changed else self._base[key]
        if raw is None:
            raise KeyError(key)
        return raw

    def __setitem__(self, key: bytes, raw: bytes) -> None:
        self._changed[key] = raw

    def __delitem__(self, key: bytes) -> None:
        self[key]
        self._changed[key] = None

    def __contains__(self, key: object) -> bool:
        return (self._changed[key] is not None) if key in self._changed else key in self._base

    def __iter__(self) -> Iterator[bytes]:
        raise NotImplementedError("an overlay of rows supports access by key only")

    def __len__(self) -> int:
        raise NotImplementedError("an overlay of rows supports access by key only")


class _OverlayTallies(dict[TallyName, ItemCounts]):
    """Copy-on-write: the first access to a tally copies it, because tallies are changed in place."""

    def __init__(self, base: MutableMapping[TallyName, ItemCounts]) -> None:
        super().__init__()
        self._base = base
        self._deleted: set[TallyName] = set()

    def get(self, name: TallyName, default: ItemCounts | None = None) -> ItemCounts | None:  # type: ignore[override]
        if name in self:
            return self[name]
        if name in self._deleted or name not in self._base:
            return default
        self[name] = self._base[name].copy()
        return self[name]

    def __delitem__(self, name: TallyName) -> None:
        super().__delitem__(name)
        self._deleted.add(name)


def workspace_as_of(
    workspace: Workspace, changed: Iterable[tuple[bytes, bytes | None, bytes | None]]
) -> Workspace:
    """Returns the workspace as it was before `changed`: (key, value before, value after) in the order of the log."""
    assert isinstance(workspace.sets, SortedSets)
    before: dict[bytes, bytes | None] = {}
    for key, old, _ in changed:
        before.setdefault(key, old)
    if any(key[:2] == b"p:" for key in before):
        # A user may have had pins at that position. An overlay cannot build a family.
        workspace.ensure_family("ranked_by_cluster")
    past = Workspace(workspace.workspace_id, _OverlayRows(workspace.rows), SortedSetsOverlay(workspace.sets),
                     _OverlayTallies(workspace.tallies), workspace.families)
    for key, raw in before.items():
        past.apply(key, raw, decode_row_or_none(key, workspace.rows.get(key)), decode_row_or_none(key, raw))
    return past
