"""Rank of an item: band, due time, sort key, and the reasons of its rank (CONTRACT §3)."""

from __future__ import annotations

from collections.abc import Collection
from struct import Struct

from schemas.asking.question import Returned
from schemas.views import ItemRow

__all__ = [
    "BANDS", "ID_OFFSET", "STAGES", "RankKey", "band_of", "due_of", "is_pinned", "pinned_sort_key", "priority_of",
    "rank_key", "rank_reasons", "rank_text", "returned_of", "sort_key",
]

# `rank_key` as bytes: band, stage, not pinned, due, created; the item id follows. An index of a million entries is
# smaller and compares faster with bytes than with tuples.
_SORT_KEY = Struct(">BBBQQ")
ID_OFFSET = _SORT_KEY.size  # index of the first byte of the item id in a sort key

# Most urgent first; the number of a band is its index.
BANDS = ("urgent", "high", "normal", "low")
_BAND_NUMBERS = {name: number for number, name in enumerate(BANDS)}

# Second byte of a sort key. A decision that came back is first in its band: the person believes that it took effect.
_RETURNED, _BLOCKING, _OTHER = 0, 1, 2
STAGES = (_RETURNED, _BLOCKING, _OTHER)

# Due time of an item that is never due: after all others of its band.
NO_DUE = 2**63 - 1

RankKey = tuple[int, int, bool, int, int, str]


def priority_of(priority: str | None) -> str:
    """Returns the priority, `normal` by default, as the same string object that rows have as their default.

    msgspec omits a field whose value *is* the default object, and the same row must always be the same bytes (law 1).
    """
    return BANDS[_BAND_NUMBERS[priority or "normal"]]


def band_of(priority: str, overdue: bool) -> int:
    """Returns the band number of a priority, one less if overdue; 0 (urgent) is the top."""
    return max(0, _BAND_NUMBERS[priority] - overdue)


def due_of(row: ItemRow, targets: dict[str, int]) -> int:
    """Returns the due time in microseconds: `due_at`, else `expires_at`, else opening + target of the priority.

    A message that asks nothing has the target `message`, by default none: then NO_DUE.
    """
    if row.data.due_at is not None:
        return row.data.due_at
    if row.data.expires_at is not None:
        return row.data.expires_at
    target = targets.get("message") if row.kind == "message" and row.question is None else targets[row.priority]
    return NO_DUE if target is None else row.created_at + target


def is_pinned(row: ItemRow, pins: Collection[str]) -> bool:
    """Returns whether one of the item's clusters is among `pins`; an incident has several clusters."""
    if not pins:
        return False
    return row.data.cluster in pins or any(cluster in pins for cluster in row.clusters)


def returned_of(row: ItemRow) -> Returned | None:
    """Returns why the item is open again although it was decided: `refused`, `undeliverable` or `unconfirmed`."""
    return row.question.returned if row.question is not None else None


def _stage_of(row: ItemRow) -> int:
    if row.question is not None and row.question.returned is not None:
        return _RETURNED
    return _BLOCKING if row.blocking else _OTHER


def rank_key(row: ItemRow, pinned: bool = False) -> RankKey:
    """Returns the ascending sort key: band, returned first, then blocking, pinned first, earliest due, oldest, id."""
    return (row.band, _stage_of(row), not pinned, row.due_at, row.created_at, row.id)


def rank_reasons(row: ItemRow, pinned: bool = False) -> list[str]:
    """Returns the reasons of the rank: the band, then why a decision came back, `overdue`, `blocking`, `pinned`."""
    result = [BANDS[row.band]]
    if (returned := returned_of(row)) is not None:
        result.append(returned)
    if row.overdue:
        result.append("overdue")
    if row.blocking:
        result.append("blocking")
    if pinned:
        result.append("pinned")
    return result


def sort_key(row: ItemRow, pinned: bool = False) -> bytes:
    """Returns `rank_key` as bytes with the same order."""
    return _SORT_KEY.pack(row.band, _stage_of(row), not pinned, row.due_at, row.created_at) + row.id.encode()


def rank_text(key: bytes) -> str:
    """Returns a sort key without its id as text with the same order, by code unit.

    The texts of blocking and other items are those of view version 1, therefore a copy that a client made before the
    upgrade stays in order. A returned item is after all items of the band above: `-1` is above urgent.
    """
    band, stage = (key[0], key[1] - 1) if key[1] else (key[0] - 1, 2)
    return f"{band:02x}{stage:02x}{key[2:ID_OFFSET].hex()}"


def pinned_sort_key(key: bytes) -> bytes:
    """Returns the sort key of the same item for a reader who pinned one of its clusters."""
    return key[:2] + b"\0" + key[3:]
