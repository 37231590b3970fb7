"""Prometheus metrics of the worker."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from streams.runtime.metric_aliases import MetricAlias

__all__ = [
    "BATCH_ROWS", "CIRCUIT_OPEN", "CLOCK", "EVENTS", "FACTS", "INGEST_SECONDS", "LINKS_DROPPED", "PACKS", "PACK_EVENTS",
    "REREAD_RECORDS", "STANDBY_PARTITIONS", "TICKS", "WRITE_SECONDS",
]

EVENTS = Counter("attn_ingest_events_total", "Source events accepted into the log", ["topic"])
INGEST_SECONDS = Histogram(
    "attn_ingest_delay_seconds",
    "Seconds from the timestamp of the newest source record of a partition until its event is in the log",
    buckets=(.002, .005, .01, .02, .05, .1, .25, .5, 1, 5, 30))
LINKS_DROPPED = Counter("attn_ingest_links_dropped_total", "Source events accepted without their action_url")
CIRCUIT_OPEN = Gauge(
    "attn_ingest_circuit_open", "1 while a source topic is not read because most of its records were rejected",
    ["topic"])
MetricAlias("attn_ingest_stopped", CIRCUIT_OPEN)
REREAD_RECORDS = Counter(
    "attn_reread_records_total", "Records that Faust did not deliver and that were read again", ["topic"])
MetricAlias("attn_skipped_records", REREAD_RECORDS)
# Shows how well packing works: with 1 event per pack, each event costs a log record.
PACK_EVENTS = Histogram("attn_ingest_pack_events", "Events per pack", buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500))
PACKS = Counter("attn_fold_packs_total", "Packs folded")
FACTS = Counter("attn_fold_facts_total", "Facts and outcomes written")
# Shows how well grouping works: rows in one record batch of attn.views.
BATCH_ROWS = Histogram("attn_fold_batch_rows", "Rows per batch", buckets=(1, 2, 5, 10, 20, 50, 100, 500, 1000, 5000))
WRITE_SECONDS = Histogram(
    "attn_fold_write_seconds", "Seconds from the write of a batch until it is acknowledged",
    buckets=(.001, .002, .005, .01, .02, .05, .1, .5, 2, 15),
)
TICKS = Counter("attn_ticks_total", "Ticks appended to the log")
CLOCK = Gauge("attn_fold_clock_seconds", "Log clock of a partition, seconds since the epoch", ["partition"])
STANDBY_PARTITIONS = Gauge(
    "attn_fold_standby_partitions", "Partitions of other workers whose rows this worker has, up to the last record")
