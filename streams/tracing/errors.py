"""Why a process cannot send traces."""

from __future__ import annotations

__all__ = ["EXTRA_MISSING", "TracesUnavailable"]

EXTRA_MISSING = "ATTN_TRACES needs OpenTelemetry: pip install 'attn[traces]'"


class TracesUnavailable(ValueError):
    """ATTN_TRACES is set, but the process cannot send traces. `str(error)` says what to change."""
