"""Insights of a workspace: how many items opened and closed by kind, cluster and time, how long they were open, and
who closed them. ClickHouse keeps these sums by hour (table `items_hourly`). `decision_insights` adds the decisions.

`fetch_insights` queries, `render_insights` is pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from api.history.client import HistoryClient, Row
from api.history.decision_insights import DecisionRows, decision_queries, render_decisions
from api.readmodel.readers import Reader
from schemas.scalars import DAY, HOUR, SECOND, format_timestamp

__all__ = ["MAX_CLUSTERS", "MAX_PEOPLE", "InsightRows", "Steps", "fetch_insights", "render_insights", "steps_of"]

MAX_CLUSTERS, MAX_PEOPLE = 12, 20
_MAX_HOURLY_WINDOW = 3 * DAY  # longer windows have steps of a day: a chart has room for 72 steps

_WITHIN = """
workspace_id = {ws:String} AND $SEES
AND hour >= fromUnixTimestamp64Second({since:Int64}, 'UTC') AND hour < fromUnixTimestamp64Second({until:Int64}, 'UTC')
"""
_SUMS = "sum(hourly.opened), sum(hourly.closed), sum(hourly.open_change)"
# Level 0: by name (kind or cluster) and step; level 1: by name; level 2: total.
_FLOW = """
SELECT
    grouping($by) + grouping(step) AS level, $by AS name,
    intDiv(toUnixTimestamp64Second(hour) - {since:Int64}, {step:Int64}) AS step,
    $sums, quantilesTDigestMerge(0.5, 0.9, 0.99)(seconds_open_state) AS seconds
FROM items_hourly AS hourly WHERE $within
GROUP BY GROUPING SETS (($by, step), ($by), ())
""".replace("$sums", _SUMS).replace("$within", _WITHIN)
_KINDS = _FLOW.replace("$by", "kind")
_CLUSTERS = _FLOW.replace("$by", "cluster").replace("GROUP BY GROUPING", """AND cluster IN (
    SELECT cluster FROM items_hourly AS hourly WHERE $within
    GROUP BY cluster ORDER BY sum(hourly.opened) + sum(hourly.closed) DESC, cluster LIMIT {most:UInt32}
)
GROUP BY GROUPING""".replace("$within", _WITHIN))
# How many items were open when the window began.
_KINDS_BEFORE = """
SELECT kind, sum(hourly.open_change) FROM items_hourly AS hourly
WHERE workspace_id = {ws:String} AND $SEES AND hour < fromUnixTimestamp64Second({since:Int64}, 'UTC')
GROUP BY kind
"""
_CLUSTERS_BEFORE = _KINDS_BEFORE.replace("kind", "cluster").replace(
    "GROUP BY", "AND cluster IN {clusters:Array(String)} GROUP BY")
_PEOPLE = """
SELECT actor, count() AS closed, quantileTDigest(0.5)(seconds_open), sumMap([kind], [1])
FROM activity
WHERE workspace_id = {ws:String} AND $SEES AND seconds_open IS NOT NULL AND actor != ''
  AND occurred_at >= fromUnixTimestamp64Second({since:Int64}, 'UTC')
  AND occurred_at < fromUnixTimestamp64Second({until:Int64}, 'UTC')
