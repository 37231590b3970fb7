"""The state of one question: its votes and its decision (CONTRACT §7). Rows of the view embed these structs."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["CLOSED_STATES", "Closing", "Decision", "DecisionState", "Question", "Vote"]

DecisionState = Literal["made", "sending", "applied", "refused", "undeliverable", "taken_back", "expired"]
# The question ended without a person's decision: its source closed or withdrew it, or its time ran out.
Closing = Literal["withdrawn", "expired"]
# A decision in one of these states is final: nothing changes it any more.
CLOSED_STATES: frozenset[DecisionState] = frozenset(("applied", "taken_back", "expired"))


class Vote(msgspec.Struct, frozen=True, omit_defaults=True):
    """One person's answer. `at`: microseconds of the log's clock. `form` and `args` are JSON text, `{}` if absent."""

    user: str
    role: str
    at: int
    option: str
    does: str
    name: str | None = None
    form: bytes = b""
    args: bytes = b""
    comment: str | None = None

    def same_answer(self, other: Vote) -> bool:
        """Whether both votes approve the same thing: option, form and arguments. Comments may differ."""
        return (self.option, self.form, self.args) == (other.option, other.form, other.args)


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
    """`digest` identifies the question: what was shown. Votes are of people who have not been outvoted or decided."""

    digest: str
    opened_at: int
    votes: tuple[Vote, ...] = ()
    decision: Decision | None = None
    closing: Closing | None = None
