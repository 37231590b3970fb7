"""Decides a question by the order of the log: votes, quorum, undo, expiry, and what became of the decision.

Every function takes a `Question` and returns the next one; none reads a clock. The fold calls them in the log's order
under one partition's ownership, so each question has one decision, whatever edges and deciders race (CONTRACT §7).

    open -> made -> sending -> applied | refused | undeliverable      a refused decision may be voted on again
    open -> withdrawn | expired                                       made -> taken_back (open again)
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from msgspec.structs import replace

from schemas.asking.ask import Deciders
from schemas.asking.question import Closing, Decision, DecisionState, Question, Returned, Vote
from streams.core.canonical_json import canonical_json

__all__ = [
    "VoteResult", "cast_vote", "close_by_source", "decision_id", "expire", "is_decider", "is_open", "next_decision_id",
    "report", "return_unconfirmed", "send_again", "start_sending", "take_back",
]

MAX_VOTES = 50  # different people whose votes are kept for one question

# States in which a report of the source or of `attn deliver` changes the decision.
_UNDER_WAY: frozenset[DecisionState] = frozenset(("made", "sending", "refused", "undeliverable"))


class VoteResult(NamedTuple):
    """`status`: 200, 201, 202, 403, 409 or 410 of CONTRACT §7; 412 and 422 are checked before. `needed`: with 202.

    `again`: the vote repeats a decision that nobody confirmed; it goes out once more, with the same id.
    """

    question: Question
    status: int
    needed: int = 0
    again: bool = False


def is_decider(
    deciders: Deciders | None, user: str, role: str, requester: str | None, default_roles: frozenset[str],
) -> bool:
    """Whether a user who sees the item may decide. `default_roles`: ATTN_DECIDER_ROLES, where the ask names nobody."""
    if deciders is None:
        return role in default_roles
    if "requester" in deciders.excluded and user == (deciders.requester or requester):
        return False
    if deciders.users or deciders.roles:
        return user in deciders.users or role in deciders.roles
    return role in default_roles


def decision_id(item_id: str, digest: str, attempt: int = 0) -> str:
    """`dec_` and 32 hex digits, from item, digest and the number of earlier decisions of this question.

    It is the same in each replay, and another for another question.
    """
    named = [item_id, digest, attempt] if attempt else [item_id, digest]
    return "dec_" + hashlib.sha256(canonical_json(named)).hexdigest()[:32]


def next_decision_id(item_id: str, question: Question) -> str:
    """Returns the id of the decision that would be made now."""
    return decision_id(item_id, question.digest, question.attempts + (question.decision is not None))


def is_open(question: Question) -> bool:
    """Whether the question may still get a decision: it has none, or its source refused it, or it was taken back."""
    if question.closing is not None:
        return False
    return question.decision is None or question.decision.state in ("refused", "taken_back")


def cast_vote(
    question: Question, vote: Vote, *, item_id: str, quorum: int, undo_us: int, may_decide: bool,
) -> VoteResult:
    """Applies a vote that fits the ask.

    One `reject` decides at once. Any other option decides when `quorum` different people gave the same answer; a
    person's later vote replaces the earlier one. A decision that was undeliverable or not confirmed may have taken
    effect: it can only be sent again, by the same answer.
    """
    if not may_decide:
        return VoteResult(question, 403)
    decision = question.decision
    if decision is not None and not is_open(question):
        return _answer_decided(question, decision, vote)
    if question.closing is not None:
        return VoteResult(question, 410)
    if any(earlier.user == vote.user and earlier.same_answer(vote) for earlier in question.votes):
        return VoteResult(question, 200, quorum - _agreeing(question.votes, vote))
    others = tuple(earlier for earlier in question.votes if earlier.user != vote.user)
    agreeing = (*(earlier for earlier in others if earlier.same_answer(vote)), vote)
    if vote.does != "reject" and len(agreeing) < quorum:
        if len(others) >= MAX_VOTES:
            return VoteResult(question, 429)
        return VoteResult(replace(question, votes=(*others, vote)), 202, quorum - len(agreeing))
    actors = (vote,) if vote.does == "reject" else agreeing
    made = Decision(
        id=next_decision_id(item_id, question), option=vote.option, does=vote.does, at=vote.at,
        undo_until=vote.at + undo_us, state="made", actors=actors, changed_at=vote.at,
    )
    rest = tuple(earlier for earlier in others if earlier not in actors)
    return VoteResult(_decided(question, made, rest), 201)


def _answer_decided(question: Question, decision: Decision, vote: Vote) -> VoteResult:
    if decision.state in ("expired", "refused", "taken_back"):  # the last two: and closed by the source since then
        return VoteResult(question, 410)
    if question.returned is not None and decision.actors and decision.actors[0].same_answer(vote):
        return VoteResult(question, 200, again=True)
    own = any(actor.user == vote.user and actor.same_answer(vote) for actor in decision.actors)
    return VoteResult(question, 200 if own else 409)


def _decided(question: Question, decision: Decision, votes: tuple[Vote, ...]) -> Question:
    attempts = question.attempts + (question.decision is not None)
    return replace(question, votes=votes, decision=decision, attempts=attempts, returned=None)


def _agreeing(votes: tuple[Vote, ...], vote: Vote) -> int:
    return sum(earlier.same_answer(vote) for earlier in votes)


def take_back(question: Question, user: str, at: int) -> tuple[Question, int]:
    """Undoes the decision for one of its actors until `undo_until`. Returns the question and 200, 403, 404 or 409.

    The vote of the caller goes; those of others stay. The question is open again.
    """
    decision = question.decision
    if decision is None:
        return question, 404
    mine = any(actor.user == user for actor in decision.actors)
    if decision.state == "taken_back":
        return question, 200 if mine else 409
    if not mine:
        return question, 403
    if decision.state != "made" or at >= decision.undo_until or question.closing is not None:
        return question, 409
    votes = tuple(vote for vote in (*decision.actors, *question.votes) if vote.user != user)
    return replace(question, votes=votes, decision=replace(decision, state="taken_back", changed_at=at)), 200


def start_sending(question: Question, at: int) -> Question:
    """After `undo_until` the decision goes out; nobody takes it back any more."""
    decision = question.decision
    if decision is None or decision.state != "made" or at < decision.undo_until:
        return question
    return replace(question, decision=replace(decision, state="sending", changed_at=at))


def send_again(question: Question, at: int) -> Question:
    """The same decision goes out once more, after it was undeliverable or nobody confirmed it."""
    decision = question.decision
    if decision is None or decision.state not in ("sending", "undeliverable"):
        return question
    return replace(
        question, returned=None, decision=replace(decision, state="sending", reason=None, changed_at=at))


def return_unconfirmed(question: Question) -> Question:
    """Brings a decision back that nobody confirmed in time. It may still take effect."""
    decision = question.decision
    if decision is None or decision.state not in ("made", "sending") or question.closing is not None:
        return question
    return replace(question, returned="unconfirmed")


def expire(question: Question, item_id: str, at: int, option: str | None, does: str | None) -> Question:
    """Ends an undecided question at its `expires_at`, `at`: by the option that `on_expiry` names, else without one.

    Without an option the decision has state `expired` and names none.
    """
    if not is_open(question):
        return question
    made = Decision(
        id=next_decision_id(item_id, question), option=option or "", does=does or "", at=at, undo_until=at,
        state="expired" if option is None else "sending", changed_at=at,
    )
    return _decided(question, made, ())


def close_by_source(question: Question, at: int, closing: Closing = "withdrawn") -> Question:
    """The source closed the item: a decision that was on its way took effect, an open question is withdrawn.

    A decision that the source had refused stays refused.
    """
    decision = question.decision
    if question.closing is not None:
        return question
    if decision is not None and decision.state in ("made", "sending", "undeliverable"):
        applied = replace(decision, state="applied", reason=None, changed_at=at)
        return replace(question, decision=applied, returned=None, closing=closing)
    return replace(question, closing=closing)


def report(question: Question, of: str, state: DecisionState, at: int, reason: str | None = None) -> Question:
    """What the source or `attn deliver` reports of decision `of`: `applied`, `refused` or `undeliverable`.

    A report of another decision changes nothing. `applied` is final. Delivery may report `undeliverable` after the
    source has confirmed: it is ignored then.
    """
    decision = question.decision
    if decision is None or decision.id != of or decision.state not in _UNDER_WAY:
        return question
    if decision.state == state or (decision.state == "refused" and state == "undeliverable"):
        return question
    returned: Returned | None = None
    if state == "refused" or state == "undeliverable":
        returned = state
    return replace(question, returned=returned, decision=replace(decision, state=state, reason=reason, changed_at=at))
