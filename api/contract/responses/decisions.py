"""Response models of the decision routes, with an example for each status of CONTRACT §7."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import ConfigDict, Field

from api.contract.asking.question_models import Decided, DecisionState, Digest, Returned, VoteCast
from api.contract.responses.base import ERRORS, Count, Error, ResponseModel, responses_of
from api.contract.responses.items import InboxItem
from schemas.asking.ask import Does

__all__ = [
    "AlreadyDecided", "Decisions", "DecisionsMade", "TakenBack", "decision_responses",
]

_VOTE: dict[str, Any] = {"user": "bob", "name": "Bob", "role": "ADMIN", "at": "2026-05-20T08:20:00Z", "vote": "approve"}
_MADE: dict[str, Any] = {
    "id": "dec_5f0c7a9be1d24f6f8a3b1c2d3e4f5a6b", "option": "approve", "does": "approve", "state": "made",
    "at": "2026-05-20T08:20:00Z", "undo_until": "2026-05-20T08:20:05Z", "actors": [_VOTE],
}


class DecisionMade(ResponseModel):
    """The decision."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"decision": _MADE}]})
    decision: Decided


class VoteCounted(ResponseModel):
    """The votes so far, and how many more the most advanced answer needs."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"votes": [_VOTE], "needed": 1}]})
    votes: list[VoteCast]
    needed: Count


class AlreadyDecided(Error):
    """Another answer decided, or the item asks nothing. `decision`: what, who, when."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [
        {"error": "somebody else decided", "decision": _MADE}]})
    decision: Decided | None = None
    kind: str | None = Field(None, description="kind of an item that asks nothing")


class QuestionClosed(Error):
    """The question expired, or its source closed it. `decision`: how it expired."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [
        {"error": "its source closed or withdrew the question"}]})
    decision: Decided | None = None


class QuestionChanged(Error):
    """The question is another one than the caller saw. `item`: with the question of now."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [
        {"error": "the question has changed since you saw it", "digest": "1f4c0a" + "9d" * 29}]})
    digest: Digest
    item: InboxItem | None = None


class AnswerRefused(Error):
    """The answer does not fit the question; `fields` has an error for each field by its path. Also: the
    Idempotency-Key was used for another request."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [
        {"error": "the answer does not fit the question", "fields": {"form.reason": "required"}}]})
    fields: dict[str, str] | None = Field(None, description="`option`, `comment`, `form.NAME`, `args.NAME`")


class TakenBack(DecisionMade):
    """The decision that was taken back; its item asks again."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [
        {"decision": {**_MADE, "state": "taken_back"}}]})


class DecisionsMade(ResponseModel):
    """Result of one option for many items."""

    decided: Count = Field(description="items whose question is decided by this option")
    voted: Count = Field(description="items whose question needs more votes")
    skipped: Count
    skipped_ids: list[str] = Field(description=(
        "items without this option, with a form, that this caller may not decide, or that somebody else decided"))
    changed: Count
    changed_ids: list[str] = Field(description="items that changed since the client saw them")
    not_found: Count
    option: str


class QuestionOf(ResponseModel):
    """The question that was decided. `id`: the source's own handle of it."""

    id: str
    digest: Digest


class DecisionEntry(ResponseModel):
    """A decision with its question, and what became of it."""

    id: str = Field(examples=["dec_5f0c7a9be1d24f6f8a3b1c2d3e4f5a6b"])
    state: DecisionState
    item: str = Field(examples=["ibx_6d0f5a8c1b2e4f7a9c3d5e7f1a2b3c4d"])
    kind: str = Field(examples=["waitpoint"])
    source: str = Field(description="CloudEvents source of the event that asked")
    source_id: str
    question: QuestionOf
    opened_at: datetime
    at: datetime = Field(description="when it was decided")
    undo_until: datetime
    changed_at: datetime = Field(description="when `state` began")
    actors: list[VoteCast]
    confirm: bool = Field(description="whether the source has to confirm that it took effect")
    title: str | None = None
    cluster: str | None = None
    option: str | None = None
    does: Does | None = None
    option_title: str | None = None
    form: dict[str, Any] | None = None
    args: dict[str, Any] | None = Field(None, description="all arguments of an edited action")
    edited: list[str] | None = Field(None, description="JSON pointers of the arguments that a person changed")
    comment: str | None = None
    returned: Returned | None = None
    reason: str | None = None
    expires_at: datetime | None = None
    delivered_at: datetime | None = None
    to: str | None = Field(None, description="name of the endpoint that receives it")
    batch: str | None = None


class Decisions(ResponseModel):
    """One page of decisions, newest first."""

    decisions: list[DecisionEntry]
    cursor: Count = Field(description="position of the state: equal cursors mean equal state on every edge")
    next: str | None = Field(None, description="token of the next page; omitted on the last page")


_OF_VOTES: dict[int | str, dict[str, Any]] = {
    200: {"model": DecisionMade | VoteCounted, "description": "the same again by the same person"},
    201: {"model": DecisionMade, "description": "this vote made the decision"},
    202: {"model": VoteCounted, "description": "the vote counts, more are needed"},
    403: {"model": Error, "description": "the caller sees the item but may not decide it, or the CSRF header is wrong"},
    404: {"model": Error, "description": ERRORS[404]},
    409: {"model": AlreadyDecided, "description": "another answer decided; or the item asks nothing"},
    410: {"model": QuestionClosed, "description": "the question expired or was withdrawn, or its source is gone"},
    412: {"model": QuestionChanged, "description": "the question changed since the caller saw it; `item` is current"},
    422: {"model": AnswerRefused, "description": "option, form, args or comment do not fit the question"},
}


def decision_responses() -> dict[int | str, dict[str, Any]]:
    """Returns the argument `responses` of a route that casts a vote."""
    return {**responses_of(DecisionMade, writes=True), **_OF_VOTES}
