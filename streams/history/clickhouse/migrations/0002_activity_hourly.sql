-- The same by hour. Not partitioned, so that the part of an insert is whole or absent. The writer compares it with
-- `activity` whenever it starts, and makes hours again that a crash left behind (streams/history/store.py).
CREATE TABLE IF NOT EXISTS {database}.activity_hourly {on_cluster}
(
    workspace_id         LowCardinality(String) COMMENT 'The workspace (tenant)',
    hour                 DateTime64(0, 'UTC') COMMENT 'Start of the hour the facts happened in',
    type                 LowCardinality(String) COMMENT 'What happened, such as plan.approved',
    kind                 LowCardinality(String) COMMENT 'Kind of the item; empty: none',
    facts                SimpleAggregateFunction(sum, UInt64) COMMENT 'Number of facts: sum() it',
    closed               SimpleAggregateFunction(sum, UInt64) COMMENT 'How many of them closed an item: sum() it',
    seconds_open_sum     SimpleAggregateFunction(sum, Float64) COMMENT 'Seconds those items had been open: sum() it',
    seconds_open_state   AggregateFunction(quantilesTDigest(0.5, 0.9, 0.99), Nullable(Float64)) COMMENT 'Median, p90, p99 of the same: quantilesTDigestMerge(0.5, 0.9, 0.99)()',
    people_state         AggregateFunction(uniq, Nullable(String)) COMMENT 'Different users named as actors: uniqMerge()'
)
ENGINE = {replicated}AggregatingMergeTree
ORDER BY (workspace_id, hour, type, kind)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'Counts and times to resolve per workspace, hour, type and kind; activity_by_hour reads easier';

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.activity_hourly_mv {on_cluster}
TO {database}.activity_hourly
AS SELECT
    workspace_id, hour, type, kind,
    count() AS facts,
    count(seconds_open) AS closed,
    sum(ifNull(seconds_open, 0)) AS seconds_open_sum,
    quantilesTDigestState(0.5, 0.9, 0.99)(seconds_open) AS seconds_open_state,
    uniqState(nullIf(actor, '')) AS people_state
FROM {database}.activity
GROUP BY workspace_id, hour, type, kind;

CREATE VIEW IF NOT EXISTS {database}.activity_by_hour {on_cluster}
AS SELECT
    workspace_id, hour, type, kind, facts, closed,
    if(closed = 0, NULL, quantiles[1]) AS median_seconds_open,
    if(closed = 0, NULL, quantiles[2]) AS p90_seconds_open,
    if(closed = 0, NULL, quantiles[3]) AS p99_seconds_open,
    people
FROM
(
    SELECT
        workspace_id, hour, type, kind,
        sum(hourly.facts) AS facts,
        sum(hourly.closed) AS closed,
        quantilesTDigestMerge(0.5, 0.9, 0.99)(seconds_open_state) AS quantiles,
        uniqMerge(people_state) AS people
    FROM {database}.activity_hourly AS hourly
    GROUP BY workspace_id, hour, type, kind
)
COMMENT 'activity_hourly, merged: one row per workspace, hour, type and kind';
