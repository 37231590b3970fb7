"""Response models of the OpenAPI document.

`api.contract.serializers` and `api.readmodel.pages` encode the responses; tests validate them against these models. A
field with the default None is omitted if it has no value.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.contract.asking.question_models import ASK, Decided, Digest, ResolvedDeciders, VoteCast
from schemas.asking.ask import Ask
from schemas.sources import ROLES

__all__ = ["ERRORS", "Count", "Error", "InboxItem", "responses_of"]

State = Literal["unread", "read", "decided", "resolved"]
Priority = Literal["low", "normal", "high", "urgent"]
Count = Annotated[int, Field(ge=0)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Error(BaseModel):
    """An error response. Some errors have additional fields."""

    model_config = ConfigDict(extra="allow")
    error: str = Field(examples=["not found"])


class InboxItem(_Model):
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


class Step(_Model):
    """A step of a plan. `auto`: runs without confirmation."""

    title: str
    mode: Literal["auto", "confirm"]


class Plan(_Model):
    """A proposed plan, with the number of steps of each mode."""

    auto: Count
    confirm: Count
    steps: list[Step]


class Person(_Model):
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


class Counts(_Model):
    """Counts of the whole inbox, not of the page."""

    total: Count
    unread: Count
    by_kind: dict[str, Count]
    by_priority: dict[Priority, Count]


class ActivityEntry(_Model):
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


class Activity(_Model):
    """Counts and recent entries of a window of time."""

    window: str = Field(examples=["24h"])
    sessions_completed: Count
    plans_approved: Count
    actions_resolved: Count
    recent: list[ActivityEntry]


class PastEvent(_Model):
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


class CaseHistory(_Model):
    """One page of the events of a case."""

    case_id: str
    events: list[PastEvent] = Field(description="newest first")
    next: str | None = Field(None, description="token of the next page; omitted on the last page")


class Flow(_Model):
    """Items opened and closed within the window, and how long the closed ones had been open."""

    opened: Count
    closed: Count
    open: Count = Field(description="open items at the end of the window")
    median_seconds: float | None = None
    p90_seconds: float | None = None


class Series(_Model):
    """One number for each of `times`."""

    opened: list[Count]
    closed: list[Count]
    open: list[Count] = Field(description="open items at the end of each step")


class KindFlow(Flow):
    """Flow of one kind of item."""

    kind: str
    series: Series


class ClusterFlow(Flow):
    """Flow of one cluster."""

    cluster: str = Field(description="empty for items without a cluster")
    series: Series


class Resolver(_Model):
    """A user who closed items."""

    user_id: str
    closed: Count
    median_seconds: float | None = None
    by_kind: dict[str, Count]


class DecisionCounts(_Model):
    """Decisions and what became of them, each counted at its own time within the window."""

    made: Count = Field(description="decisions that people made")
    unseen: Count = Field(description="of these: the page of the person had not shown the item in full")
    quick: Count = Field(description="of these: the page had shown the item for less than three seconds")
    rubber_stamps: float | None = Field(None, description="share of `unseen` and `quick` in `made`")
    expired: Count = Field(description="questions whose time ran out, with or without a safe option")
    taken_back: Count
    applied: Count = Field(description="decisions that took effect at their source")
    refused: Count
    undeliverable: Count
    unconfirmed: Count = Field(description="decisions that came back because their source had not confirmed them")
    median_seconds_to_decide: float | None = Field(None, description="from the opening of the item to the decision")
    p90_seconds_to_decide: float | None = None
    median_seconds_to_apply: float | None = Field(None, description="from the decision to its effect")
    p90_seconds_to_apply: float | None = None


class KindDecisions(DecisionCounts):
    """Decisions about one kind of item."""

    kind: str


class Decider(_Model):
    """A user who voted or decided."""

    user_id: str
    made: Count = Field(description="decisions that this user's vote made")
    votes: Count = Field(description="all votes of this user")
    unseen: Count
    quick: Count
    rubber_stamps: float | None = None
    median_seconds_to_decide: float | None = None
    by_kind: dict[str, Count] = Field(description="decisions by kind of item")


class ReasonCount(_Model):
    """Why decisions were refused or not delivered."""

    state: Literal["refused", "undeliverable"]
    reason: str = Field(description="empty if none was given")
    count: Count


class Decisions(DecisionCounts):
    """Statistics of decisions."""

    kinds: list[KindDecisions] = Field(description="most decisions first")
    people: list[Decider] = Field(description="most decisions first, at most twenty")
    reasons: list[ReasonCount] = Field(description="most frequent first, at most ten")


class Insights(_Model):
    """Statistics of all items that the caller may see. A step is one hour, or one day in windows of more than three
    days."""

    window: str = Field(examples=["7d"])
    since: datetime = Field(description="start of the first step")
    until: datetime = Field(description="end of the last step, which is still in progress")
    step_seconds: Count
    times: list[datetime] = Field(description="start of each step")
    total: Flow
    kinds: list[KindFlow] = Field(description="busiest first")
    clusters: list[ClusterFlow] = Field(description="busiest first, at most twelve")
    people: list[Resolver] = Field(description="users who closed items, most closed items first, at most twenty")
    decisions: Decisions


class Inbox(_Model):
    """One page of the ranked list, with counts and recent activity of the whole inbox."""

    items: list[RankedItem]
    counts: Counts
    activity: Activity
    cursor: Count = Field(description="position of the state: equal cursors mean equal state on every edge")
    next: str | None = Field(None, description="token of the next page; omitted on the last page")


class Draft(_Model):
    """A draft in progress."""

    draft_id: str
    cluster: str | None = None
    stack: str | None = None
    title: str | None = None
    last_touched_at: datetime
    has_ai_edits: bool
    co_editors: list[Person]


class Drafts(_Model):
    """Recent drafts of the caller, most recently edited first."""

    drafts: list[Draft]


class Widget(_Model):
    """A widget of the overview."""

    id: str
    visible: bool


class UserPreferences(_Model):
    """Pinned clusters and widgets of a user, in layout order."""

    pinned_clusters: list[str]
    widgets: list[Widget]


class Dismissed(_Model):
    """Whether the caller dismissed the item, and until when it is snoozed."""

    id: str
    dismissed: bool
    dismissed_until: datetime | None = None


class InboxItems(_Model):
    """Items in Crewship's dialect."""

    rows: list[InboxItem]
    count: Count = Field(description="number of rows in this response")
    unread_count: Count


