-- One row per accepted fact. {database}, {on_cluster} and {replicated} are filled in when it is applied.
CREATE DATABASE IF NOT EXISTS {database} {on_cluster}
COMMENT 'attn: what happened in every workspace';

CREATE TABLE IF NOT EXISTS {database}.activity {on_cluster}
(
    workspace_id    LowCardinality(String) COMMENT 'The workspace (tenant) it happened in',
    occurred_at     DateTime64(6, 'UTC') CODEC(Delta, ZSTD) COMMENT 'When it happened, by its source',
    accepted_at     DateTime64(6, 'UTC') CODEC(Delta, ZSTD) COMMENT 'When attn accepted it: the clock of the log',
    event_id        String CODEC(ZSTD) COMMENT 'Source and id of the event, or the command; once per workspace',
    type            LowCardinality(String) COMMENT 'What happened, such as plan.approved; item.* and the like: in attn itself',
    subject         String CODEC(ZSTD) COMMENT 'Id of the thing at its source: waitpoint token, run, session, plan, case ...',
    item_id         String CODEC(ZSTD) COMMENT 'The inbox item it concerns; empty: none',
    kind            LowCardinality(String) COMMENT 'Kind of that item; empty: none',
    priority        LowCardinality(String) COMMENT 'Priority of that item: low, normal, high, urgent; empty: none',
    title           String CODEC(ZSTD) COMMENT 'Title of that item then; empty: none',
    cluster         LowCardinality(String) COMMENT 'Cluster; empty: none',
    stack           LowCardinality(String) COMMENT 'Stack; empty: none',
    case_id         String CODEC(ZSTD) COMMENT 'Case; empty: none',
    case_state      LowCardinality(String) COMMENT 'State the case came to, of case.state_changed; else empty',
    session_id      String CODEC(ZSTD) COMMENT 'Session; empty: none',
    task_id         String CODEC(ZSTD) COMMENT 'Task; empty: none',
    proof_id        String CODEC(ZSTD) COMMENT 'Proof; empty: none',
    actor           String CODEC(ZSTD) COMMENT 'User who did it; empty: nobody is named',
    resolved_action LowCardinality(String) COMMENT 'How it closed the item, such as approved; empty: it did not',
    seconds_open    Nullable(Float64) CODEC(ZSTD) COMMENT 'How long the item had been open when this closed it; NULL: it did not',
    target_user_id  String CODEC(ZSTD) COMMENT 'User it is addressed to; empty, as target_role: the whole workspace',
    target_role     LowCardinality(String) COMMENT 'Role it is addressed to; empty, as target_user_id: the whole workspace',
    is_stale        Bool COMMENT 'It came later than newer news of the same thing: history that changed nothing',
    log_partition   UInt16 COMMENT 'Where the fact comes from: partition of attn.log',
    position        UInt64 CODEC(Delta, ZSTD) COMMENT 'Where the fact comes from: position in that partition',
    fact_index      UInt32 CODEC(Delta, ZSTD) COMMENT 'Where the fact comes from: index at that position',
    hour            DateTime64(0, 'UTC') ALIAS fromUnixTimestamp64Second(intDiv(toUnixTimestamp64Second(occurred_at), 3600) * 3600, 'UTC') COMMENT 'Start of the hour it happened in, as in activity_hourly',
    INDEX by_place position TYPE minmax GRANULARITY 1,
    INDEX by_acceptance accepted_at TYPE minmax GRANULARITY 1,
    -- How far the writer got in each partition, at once at any size: it asks whenever it starts. Part of the data, so
    -- never behind it.
    PROJECTION stretches
    (
        SELECT
            log_partition, intDiv(position, 8388608) AS stretch,
            min(position), max(position), max((position, fact_index)), max(accepted_at), count()
        GROUP BY log_partition, stretch
    )
)
ENGINE = {replicated}MergeTree
-- By the log's clock, which only goes forward: whatever times sources send, an insert makes one part.
PARTITION BY toYYYYMM(accepted_at)
ORDER BY (workspace_id, occurred_at, event_id)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'One row per accepted fact, each exactly once: what people, agents and automation did, and how long it took';
