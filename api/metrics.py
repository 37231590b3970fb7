"""Prometheus metrics of the edge. Names begin with `attn_edge_`; units are seconds and bytes."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from streams.runtime.metric_aliases import MetricAlias

STREAMS = Gauge("attn_edge_streams", "Live connections")
STREAM_CAPACITY = Gauge("attn_edge_streams_limit", "Live connections that the limit of open files allows")
STREAMS_DEFERRED = Counter(
    "attn_edge_streams_deferred_total", "Connections that got a retry delay because too many were open or opening")
LONG_POLLS = Gauge("attn_edge_long_polls", "Requests that wait until their answer changes")
CONNECTIONS_REFUSED = Counter("attn_edge_streams_refused_total", "Connections refused at the limit per user")
DISCONNECTED_SLOW = Counter("attn_edge_streams_cut_total", "Connections dropped because the client was too slow")
RESUMED = Counter(
    "attn_edge_resumes_total", "Feeds that named a cursor, by what they received: frames or a snapshot", ["answer"])
FRAMES = Counter("attn_edge_frames_total", "Frames encoded, each for one reader or for all who share a window")
SENT = Counter("attn_edge_sent_bytes_total", "Bytes written to connections, without heartbeats")
WINDOWS = Gauge("attn_edge_windows", "Windows kept up to date, each for one reader or for all who share it")
BATCHES = Counter("attn_edge_batches_total", "Batches of attn.views applied")
PUBLISH_SECONDS = Histogram(
    "attn_edge_publish_seconds", "Time from the records of a poll until all frames are written",
    buckets=(.0005, .001, .002, .005, .01, .02, .05, .1, .25, 1, 5))
DELAY_SECONDS = Histogram(
    "attn_edge_delay_seconds",
    "Seconds from the append time of a batch's newest pack in attn.log until the frames of the batch are written",
    buckets=(.002, .005, .01, .02, .05, .1, .25, .5, 1, 5, 30))
STALE = Counter(
    "attn_edge_stale_batches_total", "Batches of attn.views ignored because their position was not ahead")
BROKER_UP = Gauge("attn_edge_broker_up", "1 while the broker answers, 0 after 10 s without an answer")
MetricAlias("attn_edge_broker_answers", BROKER_UP)
INDEXED = Gauge("attn_edge_indexed_workspaces", "Workspaces with indexes: those with recent requests")
INDEXES_DROPPED = Counter(
    "attn_edge_indexes_dropped_total", "Workspaces whose indexes were dropped after ATTN_INDEX_IDLE_SECONDS")
OPENING = Gauge("attn_edge_streams_opening", "Connections that wait for their first frames")
POSITION = Gauge("attn_edge_position", "Position of the view", ["partition"])
ROWS = Gauge("attn_edge_rows", "Rows of the view in memory")
RESUME_BYTES = Gauge("attn_edge_resume_bytes", "Bytes of changes retained for feeds that resume")
READY = Gauge("attn_edge_ready", "1 once the view has caught up")
REQUEST_SECONDS = Histogram(
    "attn_edge_request_seconds", "Duration of a request, without streams", ["route", "status"],
    buckets=(.001, .002, .005, .01, .02, .05, .1, .5, 2))
COMMANDS = Counter("attn_edge_commands_total", "Commands of users, by outcome", ["status"])
THROTTLED = Counter("attn_edge_writes_throttled_total", "Writes refused because the user exceeded the rate limit")
SOCKETS = Gauge("attn_edge_sockets", "Open WebSockets")
ARCHIVE_SECONDS = Histogram(
    "attn_edge_archive_seconds", "Duration of one query to ClickHouse",
    buckets=(.005, .01, .02, .05, .1, .25, .5, 1, 2, 5, 10))
ARCHIVE_FAILURES = Counter("attn_edge_archive_failures_total", "Queries that failed or timed out in ClickHouse")
ARCHIVE_REFUSED = Counter(
    "attn_edge_archive_refused_total", "Queries refused because too many wait, of one user or of all users", ["share"])
EVICTED = Counter("attn_edge_connections_evicted_total", "Unauthenticated connections closed in favour of newer ones")
INTAKE_EVENTS = Counter("attn_edge_intake_events_total", "Events sent over HTTP, by result", ["result"])
HOOK_DELIVERIES = Counter(
    "attn_edge_hook_deliveries_total", "Webhooks received, by mapping and result", ["mapping", "result"])
INTAKE_BYTES = Gauge("attn_edge_intake_bytes", "Bytes of events sent over HTTP that wait for Kafka")
ARGS_CHECKS = Counter(
    "attn_edge_args_checks_total", "Edited arguments checked by the args_schema of their ask, by result", ["result"])
READS_REFUSED = Counter("attn_edge_reads_refused_total", "Reads refused because the user has too many in progress")
