"""Why a process cannot send traces."""

from __future__ import annotations

__all__ = ["TracesUnavailable"]


class TracesUnavailable(ValueError):
    """ATTN_TRACES is set, but the process cannot send traces. `str(error)` says what to change."""
