"""Response models of `GET /org/me/insights`."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from api.contract.responses.base import Count, ResponseModel


class Flow(ResponseModel):
    """Items opened and closed within the window, and how long the closed ones had been open."""

    opened: Count
    closed: Count
    open: Count = Field(description="open items at the end of the window")
    median_seconds: float | None = None
    p90_seconds: float | None = None


class Series(ResponseModel):
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


class Resolver(ResponseModel):
    """A user who closed items."""

    user_id: str
    closed: Count
    median_seconds: float | None = None
    by_kind: dict[str, Count]


class DecisionCounts(ResponseModel):
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


class Decider(ResponseModel):
    """A user who voted or decided."""

    user_id: str
    made: Count = Field(description="decisions that this user's vote made")
    votes: Count = Field(description="all votes of this user")
    unseen: Count
    quick: Count
    rubber_stamps: float | None = None
    median_seconds_to_decide: float | None = None
    by_kind: dict[str, Count] = Field(description="decisions by kind of item")


class ReasonCount(ResponseModel):
    """Why decisions were refused or not delivered."""

    state: Literal["refused", "undeliverable"]
    reason: str = Field(description="empty if none was given")
    count: Count


class DecisionStatistics(DecisionCounts):
    """Statistics of decisions."""

    kinds: list[KindDecisions] = Field(description="most decisions first")
    people: list[Decider] = Field(description="most decisions first, at most twenty")
    reasons: list[ReasonCount] = Field(description="most frequent first, at most ten")


class Insights(ResponseModel):
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
    decisions: DecisionStatistics
