"""Generates the Grafana dashboard: `python -m ops.deploy.grafana.dashboard` writes dashboards/attn.json. A test checks
that the file is current, and runs all its queries.

For Grafana's own ClickHouse plugin (grafana-clickhouse-datasource), whose macros the queries use:
`$__timeFilter(column)`, `$__timeInterval(column)`, `$__fromTime`, `$__toTime`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["FILE", "dashboard"]

FILE = Path(__file__).parent / "dashboards" / "attn.json"
SOURCE = {"type": "grafana-clickhouse-datasource", "uid": "attn-clickhouse"}
_SERIES, _TABLE = 0, 1  # the plugin's formats
_WIDTH = 24  # columns of Grafana's grid

WORKSPACES = "SELECT DISTINCT workspace_id FROM items_hourly ORDER BY workspace_id"

# Common parts of the queries below, in the order of their substitution.
_SHORT = {
    "$IN_RANGE": "WHERE $HERE AND $__timeFilter(hour)",
    "$CLOSED": "WHERE $HERE AND $__timeFilter(occurred_at) AND seconds_open IS NOT NULL",
    "$DECIDED": "WHERE $HERE AND $__timeFilter(decided_at) AND actor != '' AND state != 'taken_back'",
    "$HERE": "workspace_id = ${workspace:sqlstring}",
}

# Title, kind of panel, unit, width, height, query. Rows fill from the left.
PANELS = [
    ("Open now", "stat", "short", 6, 4,
     "SELECT greatest(sum(open_change), 0) AS open FROM items_hourly WHERE $HERE AND hour <= $__toTime"),
    ("Closed", "stat", "short", 6, 4, "SELECT sum(closed) AS closed FROM items_hourly $IN_RANGE"),
    ("Median time to resolve", "stat", "s", 6, 4,
     "SELECT quantileExact(0.5)(seconds_open) AS median FROM activity $CLOSED"),
    ("Sessions completed, plans approved, actions resolved", "stat", "short", 6, 4,
     "SELECT sumIf(facts, type = 'session.completed') AS sessions, sumIf(facts, type = 'plan.approved') AS plans, "
     "sumIf(facts, type IN ('action.confirmed', 'action.declined')) AS actions "
     "FROM activity_hourly $IN_RANGE"),
    ("Opened and closed", "timeseries", "short", 12, 8,
     "SELECT $__timeInterval(hour) AS time, sum(items_hourly.opened) AS opened, sum(items_hourly.closed) AS closed "
     "FROM items_hourly $IN_RANGE GROUP BY time ORDER BY time"),
    # The graph begins with the items that were open before, and a kind without changes has a line to the end.
    ("Open by kind", "timeseries", "short", 12, 8,
     "SELECT $__timeInterval(at) AS time, kind, sum(sum(change)) OVER (PARTITION BY kind ORDER BY time) AS open FROM ("
     "SELECT greatest(toDateTime(hour), $__fromTime) AS at, kind, open_change AS change FROM items_hourly "
     "WHERE $HERE AND hour <= $__toTime UNION ALL "
     "SELECT DISTINCT $__toTime, kind, 0 FROM items_hourly WHERE $HERE AND hour <= $__toTime"
     ") GROUP BY time, kind ORDER BY time"),
    ("Time to resolve, median and p90", "timeseries", "s", 12, 8,
     "SELECT time, q[1] AS median, q[2] AS p90 FROM (SELECT $__timeInterval(hour) AS time, "
     "quantilesTDigestMerge(0.5, 0.9, 0.99)(seconds_open_state) AS q, sum(items_hourly.closed) AS number "
     "FROM items_hourly $IN_RANGE GROUP BY time) WHERE number > 0 ORDER BY time"),
    ("Closed by how", "timeseries", "short", 12, 8,
     "SELECT $__timeInterval(occurred_at) AS time, resolved_action, count() AS closed "
     "FROM activity $CLOSED GROUP BY time, resolved_action ORDER BY time"),
    ("By kind", "table", "short", 12, 8,
     "SELECT kind, count() AS closed, quantileExact(0.5)(seconds_open) AS median_seconds, "
     "quantileExact(0.9)(seconds_open) AS p90_seconds FROM activity $CLOSED GROUP BY kind ORDER BY closed DESC"),
    ("Busiest clusters", "table", "short", 12, 8,
     "SELECT cluster, sum(items_hourly.opened) AS opened, sum(items_hourly.closed) AS closed FROM items_hourly "
     "$IN_RANGE GROUP BY cluster ORDER BY opened + closed DESC, cluster LIMIT 20"),
    ("Who resolves", "table", "short", 12, 8,
     "SELECT actor, count() AS closed, quantileExact(0.5)(seconds_open) AS median_seconds "
     "FROM activity $CLOSED AND actor != '' GROUP BY actor ORDER BY closed DESC, actor LIMIT 20"),
    ("Targets missed, by priority", "table", "percentunit", 6, 8,
     "SELECT priority, round(countIf(seconds_open > transform(priority, ['urgent', 'high', 'normal', 'low'], "
     "[900, 3600, 28800, 259200], 28800)) / count(), 3) AS missed FROM activity $CLOSED "
     "GROUP BY priority ORDER BY priority"),
    ("Drafts an AI had edited", "piechart", "short", 6, 8,
     "SELECT resolved_action, count() AS drafts FROM activity $CLOSED AND kind = 'draft_review' "
     "GROUP BY resolved_action ORDER BY drafts DESC"),
    ("Load by hour of the day", "barchart", "short", 12, 8,
     "SELECT toString(toHour(hour)) AS hour_of_day, sum(items_hourly.opened) AS opened "
     "FROM items_hourly $IN_RANGE GROUP BY toHour(hour) ORDER BY toHour(hour)"),
    ("Lately", "table", "short", 12, 8,
     "SELECT occurred_at, type, title, cluster, actor, resolved_action FROM activity "
     "WHERE $HERE AND $__timeFilter(occurred_at) AND target_user_id = '' AND target_role = '' "
     "ORDER BY occurred_at DESC LIMIT 100"),
    ("Decisions", "stat", "short", 6, 4,
     "SELECT countIf(actor != '' AND state != 'taken_back') AS made, countIf(state = 'expired') AS expired, "
     "countIf(refused_at IS NOT NULL) AS refused, countIf(unconfirmed_at IS NOT NULL) AS unconfirmed "
     "FROM decisions WHERE $HERE AND $__timeFilter(decided_at)"),
    ("Median time to decide", "stat", "s", 6, 4,
     "SELECT quantileExact(0.5)(seconds_to_decide) AS median FROM decisions $DECIDED"),
    ("Median time from decision to effect", "stat", "s", 6, 4,
     "SELECT quantileExact(0.5)(seconds_to_apply) AS median FROM decisions $DECIDED"),
    ("Decided unseen or within 3 s", "stat", "percentunit", 6, 4,
     "SELECT round(countIf(viewed IS NULL OR viewed < 3) / count(), 3) AS rubber_stamps FROM decisions $DECIDED"),
    ("Time to decide and to apply, median", "timeseries", "s", 12, 8,
     "SELECT $__timeInterval(decided_at) AS time, quantileExact(0.5)(seconds_to_decide) AS to_decide, "
     "quantileExactOrNull(0.5)(seconds_to_apply) AS to_apply FROM decisions $DECIDED GROUP BY time ORDER BY time"),
    ("Who decides", "table", "short", 12, 8,
     "SELECT actor, count() AS decided, quantileExact(0.5)(seconds_to_decide) AS median_seconds, "
     "round(countIf(viewed IS NULL OR viewed < 3) / decided, 3) AS rubber_stamps "
     "FROM decisions $DECIDED GROUP BY actor ORDER BY decided DESC, actor LIMIT 20"),
    ("Refused and undeliverable, by reason", "table", "short", 12, 8,
     "SELECT substring(type, 10) AS state, kind, reason, count() AS times FROM activity "
     "WHERE $HERE AND $__timeFilter(occurred_at) AND type IN ('decision.refused', 'decision.undeliverable') "
     "AND NOT is_stale GROUP BY state, kind, reason ORDER BY times DESC, state, kind, reason LIMIT 20"),
    ("Results of questions", "table", "short", 12, 8,
     "SELECT kind, countIf(state = 'applied') AS applied, countIf(state = 'expired') AS expired, "
     "countIf(state = 'taken_back') AS taken_back, countIf(refused_at IS NOT NULL) AS refused, "
     "countIf(unconfirmed_at IS NOT NULL) AS unconfirmed FROM decisions "
     "WHERE $HERE AND $__timeFilter(decided_at) GROUP BY kind ORDER BY kind"),
]


def dashboard() -> dict[str, Any]:
    """Returns the dashboard as Grafana imports it."""
    panels, x, y = [], 0, 0
    for number, (title, kind, unit, width, height, sql) in enumerate(PANELS, start=1):
        if x + width > _WIDTH:
            x, y = 0, y + height
        panels.append(_panel(number, title, kind, unit, {"x": x, "y": y, "w": width, "h": height}, sql))
        x += width
        if x >= _WIDTH:
            x, y = 0, y + height
    return {
        "uid": "attn-history", "title": "attn: what happened", "tags": ["attn"], "editable": True, "schemaVersion": 39,
        "version": 1, "timezone": "utc", "refresh": "5m", "time": {"from": "now-7d", "to": "now"},
        "annotations": {"list": []}, "panels": panels,
        "templating": {"list": [{
            "name": "workspace", "label": "Workspace", "type": "query", "datasource": SOURCE, "query": WORKSPACES,
            "definition": WORKSPACES, "refresh": 1, "sort": 1, "multi": False, "includeAll": False,
        }]},
    }


def _panel(number: int, title: str, kind: str, unit: str, position: dict[str, int], sql: str) -> dict[str, Any]:
    series = kind == "timeseries"
    for name, text in _SHORT.items():
        sql = sql.replace(name, text)
    return {
        "id": number, "title": title, "type": kind, "datasource": SOURCE, "gridPos": position,
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []}, "options": {},
        "targets": [{
            "refId": "A", "datasource": SOURCE, "editorType": "sql", "rawSql": sql,
            "queryType": "timeseries" if series else "table", "format": _SERIES if series else _TABLE,
        }],
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(dashboard(), indent=2) + "\n")
