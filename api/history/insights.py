"""How much opens and closes, where, how fast, and who does it: from ClickHouse, which keeps the sums by hour.

`ask` fetches, `made` is pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from api.history.client import HistoryClient, Row
from api.readmodel.readers import Reader
from schemas.scalars import DAY, HOUR, SECOND, from_us

__all__ = ["MAX_CLUSTERS", "MAX_PEOPLE", "Found", "Span", "ask", "made", "span_of"]

MAX_CLUSTERS, MAX_PEOPLE = 12, 20
_BY_DAY = 3 * DAY  # in longer windows a step is a day: 72 steps are as many as a chart has room for

_WITHIN = """
workspace_id = {ws:String} AND $SEES
AND hour >= fromUnixTimestamp64Second({since:Int64}, 'UTC') AND hour < fromUnixTimestamp64Second({until:Int64}, 'UTC')
"""
_SUMS = "sum(hourly.opened), sum(hourly.closed), sum(hourly.open_change)"
# By kind or cluster and step; by it alone; and all in all.
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
# How many were open when the window began.
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
class Span:
    """Whole steps; all in microseconds."""

    since: int
    until: int
    step: int

    @property
    def steps(self) -> int:
        return (self.until - self.since) // self.step

    def seconds(self) -> dict[str, int]:
        return {"since": self.since // SECOND, "until": self.until // SECOND, "step": self.step // SECOND}


def span_of(window: int, clock: int) -> Span:
    """The steps that end with the one `clock` is in."""
    step = HOUR if window <= _BY_DAY else DAY
    until = clock // step * step + step
    return Span(until - max(window // step, 1) * step, until, step)


class Found(NamedTuple):
    """Rows: (level, name, step, opened, closed, change, quantiles); (name, open); (actor, closed, median, by kind)."""

    kinds: Sequence[Row]
    clusters: Sequence[Row]
    kinds_before: Sequence[Row]
    clusters_before: Sequence[Row]
    people: Sequence[Row]


async def ask(archive: HistoryClient, reader: Reader, span: Span) -> Found:
    """What the reader may see of the workspace. Problem 503."""
    within = span.seconds()
    kinds, kinds_before, clusters, people = await archive.ask_all(
        reader, (_KINDS, within), (_KINDS_BEFORE, within), (_CLUSTERS, within | {"most": MAX_CLUSTERS}),
        (_PEOPLE, within | {"most": MAX_PEOPLE}))
    names = sorted({row[1] for row in clusters if row[0] == 1})
    before = await archive.ask(_CLUSTERS_BEFORE, reader, **within, clusters=names)
    return Found(kinds, clusters, kinds_before, before, people)


def made(found: Found, span: Span) -> dict[str, Any]:
    """The answer, but for the window's name."""
    kinds = _flows("kind", found.kinds, dict(found.kinds_before), span)
    clusters = _flows("cluster", found.clusters, dict(found.clusters_before), span)
    total = next((_times(row) for row in found.kinds if row[0] == 2 and row[3] + row[4]), {})
    return {
        "since": from_us(span.since), "until": from_us(span.until), "step_seconds": span.step // SECOND,
        "times": [from_us(span.since + step * span.step) for step in range(span.steps)],
        "total": {name: sum(flow[name] for flow in kinds) for name in ("opened", "closed", "open")} | total,
        "kinds": kinds, "clusters": clusters, "people": [_person(row) for row in found.people],
    }


def _flows(by: str, rows: Iterable[Row], before: dict[str, int], span: Span) -> list[dict[str, Any]]:
    """One for each name, the busiest first; a name whose items only wait is busy too, if anything of it is open."""
    steps: dict[str, dict[int, tuple[int, int, int]]] = {name: {} for name, open_ in before.items() if open_ > 0}
    whole: dict[str, dict[str, Any]] = {}
    for row in rows:
        level, name, step, opened, closed, change, _ = row
        if level == 0:
            steps.setdefault(name, {})[step] = (opened, closed, change)
        elif level == 1:
            whole[name] = {"opened": opened, "closed": closed, **_times(row)}
    found = []
    for name, mine in steps.items():
        series = _series(mine, before.get(name, 0), span.steps)
        flow = whole.get(name, {"opened": 0, "closed": 0})
        found.append({by: name, **flow, "open": series["open"][-1], "series": series})
    return sorted(found, key=lambda flow: (-flow["opened"] - flow["closed"], -flow["open"], flow[by]))


def _series(mine: dict[int, tuple[int, int, int]], running: int, steps: int) -> dict[str, list[int]]:
    """`running`: how many were open before. An item that was addressed to others while it was open may be missing
    on one side, so it is never less than none."""
    opened, closed, open_ = [], [], []
    for step in range(steps):
        more, less, change = mine.get(step, (0, 0, 0))
        running += change
        opened.append(more)
        closed.append(less)
        open_.append(max(running, 0))
    return {"opened": opened, "closed": closed, "open": open_}


def _times(row: Row) -> dict[str, float]:
    closed, quantiles = row[4], row[6]
    return {"median_seconds": float(quantiles[0]), "p90_seconds": float(quantiles[1])} if closed else {}


def _person(row: Row) -> dict[str, Any]:
    actor, closed, median, (kinds, counts) = row
    return {"user_id": actor, "closed": closed, "median_seconds": float(median),
            "by_kind": dict(sorted(zip(kinds, counts, strict=True)))}
