"""Lets a process import its modules while what it depends on still starts.

The parent starts the child with `HOLD` and a pipe as its standard input. The child calls `wait` before its work. The
parent closes the pipe to let the child continue.
"""

from __future__ import annotations

import os

__all__ = ["HOLD", "wait"]

_VARIABLE = "ATTN_START_HELD"
HOLD = {_VARIABLE: "1"}  # variables of a process whose standard input is a pipe that the parent closes


def wait() -> None:
    """Returns when the parent has closed the pipe, or has ended. Returns at once in a process that is not held."""
    if os.environ.pop(_VARIABLE, ""):
        os.read(0, 1)
