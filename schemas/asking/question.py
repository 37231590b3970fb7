"""The state of a question and of its decision (CONTRACT §7). `schemas.views.ItemRow` contains the question; each
decision has a row of its own, so that it outlives its item's next question.

All times are microseconds of the log's clock. JSON values that people or
sources wrote are kept as text (`msgspec.Raw`), so that numbers keep their digits; `NO_PAYLOAD` stands for none.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from schemas.log import NO_PAYLOAD

__all__ = [
    "CLOSED_STATES", "BatchRow", "Closing", "Decision", "DecisionRow", "DecisionState", "Question", "Returned", "Vote",
]

DecisionState = Literal["made", "sending", "applied", "refused", "undeliverable", "taken_back", "expired"]
# The question ended without a person's decision: its source closed or withdrew it, or its time ran out.
Closing = Literal["withdrawn", "expired"]
# Why a decided item is back in the list.
Returned = Literal["refused", "undeliverable", "unconfirmed"]
# A decision in one of these states is final: nothing changes it any more.
CLOSED_STATES: frozenset[DecisionState] = frozenset(("applied", "taken_back", "expired"))


class Vote(msgspec.Struct, frozen=True, omit_defaults=True):
    """One person's answer. `viewed`: for how many seconds their page had shown the item in full, if it had."""

    user: str
    role: str
    at: int
    option: str
    does: str
    name: str | None = None
    form: msgspec.Raw = NO_PAYLOAD
    args: msgspec.Raw = NO_PAYLOAD
    comment: str | None = None
    viewed: float | None = None

    def same_answer(self, other: Vote) -> bool:
        """Whether both votes approve the same thing: option, form and arguments. Comments may differ."""
        return (self.option == other.option and bytes(self.form) == bytes(other.form)
                and bytes(self.args) == bytes(other.args))


class Decision(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was decided. `actors`: the votes that made it, in the log's order; empty if the ask expired to an option."""

    id: str
    option: str
    does: str
    at: int
    undo_until: int
    state: DecisionState
    actors: tuple[Vote, ...] = ()
    reason: str | None = None  # why the source refused it, or why it was not delivered
    changed_at: int = 0  # when `state` was entered


class Question(msgspec.Struct, frozen=True, omit_defaults=True):
    """`digest` identifies the question: what was shown. `votes`: of people whose answer has not decided it.

    `attempts`: earlier decisions of the same question, which the source refused or a person took back. `returned`: why
    the item is back in the list although it was decided. `final`: digest of the opening event when the decision became
    final: a newer opening event asks anew. `batch`: row key of its batch.
    """

    digest: str
    votes: tuple[Vote, ...] = ()
    decision: Decision | None = None
    closing: Closing | None = None
    attempts: int = 0
    returned: Returned | None = None
    final: str | None = None
    batch: str | None = None


class DecisionRow(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One decision, row `c:{id}` of the view: what `GET /org/me/decisions`, receipts and the topic `decisions` show.

    `option` is empty if the question expired without one. `revision`: the log position that made it, which with the
    workspace's partition is its fence. `sealed`: the reply token as `streams.core.sealing` sealed it. `published`:
    whether its `decision.made` is in the topic; a batch holds it back until each of its questions is decided.
    """

    id: str
    ws: str
    item: str
    kind: str
    source: str
    subject: str
    ask_id: str
    digest: str
    option: str = ""
    does: str = ""
    title: str | None = None
    cluster: str | None = None
    option_title: str | None = None
    form: msgspec.Raw = NO_PAYLOAD
    args: msgspec.Raw = NO_PAYLOAD
    edited: tuple[str, ...] = ()  # JSON pointers of the arguments that a person changed
    comment: str | None = None
    actors: tuple[Vote, ...] = ()
    opened_at: int = 0
    decided_at: int = 0
    undo_until: int = 0
    expires_at: int | None = None
    state: DecisionState = "made"
    returned: Returned | None = None
    reason: str | None = None
    changed_at: int = 0
    delivered_at: int | None = None
    revision: int = 0
    reply_to: str | None = None
    sealed: str | None = None
    confirm: bool = True
    batch: str | None = None
    members: tuple[str, ...] = ()  # of an incident: the source ids of its open runs
    published: bool = False
    target_user_id: str | None = None
    target_role: str | None = None
    rev: int = 0
    touched: int = 0
    wake: int | None = None


class BatchRow(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Open questions of one `ask.batch.key`, row `b:{digest}`, for the fold only. `items`: ids in order of arrival.

    `held`: decisions that wait until no question of the batch is undecided.
    """

    ws: str
    items: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    touched: int = 0
    wake: int | None = None
