"""Prometheus metrics of the history."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from streams.runtime.metric_aliases import MetricAlias

__all__ = ["DEAD", "DUPLICATES", "INSERT_SECONDS", "LAG_ROWS", "LAG_SECONDS", "QUERY_SECONDS", "ROWS", "UP"]

ROWS = Counter("attn_history_rows_total", "Facts written to ClickHouse")
DUPLICATES = Counter(
    "attn_history_duplicates_total", "Facts that are in ClickHouse already, by how that was recognised", ["kind"])
MetricAlias("attn_history_skipped", DUPLICATES, {"kind": "why"})
DEAD = Counter("attn_history_dead_letters_total", "Facts sent to dead-letters")
INSERT_SECONDS = Histogram(
    "attn_history_insert_seconds", "One insert", buckets=(.005, .01, .02, .05, .1, .2, .5, 1, 5, 30),
)
QUERY_SECONDS = Histogram(
    "attn_history_query_seconds", "One query of an edge or an analyst to embedded ClickHouse, with its wait",
    buckets=(.005, .02, .05, .1, .2, .5, 1, 2, 5, 10),
)
LAG_ROWS = Gauge("attn_history_lag_rows", "Records of attn.facts not in ClickHouse yet")
LAG_SECONDS = Gauge("attn_history_lag_seconds", "Age of the oldest of them")
UP = Gauge("attn_history_clickhouse_up", "1 while ClickHouse does what it is asked")
