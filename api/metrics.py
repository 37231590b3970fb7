"""Metrics of an edge, each declared once. `attn_edge_*`; seconds and bytes."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from streams.runtime.metric_aliases import MetricAlias

STREAMS = Gauge("attn_edge_streams", "Live connections")
CONNECTIONS_REFUSED = Counter("attn_edge_streams_refused_total", "Connections beyond a user's limit")
DISCONNECTED_SLOW = Counter("attn_edge_streams_cut_total", "Readers too slow to keep up")
RESUMED = Counter("attn_edge_resumes_total", "Feeds that named a cursor, by what they were given", ["answer"])
FRAMES = Counter("attn_edge_frames_total", "Frames made, each for one reader or for all who share a view")
SENT = Counter("attn_edge_sent_bytes_total", "Bytes handed to connections, heartbeats left out")
WINDOWS = Gauge("attn_edge_windows", "Views of readers kept up to date")
BATCHES = Counter("attn_edge_batches_total", "Batches of attn.views applied")
PUBLISH_SECONDS = Histogram(
    "attn_edge_publish_seconds", "From a poll's records until every connection has its frames",
    buckets=(.0005, .001, .002, .005, .01, .02, .05, .1, .25, 1, 5))
STALE = Counter("attn_edge_stale_batches_total", "Batches of attn.views that did not lead on, and were left out")
BROKER_UP = Gauge("attn_edge_broker_up", "1 while the broker answers, 0 once it has been silent for seconds")
MetricAlias("attn_edge_broker_answers", BROKER_UP)
INDEXED = Gauge("attn_edge_indexed_workspaces", "Workspaces somebody has asked for, so that they have indexes")
OPENING = Gauge("attn_edge_streams_opening", "Connections that wait for their first frames")
POSITION = Gauge("attn_edge_position", "Position of the view", ["partition"])
ROWS = Gauge("attn_edge_rows", "Rows of the view held")
RESUME_BYTES = Gauge("attn_edge_resume_bytes", "Changes held for feeds that resume")
READY = Gauge("attn_edge_ready", "1 once the view has caught up")
REQUEST_SECONDS = Histogram(
    "attn_edge_request_seconds", "Time to answer, streams left out", ["route", "status"],
    buckets=(.001, .002, .005, .01, .02, .05, .1, .5, 2))
COMMANDS = Counter("attn_edge_commands_total", "Commands of people, by what became of them", ["status"])
THROTTLED = Counter("attn_edge_writes_throttled_total", "Writes refused because their user writes too often")
SOCKETS = Gauge("attn_edge_sockets", "Open WebSockets")
ARCHIVE_SECONDS = Histogram(
    "attn_edge_archive_seconds", "Time of one query to ClickHouse",
    buckets=(.005, .01, .02, .05, .1, .25, .5, 1, 2, 5, 10))
ARCHIVE_FAILURES = Counter("attn_edge_archive_failures_total", "Queries that ClickHouse did not answer")
ARCHIVE_REFUSED = Counter(
    "attn_edge_archive_refused_total", "Questions to ClickHouse refused: too many of one user, or of all", ["share"])
EVICTED = Counter("attn_edge_connections_evicted_total", "Connections without a known caller closed for newer ones")
READS_REFUSED = Counter("attn_edge_reads_refused_total", "Reads refused because their user has too many in progress")
