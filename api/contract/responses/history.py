"""Response models of the activity feed and of an item's history."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from api.contract.responses.base import Count, Priority, ResponseModel


class ActivityEntry(ResponseModel):
    """Something that was completed, approved or resolved."""

    type: str = Field(examples=["session.completed"])
    at: datetime
    item: str | None = Field(None, description="omitted if the activity never opened an item")
    kind: str
    title: str | None = None
    cluster: str | None = None
    case_id: str | None = None
    session_id: str | None = None
    by_user_id: str | None = None


class Activity(ResponseModel):
    """Counts and recent entries of a window of time."""

    window: str = Field(examples=["24h"])
    sessions_completed: Count
    plans_approved: Count
    actions_resolved: Count
    recent: list[ActivityEntry]


class PastEvent(ResponseModel):
    """An event of a case: the fields of its case event, and more."""

    type: str = Field(examples=["case_state_changed"], description="type as in the event stream of the case")
    at: datetime
    case_id: str
    state: str | None = None
    session_id: str | None = None
    task_id: str | None = None
    proof_id: str | None = None
    item: str | None = None
    kind: str | None = None
    priority: Priority | None = None
    title: str | None = None
    cluster: str | None = None
    stack: str | None = None
    actor: str | None = Field(None, description="user who caused the event")
    resolved_action: str | None = Field(None, description="action that closed the item")
    seconds_open: float | None = Field(None, description="seconds from opening to closing of the item")
    decision: str | None = Field(None, description="id of the decision that a vote, decision or report is about")
    option: str | None = None
    does: str | None = None
    reason: str | None = Field(None, description="why the decision was refused or not delivered")
    role: str | None = Field(None, description="role in which the actor decided")
    seconds_to_decide: float | None = None
    seconds_to_apply: float | None = None


class CaseHistory(ResponseModel):
    """One page of the events of a case."""

    case_id: str
    events: list[PastEvent] = Field(description="newest first")
    next: str | None = Field(None, description="token of the next page; omitted on the last page")
