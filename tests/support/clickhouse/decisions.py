"""Facts of random decisions as the fold emits them, and a model of their rows in the view `decisions`."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from schemas.facts import Fact
from schemas.scalars import MINUTE, SECOND

__all__ = ["PEOPLE", "decision_facts", "decision_rows"]

PEOPLE = (("ann", "OWNER"), ("bob", "MANAGER"), ("cy", "MEMBER"), ("dee", "ADMIN"))
_KINDS = ("waitpoint", "plan_approval", "pending_action")
_OPTIONS = (("approve", "approve"), ("reject", "reject"), ("other", "choose"))
_TARGETS = ((None, None), (None, None), (None, "OWNER"), ("bob", None), ("cy", "ADMIN"))
_REASONS = ("quota is used up", "wrong window", None)


def decision_facts(
    seed: int, count: int, ws: str, begin: int, hours: int = 60, position: int = 1_000_000,
) -> list[Fact]:
    """Returns the facts of `count` decisions in the order of the log. Each decision follows votes, and is made, taken
    back, expired, refused, undeliverable, unconfirmed or applied. Some have stale reports. Times are microseconds from
    `begin` on."""
    rng = random.Random(seed)
    timed: list[tuple[int, int, Fact]] = []
    for number in range(count):
        at = begin + rng.randrange(hours * 3600) * SECOND + rng.randrange(SECOND)
        for fact in _one(rng, ws, f"{seed}-{number}", at):
            timed.append((fact.time, len(timed), fact))
    facts = [fact for _, _, fact in sorted(timed, key=lambda entry: entry[:2])]
    for nth, fact in enumerate(facts):
        fact.pos, fact.index = position + nth // 3, nth % 3
    return facts


def _one(rng: random.Random, ws: str, name: str, at: int) -> list[Fact]:
    target_user_id, target_role = rng.choice(_TARGETS)
    common: dict[str, Any] = {
        "ws": ws, "pos": 0, "index": 0, "subject": f"s{name}", "item": f"ibx_{name}", "kind": rng.choice(_KINDS),
        "priority": rng.choice(("low", "high")), "title": f"Question {name}", "cluster": rng.choice(("a", "b", None)),
        "case_id": rng.choice((None, f"case-{rng.randrange(5)}")), "target_user_id": target_user_id,
        "target_role": target_role, "decision": f"dec_{name}",
    }
    facts: list[Fact] = []

    def tell(verb: str, time: int, **more: Any) -> None:
        event_id = f"decision {name} {len(facts)} {verb}"
        facts.append(Fact(**common | more, type=verb, event_id=event_id, time=time, at=time))

    fate = rng.choice(("expired", "taken_back", "refused", "undeliverable", "unconfirmed", "applied", "applied",
                       "applied", "made", "again"))
    if rng.random() < 0.2:  # a report of another source
        tell("decision.refused", at + 3600 * SECOND, stale=True, reason="not yours", item=None, kind=None,
             case_id=None)
    if fate == "expired":
        tell("decision.expired", at, resolved_action="expired", seconds_open=rng.randrange(9000) / 4)
        return facts
    option, does = rng.choice(_OPTIONS)
    chosen = {"option": option, "does": does}
    for user, role in rng.sample(PEOPLE, rng.choice((1, 1, 2))):
        viewed = _viewed(rng)
        chosen |= {"actor": user, "role": role, "viewed": viewed}
        tell("vote.cast", at, **chosen)
    tell("decision.made", at, seconds_to_decide=rng.randrange(1, 9000) / 4, **chosen)
    if fate == "taken_back":
        tell("decision.taken_back", at + 2 * SECOND, **chosen)
        return facts
    if rng.random() < 0.5:
        tell("decision.delivered", at + 6 * SECOND, **chosen)
    if fate == "made":
        return facts
    if fate in ("refused", "undeliverable"):
        tell(f"decision.{fate}", at + rng.randrange(7, 90) * SECOND, reason=rng.choice(_REASONS), **chosen)
        return facts
    took = rng.randrange(28, 400) / 4
    if fate in ("unconfirmed", "again"):
        tell("decision.unconfirmed", at + 15 * MINUTE, **chosen)
        if rng.random() < 0.5:
            return facts
        took = rng.randrange(20 * 60, 9000) / 1
        if fate == "again":
            tell("decision.sending", at + 18 * MINUTE, **chosen)
            if rng.random() < 0.5:
                return facts
    tell("decision.applied", at + int(took * SECOND), seconds_to_apply=took, **chosen)
    return facts


def _viewed(rng: random.Random) -> float | None:
    return rng.choice((None, rng.randrange(0, 12) / 4, rng.randrange(12, 400) / 4, rng.randrange(12, 400) / 4))


def decision_rows(facts: Iterable[Fact]) -> dict[str, dict[str, Any]]:
    """Computes the rows of view `decisions` from facts in any order, by loops. Returns decision id -> row. Times are
    microseconds."""
    by_decision: dict[str, list[Fact]] = defaultdict(list)
    for fact in facts:
        if fact.decision is not None and fact.type.startswith("decision.") and not fact.stale:
            by_decision[fact.decision].append(fact)
    return {name: _row(sorted(mine, key=lambda fact: (fact.pos, fact.index))) for name, mine in by_decision.items()}


def _row(mine: list[Fact]) -> dict[str, Any]:
    first, last, made = mine[0], mine[-1], mine[0] if mine[0].type == "decision.made" else None

    def times(verb: str) -> list[int]:
        return [fact.time for fact in mine if fact.type == f"decision.{verb}"]

    return {
        "workspace_id": first.ws, "decision_id": first.decision, "item_id": first.item, "kind": first.kind,
        "priority": first.priority, "title": first.title, "cluster": first.cluster or "", "stack": first.stack or "",
        "case_id": first.case_id or "", "option": first.option or "", "does": first.does or "",
        "actor": (made.actor or "") if made else "", "role": (made.role or "") if made else "",
        "state": last.type.removeprefix("decision."),
        "reason": next((fact.reason for fact in reversed(mine) if fact.reason), ""), "decided_at": first.time,
        "sent_again_at": max(times("sending"), default=None), "delivered_at": min(times("delivered"), default=None),
        "applied_at": min(times("applied"), default=None), "refused_at": max(times("refused"), default=None),
        "undeliverable_at": max(times("undeliverable"), default=None),
        "unconfirmed_at": max(times("unconfirmed"), default=None),
        "taken_back_at": max(times("taken_back"), default=None), "viewed": first.viewed,
        "seconds_to_decide": first.seconds_to_decide,
        "seconds_to_apply": max((fact.seconds_to_apply for fact in mine if fact.seconds_to_apply is not None),
                                default=None),
        "target_user_id": last.target_user_id or "", "target_role": last.target_role or "",
    }
