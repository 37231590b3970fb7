"""The wall clock of processes. The fold has no clock: it counts by the clock of the log (law 1), so streams.core must
not import this module (an import contract in pyproject.toml forbids it).
"""

from __future__ import annotations

import time

__all__ = ["now_us"]


def now_us() -> int:
    """Returns the wall-clock time in microseconds since 1970-01-01T00:00:00Z."""
    return time.time_ns() // 1000
