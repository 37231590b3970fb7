"""Facts of decisions, from which the history counts openings, closings, durations and deciders."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from support.examples import law
from support.fold.asking_driver import START, Asking
from support.fold.decision_play import STEPS, Play

from schemas.facts import Fact, decode_fact
from schemas.scalars import SECOND, format_timestamp
from schemas.views import ItemRow

OPTIONS = [{"id": "yes", "does": "approve"}, {"id": "no", "does": "reject"},
           {"id": "hold", "does": "ignore", "safe": True}]
EXPIRES = {"options": OPTIONS, "expires_at": format_timestamp(START + 40 * SECOND)}
step = st.sampled_from(sorted(STEPS)).flatmap(lambda name: st.tuples(
    st.just(name), st.tuples(*(st.integers(0, most) for most in STEPS[name]))))


def fact_of(facts: list[Any], verb: str) -> Fact:
    (fact,) = [fact for fact in facts if isinstance(fact, Fact) and fact.type == f"decision.{verb}"]
    return fact


@law(60, suppress_health_check=list(HealthCheck))
@given(st.lists(step, max_size=40).map(lambda script: [("open", (0, 0, 0, 0)), *script]))
def test_openings_minus_closings_are_the_items_that_wait_for_their_source(script: list[Any]) -> None:
    """Open items by the facts equal those of the view, also if a decision or its expiry closed them."""
    play = Play()
    for name, numbers in script:
        play.step(name, numbers)
    open_now: Counter[str] = Counter()
    for fact in map(decode_fact, play.worker.facts):
        if isinstance(fact, Fact) and fact.item is not None and not fact.derived:
            open_now[fact.item] += fact.opened - (fact.seconds_open is not None)
    assert {row.id: int(row.is_pending) for row in play.rows(ItemRow) if row.base is not None} == {
        row.id: open_now[row.id] for row in play.rows(ItemRow) if row.base is not None}
    assert all(fact.resolved_action for fact in map(decode_fact, play.worker.facts)
               if isinstance(fact, Fact) and fact.seconds_open is not None)


def test_a_decision_that_took_effect_closes_its_item_once() -> None:
    asking = Asking()
    asking.ask({"options": OPTIONS})
    asking.vote("ann", "yes", at=20)
    facts = asking.event("decision.applied", at=50)
    applied = fact_of(facts, "applied")
    assert (applied.seconds_open, applied.resolved_action, applied.seconds_to_apply) == (50, "yes", 30)
    assert fact_of([decode_fact(raw) for raw in asking.worker.facts], "made").seconds_to_decide == 20
    later = [fact for fact in asking.event("waitpoint.approved", at=60) if isinstance(fact, Fact)]
    assert [(fact.type, fact.seconds_open) for fact in later] == [("waitpoint.approved", None)]


def test_a_close_by_the_source_closes_the_item_and_applies_the_decision() -> None:
    asking = Asking()
    asking.ask({"options": OPTIONS})
    asking.vote("ann", "yes", at=20)
    facts = [fact for fact in asking.event("waitpoint.approved", at=50) if isinstance(fact, Fact)]
    assert [(fact.type, fact.seconds_open, fact.seconds_to_apply) for fact in facts] == [
        ("waitpoint.approved", 50, None), ("decision.applied", None, 30)]


def test_an_expired_question_closes_its_item() -> None:
    asking = Asking()
    asking.ask(EXPIRES)
    expired = fact_of(asking.tick(at=40), "expired")
    assert (expired.resolved_action, expired.seconds_open, expired.actor) == ("expired", 40, None)


def test_a_decision_that_is_sent_again_has_another_fact() -> None:
    asking = Asking()
    asking.ask({"options": OPTIONS})
    _, body = asking.vote("ann", "yes", at=20)
    asking.report(body["decision"]["id"], "undeliverable", "gone", at=40)
    facts = asking.fold()
    assert not facts
    _, again = asking.vote("bob", "yes", at=70)
    assert again["decision"]["id"] == body["decision"]["id"]
    types = [fact.type for fact in map(decode_fact, asking.worker.facts)
             if isinstance(fact, Fact) and fact.decision is not None]
    assert types == ["vote.cast", "decision.made", "decision.undeliverable", "vote.cast", "decision.sending"]
