"""Decides a question by the order of the log: votes, quorum, undo, expiry, and what became of the decision.

Every function takes a `Question` and returns the next one; none reads a clock. The fold calls them in the log's order
under one partition's ownership, so each question has one decision, whatever edges and deciders race (CONTRACT §7).

    open -> made -> sending -> applied | refused | undeliverable      a refused decision may be voted on again
    open -> withdrawn | expired                                       made -> taken_back (open again)
"""

from __future__ import annotations

import hashlib
from typing import Literal, NamedTuple

from msgspec.structs import replace

from schemas.asks import Ask, Deciders, Option
from schemas.questions import Closing, Decision, DecisionState, Question, Vote
from streams.core.canonical_json import canonical_json

__all__ = [
    "ReportedState", "VoteResult", "cast_vote", "close_by_source", "decision_id", "expire", "is_decider", "report",
    "start_sending", "take_back",
]

ReportedState = Literal["applied", "refused", "undeliverable"]
# From these states the question comes back to the list, and a new vote decides it anew.
_RETURNED: frozenset[DecisionState] = frozenset(("refused", "undeliverable", "taken_back"))


class VoteResult(NamedTuple):
    """`status`: 200, 201, 202, 403, 409 or 410 of CONTRACT §7; 412 and 422 are checked before. `needed`: with 202."""

    question: Question
    status: int
    needed: int = 0


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


def cast_vote(
    question: Question, vote: Vote, *, next_id: str, quorum: int, undo_us: int, may_decide: bool,
) -> VoteResult:
    """Applies a vote that fits the ask. `next_id`: of the decision that it may make.

    One `reject` decides at once. Any other option decides when `quorum` different people gave the same answer; a
    person's later vote replaces the earlier one.
    """
    if not may_decide:
        return VoteResult(question, 403)
    decision = question.decision
    if decision is not None and decision.state not in _RETURNED:
        own = any(actor.user == vote.user and actor.same_answer(vote) for actor in decision.actors)
        return VoteResult(question, 410 if decision.state == "expired" else 200 if own else 409)
    if question.closing is not None:
        return VoteResult(question, 410)
    if any(earlier.user == vote.user and earlier.same_answer(vote) for earlier in question.votes):
        return VoteResult(question, 200, quorum - _agreeing(question.votes, vote))
    votes = (*(earlier for earlier in question.votes if earlier.user != vote.user), vote)
    agreeing = tuple(earlier for earlier in votes if earlier.same_answer(vote))
    if vote.does != "reject" and len(agreeing) < quorum:
        return VoteResult(replace(question, votes=votes), 202, quorum - len(agreeing))
    made = Decision(
        id=next_id, option=vote.option, does=vote.does, at=vote.at, undo_until=vote.at + undo_us, state="made",
        actors=(vote,) if vote.does == "reject" else agreeing, changed_at=vote.at,
    )
    return VoteResult(replace(question, votes=votes, decision=made), 201)


def _agreeing(votes: tuple[Vote, ...], vote: Vote) -> int:
    return sum(earlier.same_answer(vote) for earlier in votes)


def take_back(question: Question, user: str, at: int) -> tuple[Question, int]:
    """Undoes the decision for one of its actors until `undo_until`. Returns the question and 200, 403, 404 or 409.

    The vote of the caller goes; those of others stay. The question is open again.
    """
    decision = question.decision
    if decision is None:
        return question, 404
    if decision.state == "taken_back":
        return question, 200 if any(actor.user == user for actor in decision.actors) else 409
    if all(actor.user != user for actor in decision.actors):
        return question, 403
    if decision.state != "made" or at >= decision.undo_until or question.closing is not None:
        return question, 409
    votes = tuple(vote for vote in question.votes if vote.user != user)
    return replace(question, votes=votes, decision=replace(decision, state="taken_back", changed_at=at)), 200


def start_sending(question: Question, at: int) -> Question:
    """After `undo_until` the decision goes out; nobody takes it back any more."""
    decision = question.decision
    if decision is None or decision.state != "made" or at < decision.undo_until:
        return question
    return replace(question, decision=replace(decision, state="sending", changed_at=at))


def expire(question: Question, ask: Ask, at: int, next_id: str) -> Question:
    """Ends an undecided question at `expires_at`: by the option that `on_expiry` names, else without a decision."""
    if ask.expires_at is None or at < ask.expires_at or not _is_open(question):
        return question
    option = _option(ask, ask.on_expiry)
    if option is None:
        return replace(question, closing="expired")
    made = Decision(
        id=next_id, option=option.id, does=option.does, at=ask.expires_at, undo_until=ask.expires_at, state="sending",
        changed_at=at,
    )
    return replace(question, decision=made)


def close_by_source(question: Question, at: int, closing: Closing = "withdrawn") -> Question:
    """The source closed the item: a decision that was on its way took effect, an open question is withdrawn."""
    decision = question.decision
    if decision is not None and decision.state in ("made", "sending", "refused", "undeliverable"):
        return replace(question, decision=replace(decision, state="applied", reason=None, changed_at=at))
    return replace(question, closing=closing) if question.closing is None and _is_open(question) else question


def report(question: Question, of: str, state: ReportedState, at: int, reason: str | None = None) -> Question:
    """What the source or `attn deliver` reports of decision `of`. A report of another decision changes nothing.

    `applied` is final. Delivery may report `undeliverable` after the source has confirmed: it is ignored then.
    """
    decision = question.decision
    if decision is None or decision.id != of or decision.state not in ("made", "sending", "refused", "undeliverable"):
        return question
    if decision.state == state:
        return question
    return replace(question, decision=replace(decision, state=state, reason=reason, changed_at=at))


def _is_open(question: Question) -> bool:
    return question.closing is None and (question.decision is None or question.decision.state in _RETURNED)


def _option(ask: Ask, name: str | None) -> Option | None:
    return next((option for option in ask.options or () if option.id == name), None)
