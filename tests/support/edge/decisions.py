"""Rows of an item with an ask and of its decision, as the fold writes them."""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.asking.question import Decision, DecisionRow, Question, Vote
from schemas.log import Data
from schemas.scalars import SECOND
from schemas.views import ItemRow
from streams.core.domain.decisions import decision_id
from streams.core.domain.keys import item_id
from streams.core.domain.questions import question_digest, shown_ask

__all__ = ["ASK", "AT", "asking_item", "decided"]

AT = 1_779_278_400 * SECOND
# Digits that a double does not keep, and a text that sorts differently by code points and by UTF-16.
ASK = ('{"action":{"name":"deploy","args":{"n":12345678901234567890,"\\uffff":1,"\\ud83d\\ude00":2.50},'
       '"editable":true},"quorum":{"approve":2},"reply":{"to":"payments","token":"s1.sealed"}}')


def asking_item(subject: str = "wp1", ws: str = "w1", ask: str = ASK, **more: Any) -> ItemRow:
    """Returns an open waitpoint with an undecided question."""
    data = Data(title=more.pop("title", "Deploy?"), body_md="PR #128", ask=msgspec.Raw(ask.encode()))
    row = ItemRow(
        id=item_id(ws, "waitpoint", subject), ws=ws, kind="waitpoint", source_id=subject, source="/pipelines/deploy",
        state="unread", data=data, created_at=AT, **more)
    row.question = Question(digest=question_digest(row, shown_ask(data.ask, row.kind)))
    return row


def decided(item: ItemRow, users: tuple[str, ...] = ("ann",), attempt: int = 0, **more: Any) -> DecisionRow:
    """Returns the decision row of the item's question, and sets the decision of the item."""
    assert item.question is not None
    votes = tuple(Vote(user=user, role="OWNER", at=AT + 60 * SECOND, option="approve", does="approve",
                       name=user.title(), comment=f"by {user}") for user in users)
    made = Decision(
        id=decision_id(item.id, item.question.digest, attempt), option="approve", does="approve", at=AT + 60 * SECOND,
        undo_until=AT + 65 * SECOND, state=more.get("state", "made"), actors=votes, changed_at=AT + 60 * SECOND)
    row = DecisionRow(**{
        "id": made.id, "ws": item.ws, "item": item.id, "kind": item.kind, "source": item.source,
        "subject": item.source_id, "ask_id": item.source_id, "digest": item.question.digest, "option": "approve",
        "does": "approve", "title": item.data.title, "option_title": "Approve", "actors": votes,
        "opened_at": item.created_at, "decided_at": made.at, "undo_until": made.undo_until,
        "changed_at": made.changed_at, "revision": 7, "target_user_id": item.target_user_id,
        "target_role": item.target_role, **more,
    })
    item.question = msgspec.structs.replace(item.question, decision=made, attempts=attempt)
    item.state = "decided"
    return row