class UnreadCount(_Model):
    """Number of unread items."""

    unread_count: Count


class StateChanged(_Model):
    """The new state of an item."""

    id: str
    state: State


class BulkResult(_Model):
    """Result of a bulk state change. `skipped_ids`: items that only their source may resolve."""

    updated: Count
    skipped: Count
    skipped_ids: list[str]
    not_found: Count
    state: State


class ZeroItem(_Model):
    """An item in Zero's dialect."""

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
    """Items in Zero's dialect; `count` is the number of all open items."""

    items: list[ZeroItem]
    count: Count


class ZeroCount(_Model):
    """Number of unread items."""

    count: Count


class OwnWorkspace(_Model):
    """A workspace that the caller may enter, and the caller's role there."""

    id: str
    role: Literal[ROLES]  # type: ignore[valid-type]


class Me(_Model):
    """The caller, by the claims of the token or by the session. `workspaces`: of a token the one that it names."""

    user_id: str
    name: str | None = None
    workspace_id: str
    role: Literal[ROLES]  # type: ignore[valid-type]
    expires_at: datetime
    workspaces: list[OwnWorkspace]
    session_id: str | None = None


class SignInIssuer(_Model):
    name: str = Field(examples=["login.example.com"])


class SignInMethods(_Model):
    issuer: SignInIssuer | None = None


class SignedOut(_Model):
    logout_url: str | None = None


class SignedIn(_Model):
    user_id: str
    workspace_id: str
    role: Literal[ROLES]  # type: ignore[valid-type]


