"""Distinguishes a caller that cancelled the request from a client whose own timeout ended. Pure."""

from __future__ import annotations

import re

__all__ = ["is_timeout"]

# What the SDKs write: "timed out after 60s" (Python), "MCP error -32001: Request timed out" (TypeScript),
# "The operation was aborted due to timeout" (AbortSignal.timeout), "context deadline exceeded" (Go).
_TIMEOUT = re.compile(r"time[sd]?[ -]?out|-32001|deadline exceeded", re.IGNORECASE)


def is_timeout(reason: object) -> bool:
    """Returns whether the reason of `notifications/cancelled` is that the client waited no longer.

    The specification tells clients to cancel a request after their timeout. The agent still wants the answer then, and
    gets it by the same call or the handle. Without a reason a cancellation counts as the caller's.
    """
    return isinstance(reason, str) and _TIMEOUT.search(reason) is not None
