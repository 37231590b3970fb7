"""Any interleaving of deciders, ticks, closings and reports gives a question one decision at a time (CONTRACT §7)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.asking.ask import Deciders
from schemas.asking.question import Question, Vote
from schemas.log import NO_PAYLOAD
from streams.core.domain import decisions
from streams.core.domain.decisions import cast_vote, decision_id, is_decider

UNDO = 5
ROLES = frozenset(("OWNER", "ADMIN", "MANAGER", "MEMBER"))
USERS = st.sampled_from(["ada", "bob", "cyd", "dan"])
OPTIONS = {"yes": "approve", "no": "reject"}

FORM = msgspec.Raw(b'{"n":1}')
STEPS = st.one_of(
    st.tuples(st.just("vote"), USERS, st.sampled_from(sorted(OPTIONS)), st.sampled_from([NO_PAYLOAD, FORM])),
    st.tuples(st.just("take_back"), USERS),
    st.tuples(st.just("tick")),
    st.tuples(st.just("close")),
    st.tuples(st.just("report"), st.sampled_from(["applied", "refused", "undeliverable"])),
    st.tuples(st.just("expire")),
)
RUNS = st.lists(st.tuples(st.integers(0, 4), STEPS), max_size=25)


def vote(user: str, option: str = "yes", at: int = 0, form: msgspec.Raw = NO_PAYLOAD) -> Vote:
    return Vote(user=user, role="MEMBER", at=at, option=option, does=OPTIONS[option], form=form)


def apply(question: Question, at: int, step: tuple[Any, ...], quorum: int) -> tuple[Question, Any]:
    match step:
        case ("vote", user, option, form):
            result = cast_vote(
                question, vote(user, option, at, form), item_id="ibx_1", quorum=quorum, undo_us=UNDO, may_decide=True)
            return result.question, result
        case ("take_back", user):
            return decisions.take_back(question, user, at)
        case ("tick",):
            return decisions.start_sending(question, at), None
        case ("close",):
            return decisions.close_by_source(question, at), None
        case ("report", state):
            of = question.decision.id if question.decision else "dec_none"
            return decisions.report(question, of, state, at, "why"), None
        case ("expire",):
            return decisions.expire(question, "ibx_1", at, "no", "reject"), None
    raise AssertionError(step)


@given(RUNS, st.integers(1, 3))
def test_each_run_has_one_decision_at_a_time(run: list[tuple[int, Any]], quorum: int) -> None:
    question, at, made = Question(digest="d"), 0, 0
    for pause, step in run:
        at += pause
        before = question
        question, answer = apply(question, at, step, quorum)
        ids = [each.decision.id if each.decision else None for each in (before, question)]
        is_new = ids[0] != ids[1]
        made += is_new
        if is_new:
            assert question.decision is not None
            assert before.decision is None or before.decision.state in ("taken_back", "refused")
            people = [actor.user for actor in question.decision.actors]
            assert len(people) == len(set(people))
            if question.decision.does != "reject":
                assert len(people) == quorum
                assert len({(actor.option, bytes(actor.form)) for actor in question.decision.actors}) == 1
        elif before.decision is not None:
            assert question.decision is not None
            assert before.decision.actors == question.decision.actors
            if before.decision.state == "applied" or (before.decision.state == "taken_back" and step[0] != "close"):
                assert question.decision == before.decision
        if step[0] == "vote":
            assert (answer.status == 201) == is_new
            if answer.status == 202:
                assert 0 < answer.needed < quorum
            if answer.status in (409, 410):
                assert question == before
        if before.closing is not None:
            assert question.closing == before.closing
            assert not is_new


@given(RUNS, st.integers(1, 3))
def test_a_replay_gives_the_same_question(run: list[tuple[int, Any]], quorum: int) -> None:
    results = []
    for _ in range(2):
        question, at = Question(digest="d"), 0
        for pause, step in run:
            at += pause
            question, _ = apply(question, at, step, quorum)
        results.append(question)
    assert results[0] == results[1]


@given(st.permutations(["ada", "bob", "cyd", "dan"]), st.integers(1, 4))
def test_one_vote_of_a_race_makes_the_decision_and_later_ones_learn_of_it(users: list[str], quorum: int) -> None:
    question, statuses = Question(digest="d"), []
    for user in users:
        result = cast_vote(
            question, vote(user), item_id="ibx_1", quorum=quorum, undo_us=UNDO, may_decide=True)
        question = result.question
        statuses.append(result.status)
    assert statuses == [202] * (quorum - 1) + [201] + [409] * (4 - quorum)
    assert question.decision is not None
    assert [actor.user for actor in question.decision.actors] == users[:quorum]


def test_a_repeated_vote_counts_once() -> None:
    first = cast_vote(Question(digest="d"), vote("ada"), item_id="ibx_1", quorum=2, undo_us=0, may_decide=True)
    again = cast_vote(first.question, vote("ada", at=9), item_id="ibx_1", quorum=2, undo_us=0, may_decide=True)
    assert (first.status, again.status, again.needed) == (202, 200, 1)
    assert again.question == first.question


def test_two_people_who_answer_differently_make_no_quorum() -> None:
    first = cast_vote(Question(digest="d"), vote("ada"), item_id="ibx_1", quorum=2, undo_us=0, may_decide=True)
    other = cast_vote(first.question, vote("bob", form=FORM), item_id="ibx_1", quorum=2, undo_us=0, may_decide=True)
    assert (other.status, other.needed) == (202, 1)


def test_one_reject_ends_a_quorum() -> None:
    first = cast_vote(Question(digest="d"), vote("ada"), item_id="ibx_1", quorum=3, undo_us=0, may_decide=True)
    rejected = cast_vote(first.question, vote("bob", "no"), item_id="ibx_1", quorum=3, undo_us=0, may_decide=True)
    assert rejected.status == 201
    assert rejected.question.decision is not None
    assert [actor.user for actor in rejected.question.decision.actors] == ["bob"]


@pytest.mark.parametrize(("deciders", "user", "role", "may"), [
    (None, "ada", "MEMBER", True),
    (None, "ada", "VIEWER", False),
    (Deciders(users=["ada"]), "ada", "VIEWER", True),
    (Deciders(users=["ada"]), "bob", "OWNER", False),
    (Deciders(roles=["ADMIN"]), "bob", "ADMIN", True),
    (Deciders(roles=["ADMIN"]), "bob", "OWNER", False),
    (Deciders.model_validate({"not": ["requester"]}), "req", "OWNER", False),
    (Deciders.model_validate({"not": ["requester"]}), "bob", "OWNER", True),
    (Deciders.model_validate({"not": ["requester"], "requester": "bob"}), "bob", "OWNER", False),
    (Deciders.model_validate({"not": ["requester"], "users": ["req"]}), "req", "OWNER", False),
])
def test_users_who_may_decide(deciders: Deciders | None, user: str, role: str, may: bool) -> None:
    assert is_decider(deciders, user, role, "req", ROLES) == may


def test_a_decision_can_be_taken_back_until_its_moment() -> None:
    made = cast_vote(
        Question(digest="d"), vote("ada"), item_id="ibx_1", quorum=1, undo_us=UNDO, may_decide=True).question
    assert decisions.take_back(made, "bob", 1)[1] == 403
    assert decisions.take_back(made, "ada", UNDO)[1] == 409
    back, status = decisions.take_back(made, "ada", UNDO - 1)
    assert status == 200
    assert not back.votes
    again = cast_vote(back, vote("bob", "no"), item_id="ibx_1", quorum=1, undo_us=UNDO, may_decide=True)
    assert again.status == 201
    assert decisions.take_back(decisions.start_sending(made, UNDO), "ada", UNDO)[1] == 409


def test_a_source_that_closes_first_leaves_nothing_to_decide() -> None:
    closed = decisions.close_by_source(Question(digest="d"), 1)
    assert cast_vote(closed, vote("ada"), item_id="ibx_1", quorum=1, undo_us=0, may_decide=True).status == 410


def test_an_expired_question_takes_the_safe_option_or_none() -> None:
    question = decisions.expire(Question(digest="d"), "ibx_1", 9, "no", "reject")
    assert question.decision is not None
    assert (question.decision.option, question.decision.actors, question.decision.state) == ("no", (), "sending")
    plain = decisions.expire(Question(digest="d"), "ibx_1", 9, None, None)
    assert plain.decision is not None
    assert (plain.decision.option, plain.decision.state) == ("", "expired")
    assert cast_vote(
        plain, vote("ada"), item_id="ibx_1", quorum=1, undo_us=0, may_decide=True).status == 410


@pytest.mark.parametrize("state", ["unconfirmed", "undeliverable"])
def test_a_decision_that_may_have_taken_effect_is_only_sent_again(state: str) -> None:
    made = cast_vote(Question(digest="d"), vote("ada"), item_id="ibx_1", quorum=1, undo_us=0, may_decide=True).question
    assert made.decision is not None
    sent = decisions.start_sending(made, 1)
    back = (decisions.return_unconfirmed(sent) if state == "unconfirmed"
            else decisions.report(sent, made.decision.id, "undeliverable", 2, "503"))
    assert back.returned == state
    other = cast_vote(back, vote("bob", "no"), item_id="ibx_1", quorum=1, undo_us=0, may_decide=True)
    assert other.status == 409
    same = cast_vote(back, vote("bob"), item_id="ibx_1", quorum=1, undo_us=0, may_decide=True)
    assert (same.status, same.again) == (200, True)
    again = decisions.send_again(back, 3)
    assert again.decision is not None
    assert (again.decision.id, again.decision.state, again.returned) == (made.decision.id, "sending", None)


def test_a_refused_decision_is_followed_by_another_one() -> None:
    made = cast_vote(Question(digest="d"), vote("ada"), item_id="ibx_1", quorum=1, undo_us=0, may_decide=True).question
    assert made.decision is not None
    refused = decisions.report(made, made.decision.id, "refused", 2, "budget is closed")
    assert refused.returned == "refused"
    second = cast_vote(refused, vote("ada"), item_id="ibx_1", quorum=1, undo_us=0, may_decide=True)
    assert second.status == 201
    assert second.question.decision is not None
    assert second.question.decision.id == decision_id("ibx_1", "d", 1) != made.decision.id
    assert second.question.returned is None
