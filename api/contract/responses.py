"""What routes answer, as the OpenAPI document has it. `api.contract.serializers` and `api.readmodel.pages` make
answers, as bytes;
tests hold them against these models. Fields with a None here are left out where there is no value."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.sources import ROLES

__all__ = ["ERRORS", "Error", "responses_of"]

State = Literal["unread", "read", "resolved"]
Priority = Literal["low", "normal", "high", "urgent"]
Count = Annotated[int, Field(ge=0)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Error(BaseModel):
    """Whatever went wrong. Some errors say more, in fields of their own."""

    model_config = ConfigDict(extra="allow")
    error: str = Field(examples=["not found"])


class InboxItem(_Model):
    """An item as Crewship shows it."""

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
    revision: Count = Field(description="for If-Match")
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


class Step(_Model):
    title: str
    mode: Literal["auto", "confirm"]


class Plan(_Model):
    auto: Count
    confirm: Count
    steps: list[Step]


class Person(_Model):
    type: Literal["user", "ai"]
    id: str
    name: str | None = None


class RankedItem(InboxItem):
    """An item of the ranked list, with its rank and what is its source's own."""

    band: Priority
    due_at: datetime
    overdue: bool
    rank_reasons: list[str] = Field(examples=[["urgent", "blocking", "overdue", "pinned"]])
    rank: str = Field(description="sorts as the list does, as text; equal ones by id")
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
    clusters: list[str] | None = Field(None, description="of an incident")
    count: Count | None = Field(None, description="of an incident: open runs")
    members: list[str] | None = Field(None, description="of an incident: ids of its runs")
    dismissed_until: datetime | None = None


class Counts(_Model):
    """Of the whole inbox, whatever the page."""

    total: Count
    unread: Count
    by_kind: dict[str, Count]
    by_priority: dict[Priority, Count]


class ActivityEntry(_Model):
    type: str = Field(examples=["session.completed"])
    at: datetime
    item: str | None = Field(None, description="left out where no item ever opened")
    kind: str
    title: str | None = None
    cluster: str | None = None
    case_id: str | None = None
    session_id: str | None = None
    by_user_id: str | None = None


class Activity(_Model):
    window: str = Field(examples=["24h"])
    sessions_completed: Count
    plans_approved: Count
    actions_resolved: Count
    recent: list[ActivityEntry]


class PastEvent(_Model):
    """What the case's stream told of it, and more."""

    type: str = Field(examples=["case_state_changed"], description="as in the case's stream; dots are underscores")
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
    actor: str | None = Field(None, description="who did it")
    resolved_action: str | None = Field(None, description="how it closed the item")
    seconds_open: float | None = Field(None, description="how long the item had been open when this closed it")


class CaseHistory(_Model):
    case_id: str
    events: list[PastEvent] = Field(description="the newest first")
    next: str | None = Field(None, description="for the page after this one, if there is one")


class Flow(_Model):
    """Items opened and closed within the window, and how long those took that were closed."""

    opened: Count
    closed: Count
    open: Count = Field(description="at the end")
    median_seconds: float | None = None
    p90_seconds: float | None = None


class Series(_Model):
    """A number for each of `times`."""

    opened: list[Count]
    closed: list[Count]
    open: list[Count] = Field(description="at the end of each step")


class KindFlow(Flow):
    kind: str
    series: Series


class ClusterFlow(Flow):
    cluster: str = Field(description="empty: items of no cluster")
    series: Series


class Resolver(_Model):
    user_id: str
    closed: Count
    median_seconds: float | None = None
    by_kind: dict[str, Count]


class Insights(_Model):
    """All of what the caller may see, in steps of an hour, or of a day in windows beyond three days."""

    window: str = Field(examples=["7d"])
    since: datetime = Field(description="start of the first step")
    until: datetime = Field(description="end of the last step, which is still under way")
    step_seconds: Count
    times: list[datetime] = Field(description="start of each step")
    total: Flow
    kinds: list[KindFlow] = Field(description="the busiest first")
    clusters: list[ClusterFlow] = Field(description="the busiest first, twelve at most")
    people: list[Resolver] = Field(description="who closed items, those who closed most first, twenty at most")


class Inbox(_Model):
    items: list[RankedItem]
    counts: Counts
    activity: Activity
    cursor: Count = Field(description="the same number means the same state on every edge")
    next: str | None = Field(None, description="for the page after this one, if there is one")


class Draft(_Model):
    draft_id: str
    cluster: str | None = None
    stack: str | None = None
    title: str | None = None
    last_touched_at: datetime
    has_ai_edits: bool
    co_editors: list[Person]


class Drafts(_Model):
    drafts: list[Draft]


class Widget(_Model):
    id: str
    visible: bool


class UserPreferences(_Model):
    pinned_clusters: list[str]
    widgets: list[Widget]


class Dismissed(_Model):
    id: str
    dismissed: bool
    dismissed_until: datetime | None = None


class InboxItems(_Model):
    rows: list[InboxItem]
    count: Count = Field(description="of the rows in this answer")
    unread_count: Count


class UnreadCount(_Model):
    unread_count: Count


class StateChanged(_Model):
    id: str
    state: State


class BulkResult(_Model):
    updated: Count
    skipped: Count
    skipped_ids: list[str]
    not_found: Count
    state: State


class ZeroItem(_Model):
    id: str
    kind: str = Field(examples=["ask_user"])
    urgency: Literal["high", "medium", "low"]
    case_id: str | None = None
    case_title: str | None = None
    title: str
    description: str | None = None
    session_id: str | None = None
    action_url: str | None = None


class ZeroInbox(_Model):
    items: list[ZeroItem]
    count: Count


class ZeroCount(_Model):
    count: Count


class Me(_Model):
    user_id: str
    name: str | None = None
    workspace_id: str
    role: Literal[ROLES]  # type: ignore[valid-type]
    expires_at: datetime


ERRORS = {
    400: "the request is not what the route takes; the error names the field",
    401: "no caller, or a token that is not valid",
    403: "not for this role; or a write with the session cookie and without the CSRF header",
    404: "not there, or nothing you may see",
    409: "its source must decide this",
    412: "the item has changed since the revision named; `item` is what it is now",
    413: "the body is too large",
    422: "this Idempotency-Key was used for another request",
    429: "too many of these at once; `limit` says how many may be",
    503: "not now; Retry-After says when to ask again",
}
_EVERY_ROUTE = (400, 401, 429, 503)
_EVERY_WRITE = (403, 413, 422, 429)


def responses_of(
    model: type[BaseModel] | None, *errors: int, status: int = 200, writes: bool = False
) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route: what it answers, and which errors beside those that every route, or every write, has."""
    codes = {*_EVERY_ROUTE, *errors, *(_EVERY_WRITE if writes else ())}
    found: dict[int | str, dict[str, Any]] = {
        code: {"model": Error, "description": ERRORS[code]} for code in sorted(codes)
    }
    return {status: {"model": model} if model is not None else {"description": "done"}, **found}
