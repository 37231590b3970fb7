"""Random questions and decisions of items, not made by the fold. Every text of a user contains a marker."""

from __future__ import annotations

import random

from msgspec import Raw

from schemas.asking.question import Decision, DecisionRow, DecisionState, Question, Returned, Vote
from schemas.views import ItemRow
from streams.core.domain.decisions import decision_id

__all__ = ["decision_row", "question", "random_decision", "random_question"]

_STATES: tuple[DecisionState, ...] = (
    "made", "sending", "applied", "refused", "undeliverable", "taken_back", "expired")
_CAME_BACK: dict[Returned, DecisionState] = {
    "refused": "refused", "undeliverable": "undeliverable", "unconfirmed": "sending"}
_ASKS = (
    b'{"options":[{"id":"yes","does":"approve"},{"id":"no","does":"reject"}]}',
    b'{"quorum":{"approve":3},"deciders":{"roles":["OWNER"],"users":["bob"]}}',
    b'{"action":{"name":"pay","args":{"amount":12345678901234567890.10},"editable":true},"id":"call_1"}',
)


def vote(pick: random.Random, user: str, text: str) -> Vote:
    option, does = pick.choice((("yes", "approve"), ("no", "reject")))
    return Vote(user, pick.choice(("OWNER", "MEMBER")), pick.randrange(1, 9), option, does, name=f"name {text}",
                comment=pick.choice((None, f"comment {text}")))


def question(digest: str = "d0", **fields: object) -> Question:
    return Question(digest, **fields)  # type: ignore[arg-type]


def random_question(pick: random.Random, row: ItemRow, text: str, users: tuple[str, ...]) -> Question:
    """Returns a question that fits the state of its row: with a decision if `decided`, sometimes with a returned one.
    """
    votes = tuple(vote(pick, user, text) for user in users if pick.random() < 0.3)
    digest = f"{pick.randrange(3)}" * 64
    if row.state == "decided":
        state = pick.choice(("made", "sending"))
        return Question(digest, votes, _decision(pick, row, digest, state, text, users))
    if row.is_open and pick.random() < 0.4:
        returned = pick.choice(tuple(_CAME_BACK))
        decision = _decision(pick, row, digest, _CAME_BACK[returned], text, users)
        return Question(digest, votes, decision, returned=returned)
    if row.state == "resolved":
        return Question(digest, votes, closing=pick.choice(("withdrawn", "expired")))
    return Question(digest, votes)


def random_ask(pick: random.Random) -> Raw:
    return Raw(pick.choice(_ASKS))


def _decision(
    pick: random.Random, row: ItemRow, digest: str, state: DecisionState, text: str, users: tuple[str, ...],
) -> Decision:
    actors = tuple(vote(pick, user, text) for user in users[:pick.randrange(1, 3)])
    return Decision(
        decision_id(row.id, digest), actors[0].option, actors[0].does, at=3, undo_until=8, state=state, actors=actors,
        reason=f"reason {text}" if state in ("refused", "undeliverable") else None, changed_at=4)


def decision_row(decision: str = "dec_1", **fields: object) -> tuple[bytes, DecisionRow]:
    """Returns a decision that everybody in w1 may see, with the given fields."""
    whole = {
        "ws": "w1", "item": "ibx_1", "kind": "waitpoint", "source": "/s", "subject": "s1", "ask_id": "s1",
        "digest": "d0", "option": "approve", "does": "approve", "decided_at": 5, "undo_until": 8, "opened_at": 1,
        **fields,
    }
    return b"c:" + decision.encode(), DecisionRow(id=decision, **whole)  # type: ignore[arg-type]


def random_decision(pick: random.Random, ws: str, user: str | None, role: str | None, text: str,
                    users: tuple[str, ...]) -> tuple[bytes, DecisionRow]:
    """Returns one of twelve decisions. Actors, targets, state and time of each change from batch to batch."""
    number = pick.randrange(12)
    state = pick.choice(_STATES)
    actors = () if state == "expired" else tuple(
        vote(pick, name, text) for name in users if pick.random() < 0.4)
    return decision_row(
        f"dec_{number}{ws}", ws=ws, item=f"ibx_{number}", title=f"title {text}", actors=actors, state=state,
        decided_at=pick.randrange(1, 6), target_user_id=user, target_role=role, rev=pick.randrange(9),
        reason=f"reason {text}" if state == "refused" else None,
        returned=pick.choice((None, "unconfirmed")) if state == "sending" else None,
    )
