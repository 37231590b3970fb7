"""Spaces fetches while the event loop is busy, so that each fetch returns more records.

A worker spends most of its CPU per fetch and per write, not per record. When records arrive one by one, it therefore
needs nearly as much CPU for 1,000 records per second as for 5,000, and each record waits behind the work of others. A
short pause between two fetches lets records share a fetch, a group and a write. An event loop that is mostly idle makes
no pause.
"""

from __future__ import annotations

import time

__all__ = ["FetchPace", "pause_of"]

_WINDOW = 0.1  # seconds over which the CPU of the loop's thread is averaged
_SMOOTHING = 0.5  # share of a window in the average
_IDLE, _BUSY = 0.3, 0.7  # share of a core: up to the first there is no pause, from the second on the longest
_LONGEST = 0.012  # seconds


def pause_of(busy: float) -> float:
    """Returns the seconds between the starts of two fetches, if the loop's thread uses `busy` of a core."""
    return _LONGEST * min(1.0, max(0.0, (busy - _IDLE) / (_BUSY - _IDLE)))


class FetchPace:
    """Measures how busy the thread of the event loop is. All fetchers of the loop share one object."""

    def __init__(self) -> None:
        self._since, self._cpu = time.monotonic(), time.thread_time()
        self._busy = 0.0

    def pause(self, now: float) -> float:
        """Returns the seconds that a fetch with records should last, the pause after it included. `now`: monotonic."""
        if (elapsed := now - self._since) >= _WINDOW:
            cpu = time.thread_time()
            self._busy += ((cpu - self._cpu) / elapsed - self._busy) * _SMOOTHING
            self._since, self._cpu = now, cpu
        return pause_of(self._busy)
