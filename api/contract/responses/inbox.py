"""Response models of drafts, preferences and changes of state, and of the routes of Zero."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from api.contract.responses.base import Count, ResponseModel, State
from api.contract.responses.items import Person


class Draft(ResponseModel):
    """A draft in progress."""

    draft_id: str
    cluster: str | None = None
    stack: str | None = None
    title: str | None = None
    last_touched_at: datetime
    has_ai_edits: bool
    co_editors: list[Person]


class Drafts(ResponseModel):
    """Recent drafts of the caller, most recently edited first."""

    drafts: list[Draft]


class Widget(ResponseModel):
    """A widget of the overview."""

    id: str
    visible: bool


class UserPreferences(ResponseModel):
    """Pinned clusters and widgets of a user, in layout order."""

    pinned_clusters: list[str]
    widgets: list[Widget]


class Dismissed(ResponseModel):
    """Whether the caller dismissed the item, and until when it is snoozed."""

    id: str
    dismissed: bool
    dismissed_until: datetime | None = None


class StateChanged(ResponseModel):
    """The new state of an item."""

    id: str
    state: State


class BulkResult(ResponseModel):
    """Result of a bulk state change. `skipped_ids`: items that only their source may resolve."""

    updated: Count
    skipped: Count
    skipped_ids: list[str]
    not_found: Count
    state: State


class ZeroItem(ResponseModel):
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


class ZeroInbox(ResponseModel):
    """Items in Zero's dialect; `count` is the number of all open items."""

    items: list[ZeroItem]
    count: Count


class ZeroCount(ResponseModel):
    """Number of unread items."""

    count: Count
