"""Prometheus metrics of traces. They are exported by every process, and stay 0 while traces are off."""

from __future__ import annotations

from prometheus_client import Counter

__all__ = ["LINKS_DROPPED", "SPANS"]

SPANS = Counter(
    "attn_trace_spans_total",
    "Spans that ended: exported, failed (the collector did not take them), dropped (too many waited)", ["result"])
LINKS_DROPPED = Counter(
    "attn_trace_links_dropped_total", "Traces that ended early because a record already had 64 contexts")