class StartedTerminal(_Model):
    """RFC 8628 section 3.2. `expires_in` and `interval` in seconds."""

    device_code: str
    user_code: str
    verification_uri: str
    expires_in: int
    interval: int


class TerminalSession(_Model):
    """RFC 6749 section 5.1. `access_token`: the session, for `Authorization: Bearer`."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in: int
    user_id: str
    workspace_id: str
    role: Literal[ROLES]  # type: ignore[valid-type]


class TerminalDetails(_Model):
    """Who asks. `device` is what the terminal says, `address` that of its connection, which may be a proxy."""

    device: str
    address: str
    expires_at: datetime


class TerminalAnswered(_Model):
    allowed: bool


class SessionEntry(_Model):
    """A session, without its text. `last_used`: begin of the newest hour in which it was used. `expires_at`: its end
    without further use. `current`: the request has this session."""

    id: str
    user_id: str
    name: str | None = None
    role: Literal[ROLES]  # type: ignore[valid-type]
    via: str = Field(description="how the user signed in", examples=["oidc"])
    device: str | None = Field(None, examples=["Firefox on Linux"])
    address: str | None = None
    created_at: datetime
    last_used: datetime
    expires_at: datetime
    current: bool


class SessionList(_Model):
    sessions: list[SessionEntry]


class EndedSessions(_Model):
    """Ids of the sessions that were ended."""

    ended: list[str]


class RevokedTokens(_Model):
    """What was revoked: the token with this `jti`, or those of `sub` that were issued before a time."""

    revoked: bool
    jti: str | None = None
    sub: str | None = None
    issued_before: datetime | None = None


class ReceiptSignature(_Model):
    """A signature of RFC 7515. `protected`: base64url of `{"alg":"EdDSA","kid","typ"}`."""

    protected: str
    signature: str = Field(description="base64url of the Ed25519 signature over `protected`, a dot, and `payload`")


class Receipt(_Model):
    """The receipt of a decision: a JWS in the general JSON serialisation (RFC 7515)."""

    payload: str = Field(description="base64url of canonical JSON: the question, the decision, the actors, the fence")
    signatures: list[ReceiptSignature]


class PublicKey(_Model):
    """An Ed25519 public key (RFC 8037). `kid`: its thumbprint (RFC 7638)."""

    alg: Literal["EdDSA"]
    crv: Literal["Ed25519"]
    kid: str
    kty: Literal["OKP"]
    use: Literal["sig"]
    x: str = Field(description="base64url of the 32 bytes of the key")


class KeySet(_Model):
    """A JWK set (RFC 7517). The first key signs; the others verify older receipts."""

    keys: list[PublicKey]


ERRORS = {
    400: "invalid request; the error names the field",
    401: "no token, or an invalid one",
    403: "not allowed for this role, or a write with the session cookie and without the CSRF header",
    404: "does not exist, or the caller may not see it",
    409: "only its source may resolve this item",
    410: "the sign-in link was used or has expired",
    412: "the item has another revision than If-Match; `item` is its current state",
    413: "the body is too large",
    422: "the Idempotency-Key was used for another request",
    429: "too many requests or connections; `limit` is the limit",
    503: "temporarily unavailable; retry after Retry-After seconds",
}
# 404: also of a session that names a workspace which it may not enter.
_EVERY_ROUTE = (400, 401, 404, 429, 503)
_EVERY_WRITE = (403, 413, 422, 429)


def responses_of(
    model: type[BaseModel] | None, *errors: int, status: int = 200, writes: bool = False
) -> dict[int | str, dict[str, Any]]:
    """Returns the argument `responses` of a route: its success response, `errors`, and the errors that every route has.
    `writes` adds the errors of every write."""
    codes = {*_EVERY_ROUTE, *errors, *(_EVERY_WRITE if writes else ())}
    errors_by_status: dict[int | str, dict[str, Any]] = {
        code: {"model": Error, "description": ERRORS[code]} for code in sorted(codes)
    }
    success: dict[str, Any] = {"model": model} if model is not None else {"description": "success, no content"}
    return {status: success, **errors_by_status}
