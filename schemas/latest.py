"""A compacted topic as a dict: of each key the latest value."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping

__all__ = ["keep_latest"]


def keep_latest(rows: MutableMapping[bytes, bytes], changes: Iterable[tuple[bytes, bytes | None]]) -> None:
    """Take changes in, in order: a value takes the place of the one before, None removes it."""
    for key, value in changes:
        if value is None:
            rows.pop(key, None)
        else:
            rows[key] = value
