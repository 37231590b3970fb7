"""A workspace as it was: an overlay with the changes since then undone, which may then be rolled forward again. Pure.

It costs what was changed since, not what the workspace holds, and leaves the workspace itself alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping

from api.readmodel.readers import ItemCounts
from api.readmodel.sorted_sets import Name, SortedSets, SortedSetsOverlay
from api.readmodel.workspace import Workspace
from schemas.views import decode_row_or_none

__all__ = ["workspace_as_of"]


class _OverlayRows(MutableMapping[bytes, bytes]):
    def __init__(self, base: MutableMapping[bytes, bytes]) -> None:
        self._base = base
        self._over: dict[bytes, bytes | None] = {}

    def __getitem__(self, key: bytes) -> bytes:
        raw = self._over[key] if key in self._over else self._base[key]
        if raw is None:
            raise KeyError(key)
        return raw

    def __setitem__(self, key: bytes, raw: bytes) -> None:
        self._over[key] = raw

    def __delitem__(self, key: bytes) -> None:
        self[key]
        self._over[key] = None

    def __contains__(self, key: object) -> bool:
        return (self._over[key] is not None) if key in self._over else key in self._base

    def __iter__(self) -> Iterator[bytes]:
        raise NotImplementedError("an overlay is asked by key")

    def __len__(self) -> int:
        raise NotImplementedError("an overlay is asked by key")


class _OverlayTallies(dict[Name, ItemCounts]):
    """Tallies are changed in place, so the first look at one makes a copy."""

    def __init__(self, base: MutableMapping[Name, ItemCounts]) -> None:
        super().__init__()
        self._base = base
        self._gone: set[Name] = set()

    def get(self, name: Name, default: ItemCounts | None = None) -> ItemCounts | None:  # type: ignore[override]
        if name in self:
            return self[name]
        if name in self._gone or name not in self._base:
            return default
        self[name] = self._base[name].copy()
        return self[name]

    def __delitem__(self, name: Name) -> None:
        super().__delitem__(name)
        self._gone.add(name)


def workspace_as_of(space: Workspace, changed: Iterable[tuple[bytes, bytes | None, bytes | None]]) -> Workspace:
    """`space` before `changed` (key, old, new), which is in the order in which it happened."""
    assert isinstance(space.sets, SortedSets)
    before: dict[bytes, bytes | None] = {}
    for key, old, _ in changed:
        before.setdefault(key, old)
    if any(key[:2] == b"p:" for key in before):
        space.ensure_family("cluster")  # somebody may have had pins then, which it can't make lists for any more
    then = Workspace(space.workspace_id, _OverlayRows(space.rows), SortedSetsOverlay(space.sets),
                     _OverlayTallies(space.tallies), space.families)
    for key, raw in before.items():
        then.apply(key, raw, decode_row_or_none(key, space.rows.get(key)), decode_row_or_none(key, raw))
    return then