GROUP BY actor ORDER BY closed DESC, actor LIMIT {most:UInt32}
"""


@dataclass(frozen=True, slots=True)
class Steps:
    """A time range divided into equal steps. All fields are microseconds."""

    since: int
    until: int
    step: int

    @property
    def count(self) -> int:
        return (self.until - self.since) // self.step

    def parameters(self) -> dict[str, int]:
        """Returns the query parameters `since`, `until` and `step`, in seconds."""
        return {"since": self.since // SECOND, "until": self.until // SECOND, "step": self.step // SECOND}


def steps_of(window: int, clock: int) -> Steps:
    """Returns the steps of a window, hours or days. The last step contains `clock`. Both are microseconds."""
    step = HOUR if window <= _MAX_HOURLY_WINDOW else DAY
    until = clock // step * step + step
    return Steps(until - max(window // step, 1) * step, until, step)


class InsightRows(NamedTuple):
    """Result rows of the eight queries.

    `kinds`, `clusters`: (level, name, step, opened, closed, change, quantiles). `kinds_before`, `clusters_before`:
    (name, open). `people`: (actor, closed, median, ([kind], [count])).
    """

    kinds: Sequence[Row]
    clusters: Sequence[Row]
    kinds_before: Sequence[Row]
    clusters_before: Sequence[Row]
    people: Sequence[Row]
    decisions: DecisionRows


async def fetch_insights(client: HistoryClient, reader: Reader, steps: Steps) -> InsightRows:
    """Returns the rows that the reader may see. Raises what HistoryClient.query raises."""
    within = steps.parameters()
    kinds, kinds_before, clusters, people, *decisions = await client.query_all(
        reader, (_KINDS, within), (_KINDS_BEFORE, within), (_CLUSTERS, within | {"most": MAX_CLUSTERS}),
        (_PEOPLE, within | {"most": MAX_PEOPLE}), *decision_queries(within))
    names = sorted({row[1] for row in clusters if row[0] == 1})
    clusters_before = await client.query(_CLUSTERS_BEFORE, reader, **within, clusters=names)
    return InsightRows(kinds, clusters, kinds_before, clusters_before, people, DecisionRows(*decisions))


def render_insights(rows: InsightRows, steps: Steps) -> dict[str, Any]:
    """Returns the response body without the name of the window."""
    kinds = _flows("kind", rows.kinds, dict(rows.kinds_before), steps)
    clusters = _flows("cluster", rows.clusters, dict(rows.clusters_before), steps)
    total = next((_quantiles(row) for row in rows.kinds if row[0] == 2 and row[3] + row[4]), {})
    return {
        "since": format_timestamp(steps.since), "until": format_timestamp(steps.until),
        "step_seconds": steps.step // SECOND,
        "times": [format_timestamp(steps.since + step * steps.step) for step in range(steps.count)],
        "total": {name: sum(flow[name] for flow in kinds) for name in ("opened", "closed", "open")} | total,
        "kinds": kinds, "clusters": clusters, "people": [_person(row) for row in rows.people],
        "decisions": render_decisions(rows.decisions),
    }


def _flows(by: str, rows: Iterable[Row], before: dict[str, int], steps: Steps) -> list[dict[str, Any]]:
    """Returns the counts of each name, the busiest name first. A name without events in the window is listed if it has
    open items."""
    changes: dict[str, dict[int, tuple[int, int, int]]] = {name: {} for name, open_ in before.items() if open_ > 0}
    totals: dict[str, dict[str, Any]] = {}
    for row in rows:
        level, name, step, opened, closed, change, _ = row
        if level == 0:
            changes.setdefault(name, {})[step] = (opened, closed, change)
        elif level == 1:
            totals[name] = {"opened": opened, "closed": closed, **_quantiles(row)}
    flows = []
    for name, by_step in changes.items():
        series = _series(by_step, before.get(name, 0), steps.count)
        total = totals.get(name, {"opened": 0, "closed": 0})
        flows.append({by: name, **total, "open": series["open"][-1], "series": series})
    return sorted(flows, key=lambda flow: (-flow["opened"] - flow["closed"], -flow["open"], flow[by]))


def _series(changes: dict[int, tuple[int, int, int]], open_before: int, steps: int) -> dict[str, list[int]]:
    """Returns the counts of each step. The count of open items is at least 0: the reader may see only the closing of
    an item that was addressed to others when it opened."""
    opened, closed, open_ = [], [], []
    for step in range(steps):
        step_opened, step_closed, change = changes.get(step, (0, 0, 0))
        open_before += change
        opened.append(step_opened)
        closed.append(step_closed)
        open_.append(max(open_before, 0))
    return {"opened": opened, "closed": closed, "open": open_}


def _quantiles(row: Row) -> dict[str, float]:
    closed, quantiles = row[4], row[6]
    return {"median_seconds": float(quantiles[0]), "p90_seconds": float(quantiles[1])} if closed else {}


def _person(row: Row) -> dict[str, Any]:
    actor, closed, median, (kinds, counts) = row
    return {"user_id": actor, "closed": closed, "median_seconds": float(median),
            "by_kind": dict(sorted(zip(kinds, counts, strict=True)))}
