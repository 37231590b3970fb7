"""Response models of items, and of lists and counts of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from api.contract.asking.question_models import ASK, Decided, Digest, ResolvedDeciders, VoteCast
from api.contract.responses.base import Count, Priority, ResponseModel, State
from api.contract.responses.history import Activity
from schemas.asking.ask import Ask


class InboxItem(ResponseModel):
    """An item in Crewship's dialect."""

    id: str = Field(examples=["ibx_6d0f5a8c1b2e4f7a9c3d5e7f1a2b3c4d"])
    workspace_id: str
    kind: str = Field(examples=["waitpoint"])
    source_id: str = Field(examples=["wp_tok_abc"])
    title: str
    state: State
    priority: Priority
    blocking: bool
    created_at: datetime
    updated_at: datetime
    revision: Count = Field(description="increases with each change; send it as If-Match")
    target_user_id: str | None = None
    target_role: str | None = None
    body_md: str | None = None
    sender_type: str | None = None
    sender_id: str | None = None
    sender_name: str | None = None
    payload: dict[str, Any] | None = None
    read_at: datetime | None = None
    resolved_at: datetime | None = None
    resolved_by_user_id: str | None = None
    resolved_action: str | None = None
    source: str | None = Field(None, description="CloudEvents source of the event that asked; only if the item asks")
    ask: Ask | None = Field(None, description="what a person is asked (CONTRACT §7); only if the item asks",
                            examples=[ASK])
    digest: Digest | None = None
    deciders: ResolvedDeciders | None = None
    votes: list[VoteCast] | None = Field(None, description="of people whose answer has not decided the question")
    needed: Count | None = Field(None, description="votes that the most advanced answer still needs; with a quorum")
    decision: Decided | None = None


class Step(ResponseModel):
    """A step of a plan. `auto`: runs without confirmation."""

    title: str
    mode: Literal["auto", "confirm"]


class Plan(ResponseModel):
    """A proposed plan, with the number of steps of each mode."""

    auto: Count
    confirm: Count
    steps: list[Step]


class Person(ResponseModel):
    """A user or an AI agent."""

    type: Literal["user", "ai"]
    id: str
    name: str | None = None


class RankedItem(InboxItem):
    """An item of the ranked list: its rank, and the fields of its kind."""

    band: Priority
    due_at: datetime | None = Field(None, description="omitted for a message that asks nothing: never due")
    overdue: bool
    rank_reasons: list[str] = Field(
        description="the band, then why a decision came back (refused, undeliverable, unconfirmed), overdue, blocking, "
                    "pinned", examples=[["urgent", "overdue", "blocking", "pinned"]])
    rank: str = Field(description="sort key of the list: compare as text, then by id")
    cluster: str | None = None
    stack: str | None = None
    conversation_id: str | None = None
    case_id: str | None = None
    case_title: str | None = None
    session_id: str | None = None
    action_url: str | None = None
    expires_at: datetime | None = None
    risk: Literal["low", "medium", "high", "critical"] | None = None
    reversible: bool | None = None
    pipeline: str | None = None
    step: str | None = None
    error: str | None = None
    incident_key: str | None = None
    task_id: str | None = None
    proof_id: str | None = None
    plan: Plan | None = None
    editor: Person | None = None
    clusters: list[str] | None = Field(None, description="incidents: clusters of the grouped runs")
    count: Count | None = Field(None, description="incidents: number of open runs")
    members: list[str] | None = Field(None, description="incidents: ids of the grouped runs")
    dismissed_until: datetime | None = None


class Counts(ResponseModel):
    """Counts of the whole inbox, not of the page."""

    total: Count
    unread: Count
    by_kind: dict[str, Count]
    by_priority: dict[Priority, Count]


class Inbox(ResponseModel):
    """One page of the ranked list, with counts and recent activity of the whole inbox."""

    items: list[RankedItem]
    counts: Counts
    activity: Activity
    cursor: Count = Field(description="position of the state: equal cursors mean equal state on every edge")
    next: str | None = Field(None, description="token of the next page; omitted on the last page")


class InboxItems(ResponseModel):
    """Items in Crewship's dialect."""

    rows: list[InboxItem]
    count: Count = Field(description="number of rows in this response")
    unread_count: Count


class UnreadCount(ResponseModel):
    """Number of unread items."""

    unread_count: Count
