"""Open and closed periods of a source, from the times of its opening and closing events in any arrival order (law 2).

A period list is a sorted list of codes: `time * 2` for an opening, `time * 2 + 1` for a close, with `time` in
microseconds. At equal times the close has the higher code, comes last and wins (CONTRACT §2). The list keeps the
recent history, because a late event may split a period in two.
"""

from __future__ import annotations

from bisect import bisect_left

__all__ = [
    "current_period_start", "insert", "intervals", "is_close", "is_open", "newest_opening", "newest_time", "time_of",
]

# A source with more openings and closes than this loses the exact start of its oldest periods, and nothing else.
MAX_TIMES = 64


def is_close(code: int) -> bool:
    """Returns whether the code of a period list is a close; else it is an opening."""
    return bool(code & 1)


def time_of(code: int) -> int:
    """Returns the time of a code of a period list, in microseconds."""
    return code >> 1


def insert(periods: list[int], time: int, closes: bool) -> bool:
    """Inserts an opening or a close in place. Returns False if the list has it already."""
    code = time * 2 + closes
    if not periods or periods[-1] < code:
        periods.append(code)
    else:
        index = bisect_left(periods, code)
        if periods[index] == code:
            return False
        periods.insert(index, code)
    if len(periods) > MAX_TIMES:
        _trim(periods)
    return True


def _trim(periods: list[int]) -> None:
    """Shortens the list to MAX_TIMES codes, in place.

    Drops all but the first of consecutive openings, all but the last of consecutive closes, then the oldest codes.
    """
    last_index = len(periods) - 1
    boundaries = [
        code for index, code in enumerate(periods)
        if index == last_index
        or (is_close(code) and not is_close(periods[index + 1]))
        or (not is_close(code) and (index == 0 or is_close(periods[index - 1])))
    ]
    periods[:] = boundaries[-MAX_TIMES:]


def is_open(periods: list[int]) -> bool:
    """Returns whether the newest code is an opening."""
    return bool(periods) and not is_close(periods[-1])


def newest_time(periods: list[int]) -> int:
    """Returns the time of the newest opening or close, -1 if there is none."""
    return time_of(periods[-1]) if periods else -1


def newest_opening(periods: list[int]) -> int:
    """Returns the time of the newest opening, -1 if there is none."""
    return next((time_of(code) for code in reversed(periods) if not is_close(code)), -1)


def current_period_start(periods: list[int]) -> int | None:
    """Returns the start of the newest period: its first opening. None if the source never opened."""
    start = None
    for code in reversed(periods):
        if not is_close(code):
            start = time_of(code)
        elif start is not None:
            break
    return start


def intervals(periods: list[int]) -> list[tuple[int, int | None]]:
    """Returns all periods as (start, end), oldest first; the end of an open period is None."""
    result: list[tuple[int, int | None]] = []
    start = None
    for code in periods:
        if not is_close(code):
            start = time_of(code) if start is None else start
        elif start is not None:
            result.append((start, time_of(code)))
            start = None
    if start is not None:
        result.append((start, None))
    return result
