"""When a source was open, from the times it opened and closed, in whatever order they arrive (law 2).

A period list holds `time * 2` for an opening and `time * 2 + 1` for a close, sorted: at equal times the close comes
last and wins (CONTRACT §2). It keeps the whole recent history, because a late event may split a period in two.
"""

from __future__ import annotations

from bisect import bisect_left

__all__ = ["current_period_start", "insert", "intervals", "is_open", "newest_opening", "newest_time"]

# A source that opens and closes more often than this loses the exact start of its oldest periods, nothing else.
MAX_TIMES = 64


def insert(periods: list[int], time: int, closes: bool) -> bool:
    """Adds a time in place; False where it is there already."""
    code = time * 2 + closes
    if not periods or periods[-1] < code:
        periods.append(code)
    else:
        place = bisect_left(periods, code)
        if periods[place] == code:
            return False
        periods.insert(place, code)
    if len(periods) > MAX_TIMES:
        _trim(periods)
    return True


def _trim(periods: list[int]) -> None:
    """Drops what least matters: repeated openings but the first, repeated closes but the last, then the oldest."""
    last = len(periods) - 1
    kept = [
        code for place, code in enumerate(periods)
        if place == last
        or (code & 1 and not periods[place + 1] & 1)
        or (not code & 1 and (place == 0 or periods[place - 1] & 1))
    ]
    periods[:] = kept[-MAX_TIMES:]


def is_open(periods: list[int]) -> bool:
    return bool(periods) and not periods[-1] & 1


def newest_time(periods: list[int]) -> int:
    """The newest time of all, or -1."""
    return periods[-1] >> 1 if periods else -1


def newest_opening(periods: list[int]) -> int:
    """The newest opening, or -1."""
    return next((code >> 1 for code in reversed(periods) if not code & 1), -1)


def current_period_start(periods: list[int]) -> int | None:
    """The start of the newest period: the first opening since the close before it. None: it never opened."""
    start = None
    for code in reversed(periods):
        if not code & 1:
            start = code >> 1
        elif start is not None:
            break
    return start


def intervals(periods: list[int]) -> list[tuple[int, int | None]]:
    """All periods as (opened, closed), the last one with None while it is open."""
    found: list[tuple[int, int | None]] = []
    start = None
    for code in periods:
        if not code & 1:
            start = code >> 1 if start is None else start
        elif start is not None:
            found.append((start, code >> 1))
            start = None
    if start is not None:
        found.append((start, None))
    return found
