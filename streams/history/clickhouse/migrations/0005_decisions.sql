-- Facts of decisions (CONTRACT §7), and one row per decision. Facts of an older attn have none of these values.
ALTER TABLE {database}.activity {on_cluster}
ADD COLUMN IF NOT EXISTS decision_id String CODEC(ZSTD) COMMENT 'Decision that the fact is about; empty: none' AFTER seconds_open,
ADD COLUMN IF NOT EXISTS option String CODEC(ZSTD) COMMENT 'Id of the chosen option; empty: none' AFTER decision_id,
ADD COLUMN IF NOT EXISTS does LowCardinality(String) COMMENT 'What the option does: approve, reject, edit, respond, ignore, retry, acknowledge, choose; empty: no option' AFTER option,
ADD COLUMN IF NOT EXISTS reason String CODEC(ZSTD) COMMENT 'Why the source refused the decision, or why it was not delivered; empty: neither' AFTER does,
ADD COLUMN IF NOT EXISTS role LowCardinality(String) COMMENT 'Role in which the actor voted or decided; empty: nobody did' AFTER reason,
ADD COLUMN IF NOT EXISTS viewed Nullable(Float64) CODEC(ZSTD) COMMENT 'Seconds for which the page of the actor had shown the item in full before the vote; NULL: it had not' AFTER role,
ADD COLUMN IF NOT EXISTS seconds_to_decide Nullable(Float64) CODEC(ZSTD) COMMENT 'Seconds from the opening of the item to the decision, of decision.made; else NULL' AFTER viewed,
ADD COLUMN IF NOT EXISTS seconds_to_apply Nullable(Float64) CODEC(ZSTD) COMMENT 'Seconds from the decision to its effect, of decision.applied; else NULL' AFTER seconds_to_decide;

-- Most granules have no decision: the index skips those.
ALTER TABLE {database}.activity {on_cluster}
ADD INDEX IF NOT EXISTS by_decision decision_id TYPE minmax GRANULARITY 1;

-- A view and no table: a decision has a row exactly if its facts have, whatever was restarted or rebuilt.
CREATE OR REPLACE VIEW {database}.decisions {on_cluster}
(
    workspace_id      LowCardinality(String) COMMENT 'The workspace (tenant)',
    decision_id       String COMMENT 'The decision: one row each',
    item_id           String COMMENT 'The inbox item that asked',
    kind              LowCardinality(String) COMMENT 'Kind of that item',
    priority          LowCardinality(String) COMMENT 'Priority of that item when it was decided',
    title             String COMMENT 'Title of that item when it was decided',
    cluster           LowCardinality(String) COMMENT 'Cluster; empty: none',
    stack             LowCardinality(String) COMMENT 'Stack; empty: none',
    case_id           String COMMENT 'Case; empty: none',
    option            String COMMENT 'Id of the chosen option; empty: the question expired without one',
    does              LowCardinality(String) COMMENT 'What the option does: approve, reject, edit, respond, ignore, retry, acknowledge, choose; empty: no option',
    actor             String COMMENT 'User whose vote made the decision; empty: the question expired',
    role              LowCardinality(String) COMMENT 'Role of that user',
    state             LowCardinality(String) COMMENT 'Newest fact: made, delivered, applied, refused, undeliverable, unconfirmed, sending (once more), taken_back, expired',
    reason            String COMMENT 'Why it was refused or not delivered the last time; empty: it never was',
    decided_at        DateTime64(6, 'UTC') COMMENT 'When it was decided, or when the question expired',
    sent_again_at     Nullable(DateTime64(6, 'UTC')) COMMENT 'When it was sent once more after it had come back; NULL: never',
    delivered_at      Nullable(DateTime64(6, 'UTC')) COMMENT 'When attn deliver had delivered it; NULL: not yet, or its source reads the topic',
    applied_at        Nullable(DateTime64(6, 'UTC')) COMMENT 'When it took effect at its source; NULL: not yet',
    refused_at        Nullable(DateTime64(6, 'UTC')) COMMENT 'When its source refused it; NULL: never',
    undeliverable_at  Nullable(DateTime64(6, 'UTC')) COMMENT 'When attn deliver gave up; NULL: never',
    unconfirmed_at    Nullable(DateTime64(6, 'UTC')) COMMENT 'When it came back because its source had not confirmed it; NULL: never',
    taken_back_at     Nullable(DateTime64(6, 'UTC')) COMMENT 'When a person took it back; NULL: never',
    viewed            Nullable(Float64) COMMENT 'Seconds for which the page of the actor had shown the item in full; NULL: it had not',
    seconds_to_decide Nullable(Float64) COMMENT 'Seconds from the opening of the item to the decision; NULL: the question expired',
    seconds_to_apply  Nullable(Float64) COMMENT 'Seconds from the decision to its effect; NULL: no effect yet',
    target_user_id    String COMMENT 'User the item is addressed to; empty, as target_role: the whole workspace',
    target_role       LowCardinality(String) COMMENT 'Role the item is addressed to; empty, as target_user_id: the whole workspace'
)
AS SELECT
    workspace_id, decision_id,
    argMax(fact.item_id, place) AS item_id,
    argMax(fact.kind, place) AS kind,
    argMin(fact.priority, place) AS priority,
    argMin(fact.title, place) AS title,
    argMin(fact.cluster, place) AS cluster,
    argMin(fact.stack, place) AS stack,
    argMin(fact.case_id, place) AS case_id,
    argMin(fact.option, place) AS option,
    argMin(fact.does, place) AS does,
    argMin(if(fact.type = 'decision.made', fact.actor, ''), place) AS actor,
    argMin(if(fact.type = 'decision.made', fact.role, ''), place) AS role,
    substring(argMax(fact.type, place), 10) AS state,
    argMaxIf(fact.reason, place, fact.reason != '') AS reason,
    argMin(fact.occurred_at, place) AS decided_at,
    maxOrNullIf(fact.occurred_at, fact.type = 'decision.sending') AS sent_again_at,
    minOrNullIf(fact.occurred_at, fact.type = 'decision.delivered') AS delivered_at,
    minOrNullIf(fact.occurred_at, fact.type = 'decision.applied') AS applied_at,
    maxOrNullIf(fact.occurred_at, fact.type = 'decision.refused') AS refused_at,
    maxOrNullIf(fact.occurred_at, fact.type = 'decision.undeliverable') AS undeliverable_at,
    maxOrNullIf(fact.occurred_at, fact.type = 'decision.unconfirmed') AS unconfirmed_at,
    maxOrNullIf(fact.occurred_at, fact.type = 'decision.taken_back') AS taken_back_at,
    argMin(tuple(fact.viewed), place).1 AS viewed,
    argMin(tuple(fact.seconds_to_decide), place).1 AS seconds_to_decide,
    maxOrNull(fact.seconds_to_apply) AS seconds_to_apply,
    argMax(fact.target_user_id, place) AS target_user_id,
    argMax(fact.target_role, place) AS target_role
FROM
(
    SELECT *, (position, fact_index) AS place
    FROM {database}.activity
    -- A stale fact is a report of a decision that does not exist, or by another source than the one that asked.
    WHERE decision_id != '' AND startsWith(type, 'decision.') AND NOT is_stale
) AS fact
GROUP BY workspace_id, decision_id
COMMENT 'One row per decision: what was decided, by whom, how long it took, and what became of it';
