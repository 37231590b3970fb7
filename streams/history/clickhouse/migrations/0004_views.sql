-- The views say what their columns are, as tables do; so do those that keep the sums.
CREATE OR REPLACE VIEW {database}.activity_by_hour {on_cluster}
(
    workspace_id        LowCardinality(String) COMMENT 'The workspace (tenant)',
    hour                DateTime64(0, 'UTC') COMMENT 'Start of the hour the facts happened in',
    type                LowCardinality(String) COMMENT 'What happened, such as plan.approved',
    kind                LowCardinality(String) COMMENT 'Kind of the item; empty: none',
    facts               UInt64 COMMENT 'Number of facts: sum() it across rows',
    closed              UInt64 COMMENT 'How many of them closed an item: sum() it across rows',
    median_seconds_open Nullable(Float64) COMMENT 'Median of the seconds those items had been open; NULL: none closed. Does not add up across rows',
    p90_seconds_open    Nullable(Float64) COMMENT 'Nine of ten had been open no longer; NULL: none closed. Does not add up across rows',
    p99_seconds_open    Nullable(Float64) COMMENT '99 of 100 had been open no longer; NULL: none closed. Does not add up across rows',
    people              UInt64 COMMENT 'Different users named as actors. Does not add up across rows'
)
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

CREATE OR REPLACE VIEW {database}.items_by_hour {on_cluster}
(
    workspace_id        LowCardinality(String) COMMENT 'The workspace (tenant)',
    hour                DateTime64(0, 'UTC') COMMENT 'Start of the hour the facts happened in',
    kind                LowCardinality(String) COMMENT 'Kind of the items',
    cluster             LowCardinality(String) COMMENT 'Cluster; empty: none',
    facts               UInt64 COMMENT 'Number of facts about these items: sum() it across rows',
    opened              UInt64 COMMENT 'How many of them opened an item: sum() it across rows',
    closed              UInt64 COMMENT 'How many of them closed an item: sum() it across rows',
    open_change         Int64 COMMENT 'How many more items were open afterwards: sum() it over all hours up to one. 0 for kinds that open without a fact (incident, proof_expiring)',
    median_seconds_open Nullable(Float64) COMMENT 'Median of the seconds the closed ones had been open; NULL: none closed. Does not add up across rows',
    p90_seconds_open    Nullable(Float64) COMMENT 'Nine of ten had been open no longer; NULL: none closed. Does not add up across rows',
    p99_seconds_open    Nullable(Float64) COMMENT '99 of 100 had been open no longer; NULL: none closed. Does not add up across rows'
)
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

ALTER TABLE {database}.activity_hourly_mv {on_cluster} MODIFY COMMENT 'Adds what is inserted into activity to activity_hourly; nothing to query';

ALTER TABLE {database}.items_hourly_mv {on_cluster} MODIFY COMMENT 'Adds what is inserted into activity to items_hourly; nothing to query'
