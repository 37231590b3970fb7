"""Finds the offset to resume from in a partition of `attn.facts`.

The committed offset alone is not trusted. The topic may have been truncated and have grown past the committed offset
again, and ClickHouse may have lost rows. So the fact before the committed offset must be in ClickHouse.

Algorithm: an exponentially widening probe backwards from the committed offset. It reads the last 64 facts, then 512,
4096 and 32768, until a window holds a fact that ClickHouse has. Reading too much again does no harm: the deduplicator
drops the facts that are stored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from schemas.facts import Fact

__all__ = ["Offsets", "resume"]

_FIRST_WINDOW = 64  # records
_MAX_WINDOW = 1 << 15  # records; beyond that the whole topic is read again, which only takes longer
_GROWTH = 8

Read = Callable[[int, int], Awaitable[list[tuple[int, Fact]]]]
AreStored = Callable[[Sequence[Fact]], Awaitable[list[bool]]]


@dataclass(frozen=True, slots=True)
class Offsets:
    """Offsets of one partition: first and end offset of the topic, committed offset of the group (None: no commit)."""

    begin: int
    end: int
    committed: int | None


async def resume(offsets: Offsets, read: Read, are_stored: AreStored) -> tuple[int, str | None]:
    """Returns the offset to resume from, and a warning for the log or None.

    `read(low, high)` returns the offsets and facts of [low, high). `are_stored` returns for each fact whether
    ClickHouse has it.
    """
    begin, end, committed = offsets.begin, offsets.end, offsets.committed
    if committed is None:
        return begin, None
    if committed < begin:
        return begin, (
            f"facts missing from the history: offsets {committed} to {begin - 1} were deleted from the topic before "
            "they were read"
        )
    top = min(committed, end)
    warning = None
    if end < committed:
        warning = f"topic truncated at offset {end}, before the committed offset {committed}; the broker lost records"
    window = _FIRST_WINDOW
    while window <= _MAX_WINDOW:
        low = max(begin, top - window)
        facts = await read(low, top) if low < top else []
        stored = await are_stored([fact for _, fact in facts]) if facts else []
        if stored and stored[-1]:
            return top, warning
        if any(stored):
            newest = max(offset for (offset, _), is_stored in zip(facts, stored, strict=True) if is_stored)
            return newest + 1, warning or _not_stored(newest + 1, top)
        if low == begin:
            return begin, warning or (_not_stored(begin, top) if facts else None)
        window *= _GROWTH
    return begin, warning or _not_stored(begin, top)


def _not_stored(start: int, committed: int) -> str:
    return f"ClickHouse lacks facts before the committed offset {committed}: reading again from offset {start}"
