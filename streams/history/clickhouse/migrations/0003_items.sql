-- What opened, a case's events in order, and items by hour and cluster.
ALTER TABLE {database}.activity {on_cluster}
ADD COLUMN IF NOT EXISTS opened Bool COMMENT 'It opened its item; facts of before this column say no' AFTER is_stale;

-- One case's events are neighbours here, whatever else happened meanwhile; part of the data, so never behind it.
ALTER TABLE {database}.activity {on_cluster}
ADD PROJECTION IF NOT EXISTS by_case
(
    SELECT
        workspace_id, case_id, occurred_at, event_id, accepted_at, type, subject, item_id, kind, priority, title,
        cluster, stack, case_state, session_id, task_id, proof_id, actor, resolved_action, seconds_open,
        target_user_id, target_role, is_stale, opened
    ORDER BY workspace_id, case_id, occurred_at, event_id
);

ALTER TABLE {database}.activity {on_cluster} MATERIALIZE PROJECTION by_case;

CREATE TABLE IF NOT EXISTS {database}.items_hourly {on_cluster}
(
    workspace_id         LowCardinality(String) COMMENT 'The workspace (tenant)',
    hour                 DateTime64(0, 'UTC') COMMENT 'Start of the hour the facts happened in',
    kind                 LowCardinality(String) COMMENT 'Kind of the items',
    cluster              LowCardinality(String) COMMENT 'Cluster; empty: none',
    target_user_id       String COMMENT 'User they are addressed to; empty, as target_role: the whole workspace',
    target_role          LowCardinality(String) COMMENT 'Role they are addressed to; empty, as target_user_id: the whole workspace',
    facts                SimpleAggregateFunction(sum, UInt64) COMMENT 'Number of facts about these items: sum() it',
    opened               SimpleAggregateFunction(sum, UInt64) COMMENT 'How many of them opened an item: sum() it',
    closed               SimpleAggregateFunction(sum, UInt64) COMMENT 'How many of them closed an item: sum() it',
    open_change          SimpleAggregateFunction(sum, Int64) COMMENT 'How many more items were open afterwards: sum() it over all hours up to one. 0 for kinds that open without a fact (incident, proof_expiring)',
    seconds_open_sum     SimpleAggregateFunction(sum, Float64) COMMENT 'Seconds the closed ones had been open: sum() it',
    seconds_open_state   AggregateFunction(quantilesTDigest(0.5, 0.9, 0.99), Nullable(Float64)) COMMENT 'Median, p90, p99 of the same: quantilesTDigestMerge(0.5, 0.9, 0.99)()'
)
ENGINE = {replicated}AggregatingMergeTree
ORDER BY (workspace_id, hour, kind, cluster, target_role, target_user_id)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'Items opened and closed, and times to resolve, per workspace, hour, kind, cluster and who may see them; items_by_hour reads easier';

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.items_hourly_mv {on_cluster}
TO {database}.items_hourly
AS SELECT
    workspace_id, hour, kind, cluster, target_user_id, target_role,
    count() AS facts,
    sum(activity.opened) AS opened,
    count(seconds_open) AS closed,
    if(kind IN ('incident', 'proof_expiring'), 0, toInt64(opened) - toInt64(closed)) AS open_change,
    sum(ifNull(seconds_open, 0)) AS seconds_open_sum,
    quantilesTDigestState(0.5, 0.9, 0.99)(seconds_open) AS seconds_open_state
FROM {database}.activity AS activity
WHERE item_id != ''
GROUP BY workspace_id, hour, kind, cluster, target_user_id, target_role;

-- What was there before. Run again after a crash, it begins anew.
TRUNCATE TABLE {database}.items_hourly {on_cluster};

INSERT INTO {database}.items_hourly
SELECT
    workspace_id, hour, kind, cluster, target_user_id, target_role,
    count() AS facts,
    sum(activity.opened) AS opened,
    count(seconds_open) AS closed,
    if(kind IN ('incident', 'proof_expiring'), 0, toInt64(opened) - toInt64(closed)) AS open_change,
    sum(ifNull(seconds_open, 0)) AS seconds_open_sum,
    quantilesTDigestState(0.5, 0.9, 0.99)(seconds_open) AS seconds_open_state
FROM {database}.activity AS activity
WHERE item_id != ''
GROUP BY workspace_id, hour, kind, cluster, target_user_id, target_role;

CREATE VIEW IF NOT EXISTS {database}.items_by_hour {on_cluster}
AS SELECT
    workspace_id, hour, kind, cluster, facts, opened, closed, open_change,
    if(closed = 0, NULL, quantiles[1]) AS median_seconds_open,
    if(closed = 0, NULL, quantiles[2]) AS p90_seconds_open,
    if(closed = 0, NULL, quantiles[3]) AS p99_seconds_open
FROM
(
    SELECT
        workspace_id, hour, kind, cluster,
        sum(hourly.facts) AS facts,
        sum(hourly.opened) AS opened,
        sum(hourly.closed) AS closed,
        sum(hourly.open_change) AS open_change,
        quantilesTDigestMerge(0.5, 0.9, 0.99)(seconds_open_state) AS quantiles
    FROM {database}.items_hourly AS hourly
    GROUP BY workspace_id, hour, kind, cluster
)
COMMENT 'items_hourly, merged: one row per workspace, hour, kind and cluster';
