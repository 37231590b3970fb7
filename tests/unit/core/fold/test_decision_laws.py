"""Laws of questions and decisions over any interleaving, against the reference model (CONTRACT §7).

Each attempt of a question has exactly one decision, the same for every reader and every replay. Later deciders learn
who decided.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from support.examples import law
from support.fold.decision_play import STEPS, Play
from support.fold.pipeline_driver import Crash, Worker

from schemas.facts import Fact, Outcome, decode_fact
from schemas.log import Decide, Pack, encode_pack
from schemas.views import ItemRow

pytestmark = pytest.mark.timeout(900)  # hypothesis takes minutes to shrink a failing example
slow = law(100, suppress_health_check=list(HealthCheck))
# Steps that decide are drawn more often than steps that only change the item.
_NAMES = ("open", "open", "update", "close", "late", *["decide"] * 6, "back", "back", "many", "report", "report",
          "source", "source", "tick")
step = st.sampled_from(_NAMES).flatmap(lambda name: st.tuples(
    st.just(name), st.tuples(*(st.integers(0, most) for most in STEPS[name]))))
steps = st.lists(step, max_size=40).map(lambda found: [("open", (0, 0, 0, 0)), ("open", (0, 1, 1, 0)), *found])
seeds = st.integers(0, 2**32)


def played(script: list[tuple[str, tuple[int, ...]]]) -> Play:
    play = Play()
    for name, numbers in script:
        play.step(name, numbers)
    return play


def decoded(facts: list[bytes]) -> list[Fact | Outcome]:
    return [decode_fact(raw) for raw in facts]


@slow
@given(steps)
def test_every_answer_and_every_state_equals_the_model(script: list[tuple[str, tuple[int, ...]]]) -> None:
    played(script)


@slow
@given(seeds)
def test_long_histories_equal_the_model(seed: int) -> None:
    """Forty steps with equal weights. hypothesis draws shorter histories, in which few questions get a second
    decision."""
    rng = random.Random(seed)
    names = [rng.choice(_NAMES) for _ in range(40)]
    played([("open", (0, 0, 0, 0)), ("open", (0, 1, 1, 0)),
            *((name, tuple(rng.randint(0, limit) for limit in STEPS[name])) for name in names)])


def test_a_question_that_returns_after_its_item_asked_nothing_gets_another_decision_id() -> None:
    """A regression that the laws found: the fold deleted the number of decisions with the question."""
    play = played([("open", (0, 0, 0, 0)), ("decide", (0, 0, 0, 0, 0)), ("open", (3, 0, 11, 0)), ("open", (3, 0, 0, 0)),
                   ("decide", (0, 0, 0, 0, 0))])
    assert len(play.model.named) == 2


def test_a_question_of_a_batch_that_expires_first_goes_out_with_the_batch() -> None:
    """A regression that the laws found: the fold held the record and never wrote it."""
    play = played([("open", (0, 0, 7, 0)), ("open", (0, 1, 6, 0)), ("tick", (5,)), ("decide", (0, 1, 0, 0, 0))])
    assert sorted(json.loads(raw)["type"] for raw in play.worker.decisions) == ["decision.expired", "decision.made"]


def check_invariants(facts: list[Fact | Outcome], records: list[dict[str, Any]]) -> None:
    """Invariants of every log: decisions of an item follow one another, and an outcome names the decision that was
    current.

    The outcome of a command comes before the facts of the decision that it made.
    """
    item_of = {fact.decision: fact.item for fact in facts if isinstance(fact, Fact) and fact.decision}
    made: Counter[str] = Counter()
    current: dict[str, str] = {}  # item -> its newest decision
    ended: dict[str, str] = {}  # decision -> verb of its end
    winners: Counter[str] = Counter()
    for fact in facts:
        if isinstance(fact, Outcome):
            body = json.loads(bytes(fact.body))
            if fact.status == 201:
                winners[body["decision"]["id"]] += 1
                assert fact.user in [actor["user"] for actor in body["decision"]["actors"]]
            if fact.status == 201:
                assert body["decision"]["id"] not in made
            elif fact.status == 409 and "decision" in body:
                lost_to = body["decision"]["id"]
                assert current[str(item_of[lost_to])] == lost_to, "a 409 names the current decision"
            continue
        if fact.decision is None or fact.item is None or not fact.type.startswith("decision."):
            continue
        verb = fact.type.removeprefix("decision.")
        if verb in ("made", "expired"):
            made[fact.decision] += 1
            current[fact.item] = fact.decision
        if verb in ("applied", "taken_back", "expired"):
            assert fact.decision not in ended, f"{fact.decision} ended as {ended[fact.decision]}, then {verb}"
            ended[fact.decision] = verb
    assert all(count == 1 for count in made.values()), "a decision was made twice"
    assert all(count == 1 for count in winners.values()), "two people got status 201 for one decision"
    assert winners.keys() <= made.keys()
    for record in records:
        assert record["data"]["decision"] in made, "a record of topic decisions names a decision that was never made"


@slow
@given(steps, seeds)
def test_any_order_and_packs_of_any_size_decide_each_question_once(
    script: list[tuple[str, tuple[int, ...]]], seed: int,
) -> None:
    """Commands of several edges arrive in any order relative to each other, to events and to reports."""
    rng = random.Random(seed)
    lanes: dict[str, list[Any]] = {}
    for at, entry in played(script).entries:
        lanes.setdefault(getattr(entry, "edge", type(entry).__name__), []).append((at, entry))
    log, pack, clock = [], [], 0
    while lanes:
        name = rng.choice(sorted(lanes))
        at, entry = lanes[name].pop(0)
        if not lanes[name]:
            del lanes[name]
        clock = max(clock, at)
        pack += [entry] if entry is not None else []
        if rng.random() < 0.4 or not lanes:
            log.append(encode_pack(Pack(clock, pack)))
            pack = []
    calm = Worker(log).run()
    check_invariants(decoded(calm.facts), [json.loads(raw) for raw in calm.decisions])


def _small_parts(part: int, wake: int) -> object:
    return patch.multiple("streams.core.fold.fold", MAX_PART_BYTES=part, MAX_TIMER_BYTES=wake)


@slow
@given(steps, st.integers(1, 12), seeds, st.booleans())
def test_a_crash_between_any_two_writes_loses_and_doubles_no_decision(
    script: list[tuple[str, tuple[int, ...]]], size: int, seed: int, small: bool,
) -> None:
    """Facts, then decisions, then rows: a new process writes the same records with the same ids again."""
    entries = played(script).entries
    log = [encode_pack(Pack(entries[at:at + size][-1][0], [entry for _, entry in entries[at:at + size] if entry]))
           for at in range(0, len(entries), size)]
    log += [encode_pack(Pack(entries[-1][0] + seconds * 1_000_000)) for seconds in (5, 60, 1000, 90_000)]
    with _small_parts(5_000, 3_000) if small else _small_parts(1 << 20, 1 << 18):
        calm, rng = Worker(log).run(), random.Random(seed)
        worker, crashes = Worker(log), 0
        while True:
            if not worker.step():
                worker.write()
                break
            chance = rng.random()
            try:
                if chance < 0.3 and crashes < 30:
                    crashes += 1
                    worker.write(crash_after=rng.choice((-1, 0, 1, 2, 3, 1000)))
                elif chance < 0.6:
                    worker.write()
            except Crash:
                worker.start()
    assert worker.rows == calm.rows
    assert worker.known_facts() == calm.known_facts() == calm.facts
    assert list(dict.fromkeys(worker.decisions)) == list(dict.fromkeys(calm.decisions))
    check_invariants(decoded(worker.known_facts()), [json.loads(raw) for raw in worker.decisions])


@slow
@given(steps)
def test_a_worker_that_restarts_before_every_pack_decides_the_same(
    script: list[tuple[str, tuple[int, ...]]],
) -> None:
    steady = played(script).worker
    forgetful = Worker()
    forgetful.log = steady.log
    while forgetful.step():
        forgetful.write()
        forgetful.start()
    assert forgetful.rows == steady.rows
    assert forgetful.facts == steady.facts
    assert forgetful.decisions == steady.decisions
    assert forgetful.fold.next_timer() == steady.fold.next_timer()


@pytest.mark.parametrize("seed", range(5))
def test_of_a_thousand_deciders_one_wins_and_all_others_get_the_winner(seed: int) -> None:
    rng = random.Random(seed)
    play = Play()
    play.step("open", (0, 0, 0, 0))
    row, = play.rows(ItemRow)
    deciders = [(f"user_{number}", rng.choice(("yes", "no", "hold"))) for number in range(1000)]
    rng.shuffle(deciders)
    votes = [Decide(ws="ws", id=f"v{user}", time=play.clock, user=user, roles=("MEMBER",), role="MEMBER", item=row.id,
                    edge=f"edge-{rng.randrange(2)}", option=option, digest=row.question.digest)
             for user, option in deciders]
    while votes:
        size = rng.randint(1, 200)
        play._append(*votes[:size])
        del votes[:size]
    outcomes = [fact for fact in decoded(play.worker.facts) if isinstance(fact, Outcome)]
    assert Counter(outcome.status for outcome in outcomes) == {201: 1, 409: 999}
    winner = deciders[0][0]
    for outcome in outcomes:
        assert [actor["user"] for actor in json.loads(bytes(outcome.body))["decision"]["actors"]] == [winner]
