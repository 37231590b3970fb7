"""Models of questions, votes and decisions (CONTRACT §7), which items and the responses of decision routes contain."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.asking.ask import Does

__all__ = ["ASK", "Decided", "DecisionState", "Digest", "ResolvedDeciders", "Returned", "VoteCast"]

DecisionState = Literal["made", "sending", "applied", "refused", "undeliverable", "taken_back", "expired"]
Returned = Literal["refused", "undeliverable", "unconfirmed"]
Digest = Annotated[str, Field(examples=["1f4c0a" + "9d" * 29], description=(
    "SHA-256 in hex of the canonical JSON (RFC 8785) of `{workspace, source, subject, title, body, ask}`: the item's "
    "`workspace_id`, `source`, `source_id`, `title`, `body_md` (null if absent) and `ask`"))]
ASK: dict[str, Any] = {
    "options": [{"id": "approve", "does": "approve", "title": "Approve", "style": "primary"},
                {"id": "reject", "does": "reject", "title": "Reject", "style": "danger", "comment": "required"}],
    "action": {"name": "deploy", "args": {"service": "payments-api", "version": "2.4.1"}, "risk": "high"},
    "quorum": {"approve": 2},
}


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class VoteCast(_Model):
    """One person's answer. `vote`: the id of the option that they chose."""

    user: str = Field(examples=["ann"])
    name: str | None = Field(None, examples=["Ann Example"])
    role: str = Field(examples=["ADMIN"])
    at: datetime
    vote: str = Field(examples=["approve"])
    comment: str | None = None


class Decided(_Model):
    """The decision of a question. `state` says what became of it: decided is not applied."""

    id: str = Field(examples=["dec_5f0c7a9be1d24f6f8a3b1c2d3e4f5a6b"])
    option: str | None = Field(None, examples=["approve"], description="omitted if nobody decided in time")
    does: Does | None = None
    state: DecisionState = Field(description=(
        "`made`: may be taken back until `undo_until`; `sending`: on its way to the source; `applied`: took effect; "
        "`refused` by the source; `undeliverable`; `taken_back`; `expired`: nobody decided in time"))
    at: datetime
    undo_until: datetime
    actors: list[VoteCast] = Field(description="who decided, in the order of their votes; empty if it expired")
    reason: str | None = Field(None, description="why the source refused it, or why it was not delivered")
    returned: Returned | None = Field(None, description="why the item is open again although it was decided")


class ResolvedDeciders(_Model):
    """Who may decide, of those who see the item: one of `users` or of `roles`, and none of `excluded`."""

    users: list[str]
    roles: list[str] = Field(examples=[["ADMIN", "OWNER"]])
    excluded: list[str] = Field(description="user ids")
