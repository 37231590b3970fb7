"""Types of the reference model: events, readers, items, drafts. Times are microseconds, as `us` reads them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

__all__ = [
    "BANDS", "BLOCKING", "EPOCH", "HOUR", "NOT_SHOWN", "TARGETS", "Draft", "Event", "Item", "Reader", "event_of",
    "target_of", "us",
]

HOUR = 3_600_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BANDS = ("urgent", "high", "normal", "low")
TARGETS = {"urgent": HOUR // 4, "high": HOUR, "normal": 8 * HOUR, "low": 72 * HOUR}
BLOCKING = {"waitpoint", "session_waiting", "plan_approval", "pending_action"}
NOT_SHOWN = {"by_user_id", "action", "editor", "owner_user_id", "state"}


def us(text: str) -> int:
    """Converts RFC 3339 to microseconds since the epoch."""
    return (datetime.fromisoformat(text.upper().replace("Z", "+00:00")) - EPOCH) // timedelta(microseconds=1)


@dataclass(frozen=True)
class Event:
    ws: str
    type: str
    subject: str
    time: int
    source: str
    id: str
    data: Mapping[str, Any]  # without nulls
    nulls: frozenset[str]  # fields named with null

    @property
    def names(self) -> set[str]:
        return set(self.data) | self.nulls


def event_of(line: dict[str, Any]) -> Event:
    value = line["value"]
    data = value.get("data") or {}
    own_id = {"session": "session_id", "case": "case_id"}.get(value["type"].split(".")[0])
    if own_id and data.get(own_id) is None:
        data = {**data, own_id: value["subject"]}  # the subject is the id of the session or case
    return Event(
        value["workspaceid"], value["type"], value["subject"], us(value["time"]), value["source"], value["id"],
        {name: field for name, field in data.items() if field is not None},
        frozenset(name for name, field in data.items() if field is None),
    )


def target_of(data: Mapping[str, Any]) -> tuple[str | None, str | None]:
    return data.get("target_user_id"), data.get("target_role")


@dataclass(frozen=True)
class Reader:
    user: str
    role: str

    def sees(self, target: tuple[str | None, str | None]) -> bool:
        user, role = target
        return (user is None and role is None) or user == self.user or role == self.role


@dataclass
class Item:
    """One item as readers see it. `shown` has its visible data fields."""

    kind: str
    source_id: str  # of an incident: its incident key, or pipeline/step
    shown: dict[str, Any]
    state: str
    created_at: int
    due_at: int
    updated_at: int
    priority: str
    blocking: bool
    target: tuple[str | None, str | None]
    periods: list[tuple[int, int | None]]  # when it was open, [from, until)
    resolved_at: int | None = None
    resolved_action: str | None = None
    resolved_by: str | None = None
    overdue: bool = False
    band: str = "normal"
    grouped: bool = False  # it is a member of an open incident
    clusters: list[str] = field(default_factory=list)
    members: list[str] = field(default_factory=list)  # source ids

    @property
    def key(self) -> tuple[str, ...]:
        """Identifies the item in its workspace. Incidents with one name and different targets are different items."""
        target = tuple(part or "" for part in self.target) if self.kind == "incident" else ()
        return self.kind, self.source_id, *target

    @property
    def open(self) -> bool:
        return self.state == "unread"

    @property
    def listed(self) -> bool:
        return self.open and not self.grouped

    def pinned(self, pins: Collection[str]) -> bool:
        return bool({self.shown.get("cluster"), *self.clusters} & set(pins))

    @property
    def action_url(self) -> str | None:
        case, session = self.shown.get("case_id"), self.shown.get("session_id")
        default = case and (f"/cases/{case}/sessions/{session}" if session else f"/cases/{case}")
        return self.shown.get("action_url") or default


@dataclass
class Draft:
    draft_id: str
    owner: str | None
    title: str | None
    cluster: str | None
    stack: str | None
    last_touched_at: int
    has_ai_edits: bool
    in_progress: bool
    editors: list[tuple[str, str]]  # (type, id), newest first
