"""Where to read on in a partition of `attn.facts`. The committed offset is believed only as far as ClickHouse bears it
out: the topic may have fallen back and grown again past it, and ClickHouse may have lost what it had.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from schemas.facts import Fact

__all__ = ["Offsets", "resume"]

_WIDTH = 64  # records looked at before the committed offset
_WIDEST = 1 << 15  # after that the whole topic is read again: it costs time, nothing else

Read = Callable[[int, int], Awaitable[list[tuple[int, Fact]]]]
Present = Callable[[Sequence[Fact]], Awaitable[list[bool]]]


@dataclass(frozen=True, slots=True)
class Offsets:
    """Of one partition of the topic, and of the group in it."""

    begin: int
    end: int
    committed: int | None


async def resume(offsets: Offsets, read: Read, present: Present) -> tuple[int, str | None]:
    """The offset to read on from, and what to say loudly, if anything. Reading too much again does no harm.

    `read` gives the facts of a range of offsets, `present` says for each whether ClickHouse has it.
    """
    begin, end, committed = offsets.begin, offsets.end, offsets.committed
    if committed is None:
        return begin, None
    if committed < begin:
        return begin, f"facts of offsets {committed} to {begin - 1} left the topic before the history had read them"
    top = min(committed, end)
    said = None
    if end < committed:
        said = f"the topic ends at offset {end}, but {committed} was read: its broker lost records"
    width = _WIDTH
    while width <= _WIDEST:
        low = max(begin, top - width)
        facts = await read(low, top) if low < top else []
        there = await present([fact for _, fact in facts]) if facts else []
        if there and there[-1]:
            return top, said
        if any(there):
            found = max(offset for (offset, _), is_there in zip(facts, there, strict=True) if is_there)
            return found + 1, said or _again(found + 1, top)
        if low == begin:
            return begin, said or (_again(begin, top) if facts else None)
        width *= 8
    return begin, said or _again(begin, top)


def _again(start: int, committed: int) -> str:
    return f"facts before offset {committed} were committed but are not all in ClickHouse: reading on from {start}"
