"""Rank of an item: band, due time, sort key, and the reasons of its rank (CONTRACT §3)."""

from __future__ import annotations

from collections.abc import Collection
from struct import Struct

from schemas.views import ItemRow

__all__ = [
    "BANDS", "ID_OFFSET", "RankKey", "band_of", "due_of", "is_pinned", "pinned_sort_key", "priority_of", "rank_key",
    "rank_reasons", "sort_key",
]

# `rank_key` as bytes: band, not blocking, not pinned, due, created; the item id follows. An index of a million entries
# is smaller and compares faster with bytes than with tuples.
_SORT_KEY = Struct(">BBBQQ")
ID_OFFSET = _SORT_KEY.size  # index of the first byte of the item id in a sort key

# Most urgent first; the number of a band is its index.
BANDS = ("urgent", "high", "normal", "low")
_BAND_NUMBERS = {name: number for number, name in enumerate(BANDS)}

RankKey = tuple[int, bool, bool, int, int, str]


def priority_of(priority: str | None) -> str:
    """Returns the priority, `normal` by default, as the same string object that rows have as their default.

    msgspec omits a field whose value *is* the default object, and the same row must always be the same bytes (law 1).
    """
    return BANDS[_BAND_NUMBERS[priority or "normal"]]


def band_of(priority: str, overdue: bool) -> int:
    """Returns the band number of a priority, one less if overdue; 0 (urgent) is the top."""
    return max(0, _BAND_NUMBERS[priority] - overdue)


def due_of(row: ItemRow, targets: dict[str, int]) -> int:
    """Returns the due time in microseconds: `due_at`, else `expires_at`, else opening + target of the priority."""
    if row.data.due_at is not None:
        return row.data.due_at
    if row.data.expires_at is not None:
        return row.data.expires_at
    return row.created_at + targets[row.priority]


def is_pinned(row: ItemRow, pins: Collection[str]) -> bool:
    """Returns whether one of the item's clusters is among `pins`; an incident has several clusters."""
    if not pins:
        return False
    return row.data.cluster in pins or any(cluster in pins for cluster in row.clusters)


def rank_key(row: ItemRow, pinned: bool = False) -> RankKey:
    """Returns the ascending sort key: band, blocking first, pinned first, earliest due, oldest, id."""
    return (row.band, not row.blocking, not pinned, row.due_at, row.created_at, row.id)


def rank_reasons(row: ItemRow, pinned: bool = False) -> list[str]:
    """Returns the reasons of the rank in order of weight: the band, then `overdue`, `blocking`, `pinned`."""
    result = [BANDS[row.band]]
    if row.overdue:
        result.append("overdue")
    if row.blocking:
        result.append("blocking")
    if pinned:
        result.append("pinned")
    return result


def sort_key(row: ItemRow, pinned: bool = False) -> bytes:
    """Returns `rank_key` as bytes with the same order."""
    return _SORT_KEY.pack(row.band, not row.blocking, not pinned, row.due_at, row.created_at) + row.id.encode()


def pinned_sort_key(key: bytes) -> bytes:
    """Returns the sort key of the same item for a reader who pinned one of its clusters."""
    return key[:2] + b"\0" + key[3:]
