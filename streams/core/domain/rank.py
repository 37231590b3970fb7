"""The rank: most pressing first, and why (CONTRACT §3). Pure; an item's overdue flag comes from the log's clock."""

from __future__ import annotations

from collections.abc import Collection
from struct import Struct

from schemas.views import ItemRow

__all__ = [
    "BANDS", "ID_OFFSET", "RankKey", "band_of", "due_of", "is_pinned", "pinned_sort_key", "priority_of", "rank_key",
    "rank_reasons", "sort_key",
]

# `rank_key` as bytes, so that an index of a million entries is small and compares fast: band, not blocking, not pinned,
# due, created, then the id.
_SORT_KEY = Struct(">BBBQQ")
ID_OFFSET = _SORT_KEY.size  # where the id begins in a sort key

# Most pressing first; a band's number is its place here.
BANDS = ("urgent", "high", "normal", "low")
_BAND_NUMBERS = {name: place for place, name in enumerate(BANDS)}

RankKey = tuple[int, bool, bool, int, int, str]


def priority_of(given: str | None) -> str:
    """The priority, `normal` by default, as the very string that rows have as their default: msgspec leaves a field out
    where it *is* its default, and the same row must always be the same bytes (law 1)."""
    return BANDS[_BAND_NUMBERS[given or "normal"]]


def band_of(priority: str, overdue: bool) -> int:
    """The priority's place, one step up once overdue; urgent is the top."""
    return max(0, _BAND_NUMBERS[priority] - overdue)


def due_of(row: ItemRow, targets: dict[str, int]) -> int:
    """When it is due, in microseconds: the source's own time, else opened + the target of its priority."""
    if row.data.due_at is not None:
        return row.data.due_at
    if row.data.expires_at is not None:
        return row.data.expires_at
    return row.created_at + targets[row.priority]


def is_pinned(row: ItemRow, pins: Collection[str]) -> bool:
    """Whether the reader pinned a cluster of it; an incident has several."""
    if not pins:
        return False
    return row.data.cluster in pins or any(cluster in pins for cluster in row.clusters)


def rank_key(row: ItemRow, pinned: bool = False) -> RankKey:
    """Sorts ascending: band, blocking first, pinned first, due, oldest, id."""
    return (row.band, not row.blocking, not pinned, row.due_at, row.created_at, row.id)


def rank_reasons(row: ItemRow, pinned: bool = False) -> list[str]:
    """The rank in words, in the order it is decided: the band always, then what moved it up."""
    found = [BANDS[row.band]]
    if row.overdue:
        found.append("overdue")
    if row.blocking:
        found.append("blocking")
    if pinned:
        found.append("pinned")
    return found


def sort_key(row: ItemRow, pinned: bool = False) -> bytes:
    """Sorts as `rank_key` does."""
    return _SORT_KEY.pack(row.band, not row.blocking, not pinned, row.due_at, row.created_at) + row.id.encode()



def pinned_sort_key(key: bytes) -> bytes:
    """The sort key of the same item for a reader who pinned a cluster of it."""
    return key[:2] + b"\0" + key[3:]
