"""Stores the rows of partitions of attn.views."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from schemas.views import apply_changes

__all__ = ["InMemoryRowStore", "RowStore", "Rows"]

Rows = list[tuple[bytes, bytes | None]]


class RowStore(Protocol):
    """Stores the rows of the partitions that this worker owns or follows. A persistent store writes rows and offset
    atomically."""

    def rows(self, partition: int) -> Mapping[bytes, bytes]: ...

    def offset(self, partition: int) -> int | None:
        """Returns the last offset of attn.views that was read or written, or None if there is none."""

    def put(self, partition: int, rows: Rows, offset: int) -> None: ...

    def drop(self, partition: int) -> None: ...

    def partitions(self) -> set[int]: ...


class InMemoryRowStore:
    """One dict per partition. A restart reads attn.views."""

    def __init__(self) -> None:
        self._rows: dict[int, dict[bytes, bytes]] = {}
        self._offsets: dict[int, int] = {}

    def rows(self, partition: int) -> Mapping[bytes, bytes]:
        return self._rows.setdefault(partition, {})

    def offset(self, partition: int) -> int | None:
        return self._offsets.get(partition)

    def put(self, partition: int, rows: Rows, offset: int) -> None:
        apply_changes(self._rows.setdefault(partition, {}), rows)
        self._offsets[partition] = offset

    def drop(self, partition: int) -> None:
        self._rows.pop(partition, None)
        self._offsets.pop(partition, None)

    def partitions(self) -> set[int]:
        return set(self._rows)
