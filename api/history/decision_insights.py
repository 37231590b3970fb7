"""Insights of decisions: how long they took, what became of them, who made them, and how many nobody had read.

The facts of decisions in `activity` are counted, each within the window by its own time. `QUERIES` are sent with the
parameters of `Steps`; `render_decisions` is pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from api.history.client import Row

__all__ = ["MAX_DECIDERS", "MAX_REASONS", "QUICK_SECONDS", "DecisionRows", "decision_queries", "render_decisions"]

MAX_DECIDERS, MAX_REASONS = 20, 10
QUICK_SECONDS = 3  # a decision within this time of opening the item was not read

_WITHIN = """
workspace_id = {ws:String} AND $SEES AND NOT is_stale
AND occurred_at >= fromUnixTimestamp64Second({since:Int64}, 'UTC')
AND occurred_at < fromUnixTimestamp64Second({until:Int64}, 'UTC')
"""
# `unseen`, `quick`: decisions of people whose page had not shown the item in full, or not for QUICK_SECONDS.
_MADE = """
countIf(type = 'decision.made' AND actor != '') AS made,
countIf(type = 'decision.made' AND actor != '' AND viewed IS NULL) AS unseen,
countIf(type = 'decision.made' AND actor != '' AND viewed < $quick) AS quick
""".replace("$quick", str(QUICK_SECONDS))
# Level 0: by kind; level 1: all. A question that expired to an option has `decision.made` without an actor.
_COUNTS = """
SELECT
    grouping(kind) AS level, kind, $made,
    countIf(type = 'decision.expired' OR (type = 'decision.made' AND actor = '')) AS expired,
    countIf(type = 'decision.taken_back'), countIf(type = 'decision.applied'), countIf(type = 'decision.refused'),
    countIf(type = 'decision.undeliverable'), countIf(type = 'decision.unconfirmed'),
    countIf(type = 'decision.made' AND actor != '' AND seconds_to_decide IS NOT NULL) AS decided_times,
    quantilesTDigestIf(0.5, 0.9)(seconds_to_decide, type = 'decision.made' AND actor != ''),
    count(seconds_to_apply) AS applied_times, quantilesTDigest(0.5, 0.9)(seconds_to_apply)
FROM activity
WHERE $within AND startsWith(type, 'decision.')
GROUP BY GROUPING SETS ((kind), ())
""".replace("$made", _MADE).replace("$within", _WITHIN)
_PEOPLE = """
SELECT
    actor, $made, countIf(type = 'vote.cast') AS votes,
    quantileTDigestIf(0.5)(seconds_to_decide, type = 'decision.made'),
    countIf(seconds_to_decide IS NOT NULL) AS decided_times, sumMapIf([kind], [1], type = 'decision.made')
FROM activity
WHERE $within AND type IN ('decision.made', 'vote.cast') AND actor != ''
GROUP BY actor ORDER BY made DESC, votes DESC, actor LIMIT {most:UInt32}
""".replace("$made", _MADE).replace("$within", _WITHIN)
_REASONS = """
SELECT type, reason, count() AS number FROM activity
WHERE $within AND type IN ('decision.refused', 'decision.undeliverable')
GROUP BY type, reason ORDER BY number DESC, type, reason LIMIT {most:UInt32}
""".replace("$within", _WITHIN)

_STATES = ("made", "unseen", "quick", "expired", "taken_back", "applied", "refused", "undeliverable", "unconfirmed")


class DecisionRows(NamedTuple):
    """Result rows of the three queries."""

    counts: Sequence[Row]
    people: Sequence[Row]
    reasons: Sequence[Row]


def decision_queries(within: dict[str, int]) -> tuple[tuple[str, dict[str, Any]], ...]:
    """Returns the queries (SQL, parameters) of `DecisionRows`, in its order. `within`: `Steps.parameters()`."""
    return (
        (_COUNTS, within), (_PEOPLE, within | {"most": MAX_DECIDERS}), (_REASONS, within | {"most": MAX_REASONS}))


def render_decisions(rows: DecisionRows) -> dict[str, Any]:
    """Returns the section `decisions` of the response body."""
    total = next((row for row in rows.counts if row[0] == 1), None)
    kinds = [{"kind": row[1], **_counts(row)} for row in rows.counts if row[0] == 0]
    return {
        **(_counts(total) if total is not None else dict.fromkeys(_STATES, 0)),
        "kinds": sorted(kinds, key=lambda kind: (-kind["made"], -kind["expired"], kind["kind"])),
        "people": [_person(row) for row in rows.people],
        "reasons": [{"state": name.removeprefix("decision."), "reason": reason, "count": count}
                    for name, reason, count in rows.reasons],
    }


def _counts(row: Row) -> dict[str, Any]:
    counts: dict[str, Any] = dict(zip(_STATES, row[2:11], strict=True))
    decided_times, decide, applied_times, apply = row[11:]
    if decided_times:
        counts |= {"median_seconds_to_decide": float(decide[0]), "p90_seconds_to_decide": float(decide[1])}
    if applied_times:
        counts |= {"median_seconds_to_apply": float(apply[0]), "p90_seconds_to_apply": float(apply[1])}
    return counts | _share(counts)


def _person(row: Row) -> dict[str, Any]:
    user, made, unseen, quick, votes, median, decided_times, (kinds, counts) = row
    person = {"user_id": user, "made": made, "votes": votes, "unseen": unseen, "quick": quick}
    times = {"median_seconds_to_decide": float(median)} if decided_times else {}
    return person | _share(person) | times | {"by_kind": dict(sorted(zip(kinds, counts, strict=True)))}


def _share(counts: dict[str, Any]) -> dict[str, float]:
    """Returns the share of decisions that were made without opening the item, or within QUICK_SECONDS of it."""
    made = counts["made"]
    return {"rubber_stamps": round((counts["unseen"] + counts["quick"]) / made, 4)} if made else {}
