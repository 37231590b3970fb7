"""Index of the keys of sources that an edge knows: by id for authentication, by workspace for lists. Pure."""

from __future__ import annotations

from schemas.views import SourceKeyRow, decode_row

__all__ = ["SourceKeys"]

_PREFIX = b"x:"


class SourceKeys:
    """The keys of all workspaces of the replica. An edge refuses a key as soon as its row is gone."""

    def __init__(self) -> None:
        self._by_id: dict[str, SourceKeyRow] = {}
        self._by_workspace: dict[str, set[str]] = {}

    def apply(self, key: bytes, raw: bytes | None) -> None:
        """Applies one row of the view; None deletes it. Ignores rows of other kinds."""
        if key[:2] != _PREFIX:
            return
        known = self._by_id.pop(key[2:].decode(), None)
        if known is not None:
            ids = self._by_workspace[known.ws]
            ids.discard(known.id)
            if not ids:
                del self._by_workspace[known.ws]
        row = decode_row(key, raw) if raw is not None else None
        if isinstance(row, SourceKeyRow):
            self._by_id[row.id] = row
            self._by_workspace.setdefault(row.ws, set()).add(row.id)

    def get(self, key: str) -> SourceKeyRow | None:
        """Returns the key with this id, expired or not."""
        return self._by_id.get(key)

    def of_workspace(self, ws: str) -> list[SourceKeyRow]:
        """Returns the keys of a workspace, the newest first."""
        rows = (self._by_id[key] for key in self._by_workspace.get(ws, ()))
        return sorted(rows, key=lambda row: (-row.created_at, row.id))
