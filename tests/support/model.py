"""The reference model: what the inbox must show for a set of source events and a clock, straight from the contract.

Nothing of attn is imported and nothing is incremental: every answer is computed from all events, so the order in which
they came cannot matter. Slow and plain on purpose. Times are microseconds since the epoch, as `us` reads them.

    model = Model(lines)                      # lines: dicts {"topic", "key", "value"} or their JSON
    view = model.at(clock)["ws_01"]           # View of one workspace
    view.ranked(Reader("u1", "OWNER"))        # open items in order; .counts, .activity, .drafts, .crewship alike
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

HOUR = 3_600_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BANDS = ("urgent", "high", "normal", "low")
TARGETS = {"urgent": HOUR // 4, "high": HOUR, "normal": 8 * HOUR, "low": 72 * HOUR}
BLOCKING = {"waitpoint", "session_waiting", "plan_approval", "pending_action"}
NOT_SHOWN = {"by_user_id", "action", "editor", "owner_user_id", "state"}

# type -> (kind, "open" | "update" | resolved_action); types whose content decides are in `_bearings`.
TABLE = {
    "waitpoint.created": ("waitpoint", "open"),
    "waitpoint.approved": ("waitpoint", "approved"),
    "waitpoint.rejected": ("waitpoint", "rejected"),
    "waitpoint.cancelled": ("waitpoint", "cancelled"),
    "waitpoint.expired": ("waitpoint", "expired"),
    "escalation.opened": ("escalation", "open"),
    "escalation.updated": ("escalation", "update"),
    "run.failed": ("failed_run", "open"),
    "run.retried": ("failed_run", "retried"),
    "run.recovered": ("failed_run", "recovered"),
    "run.cancelled": ("failed_run", "cancelled"),
    "message.posted": ("message", "open"),
    "message.withdrawn": ("message", "withdrawn"),
    "session.waiting": ("session_waiting", "open"),
    "session.resumed": ("session_waiting", "resumed"),
    "session.completed": ("session_waiting", "completed"),
    "session.failed": ("session_waiting", "failed"),
    "plan.proposed": ("plan_approval", "open"),
    "plan.approved": ("plan_approval", "approved"),
    "plan.rejected": ("plan_approval", "rejected"),
    "plan.superseded": ("plan_approval", "superseded"),
    "action.requested": ("pending_action", "open"),
    "action.confirmed": ("pending_action", "confirmed"),
    "action.declined": ("pending_action", "declined"),
    "action.expired": ("pending_action", "expired"),
    "draft.committed": ("draft_review", "committed"),
    "draft.discarded": ("draft_review", "discarded"),
    "task.blocked": ("blocked_task", "open"),
    "task.unblocked": ("blocked_task", "unblocked"),
    "session.verifying": ("verifying_no_proof", "open"),
}
ACTIVITY = {
    "session.completed": "sessions_completed",
    "plan.approved": "plans_approved",
    "action.confirmed": "actions_resolved",
    "action.declined": "actions_resolved",
}


def us(text: str) -> int:
    """RFC 3339 -> microseconds."""
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


@dataclass(frozen=True)
class Reader:
    user: str
    role: str

    def sees(self, target: tuple[str | None, str | None]) -> bool:
        user, role = target
        return (user is None and role is None) or user == self.user or role == self.role


@dataclass
class Item:
    """One item as any reader sees it; `shown` holds the data fields it displays."""

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
    grouped: bool = False  # an open incident stands for it
    clusters: list[str] = field(default_factory=list)
    members: list[str] = field(default_factory=list)  # source ids

    @property
    def key(self) -> tuple[str, ...]:
        """What tells items of a workspace apart: incidents of one name and different targets are different ones."""
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


@dataclass
class View:
    """One workspace at one clock."""

    clock: int
    items: dict[tuple[str, ...], Item]
    draft_rows: dict[str, Draft]
    activity_events: list[tuple[Event, tuple[str | None, str | None]]]

    def ranked(
        self, reader: Reader, pins: Collection[str] = (), ids: Mapping[tuple[str, ...], str] | None = None
    ) -> list[Item]:
        """The reader's list, most pressing first. `ids` (item key -> id) breaks what time does not."""
        mine = [item for item in self.items.values() if item.listed and reader.sees(item.target)]
        return sorted(mine, key=lambda i: (BANDS.index(i.band), not i.blocking, not i.pinned(pins), i.due_at,
                                           i.created_at, (ids or {}).get(i.key, "")))

    def counts(self, reader: Reader) -> dict[str, Any]:
        mine = self.ranked(reader)
        return {
            "total": len(mine),
            "unread": len(mine),
            "by_kind": dict(Counter(item.kind for item in mine)),
            "by_priority": dict(Counter(item.priority for item in mine)),
        }

    def crewship(self, reader: Reader) -> list[Item]:
        """Open and resolved, newest first, without what an incident stands for."""
        mine = [item for item in self.items.values() if not item.grouped and reader.sees(item.target)]
        return sorted(mine, key=lambda item: -item.created_at)

    def activity(self, reader: Reader, window: int = 24 * HOUR) -> dict[str, int]:
        found = Counter(
            ACTIVITY[event.type] for event, target in self.activity_events
            if reader.sees(target) and self.clock - window < event.time
        )
        return {name: found[name] for name in ("sessions_completed", "plans_approved", "actions_resolved")}

    def drafts(self, reader: Reader) -> list[Draft]:
        mine = [d for d in self.draft_rows.values()
                if d.in_progress and (d.owner == reader.user or ("user", reader.user) in d.editors)]
        return sorted(mine, key=lambda draft: -draft.last_touched_at)


class Model:
    def __init__(self, lines: Iterable[str | dict[str, Any]], proof_window: int = 24 * HOUR,
                 targets: Mapping[str, int] = TARGETS) -> None:
        self.proof_window, self.targets = proof_window, targets
        self.events: dict[str, list[Event]] = defaultdict(list)
        seen = set()
        for line in lines:
            event = _event(json.loads(line) if isinstance(line, str) else line)
            if (event.ws, event.source, event.id) not in seen:
                seen.add((event.ws, event.source, event.id))
                self.events[event.ws].append(event)

    def __len__(self) -> int:
        """How many distinct events."""
        return sum(map(len, self.events.values()))

    def at(self, clock: int, *workspaces: str) -> dict[str, View]:
        """The views of these workspaces, or of all, when the log's clock stands there."""
        return {
            ws: self._view(sorted(self.events[ws], key=lambda event: event.time), clock)
            for ws in workspaces or self.events
        }

    def _view(self, events: list[Event], clock: int) -> View:
        bearings: dict[tuple[str, str], list[tuple[str, Event]]] = defaultdict(list)
        for event in events:
            for kind, source_id, role in _bearings(event):
                bearings[kind, source_id].append((role, event))
        items = {}
        for (kind, source_id), borne in bearings.items():
            if item := self._mirror(kind, source_id, borne):
                items[item.key] = item
        drafts = _drafts(events)
        for draft_id, draft in drafts.items():
            if item := items.get(("draft_review", draft_id)):
                person = next((who for kind, who in draft.editors if kind == "user"), None)
                if draft.owner or person:
                    item.target = (draft.owner or person, None)
        items |= {item.key: item for item in self._proofs(events, clock)}
        items |= {item.key: item for item in _incidents(items.values())}
        for item in items.values():
            item.overdue = item.open and clock >= item.due_at
            item.band = BANDS[max(0, BANDS.index(item.priority) - item.overdue)]
        activity = []
        for event in events:
            if event.type in ACTIVITY:
                item = items.get((TABLE[event.type][0], event.subject))
                activity.append((event, item.target if item else _target(event.data)))
        return View(clock, items, drafts, activity)

    def _mirror(self, kind: str, source_id: str, borne: list[tuple[str, Event]]) -> Item | None:
        """The item of one source row; None while nothing has opened it. `borne` is by time."""
        opens = [event for role, event in borne if role == "open"]
        closes = [(event, role) for role, event in borne if role not in ("open", "update")]
        if not opens:
            return None
        base = opens[-1]
        shown = {name: value for name, value in base.data.items() if name not in NOT_SHOWN}
        for role, event in borne:
            if role == "update" and event.time > base.time:
                if event.names & {"target_user_id", "target_role"}:
                    shown.pop("target_user_id", None)
                    shown.pop("target_role", None)
                for name in event.nulls - {"title"}:  # an open item always has a title
                    shown.pop(name, None)
                shown |= {name: value for name, value in event.data.items() if name not in NOT_SHOWN}
        periods, started = _periods([e.time for e in opens], [e.time for e, _ in closes])
        item = self._item(kind, source_id, shown, started, periods)
        item.updated_at = max(event.time for _, event in borne)
        if closes and closes[-1][0].time >= base.time:
            close, action = closes[-1]
            by = close.data.get("by_user_id") or (close.data["editor"]["id"] if action == "edited" else None)
            item.state, item.resolved_at, item.resolved_action, item.resolved_by = "resolved", close.time, action, by
        return item

    def _item(self, kind: str, source_id: str, shown: dict[str, Any], started: int,
              periods: list[tuple[int, int | None]]) -> Item:
        priority = shown.get("priority", "normal")
        due = shown.get("due_at") or shown.get("expires_at")
        return Item(
            kind, source_id, shown, "unread", created_at=started, updated_at=started, periods=periods,
            due_at=us(due) if due else started + self.targets[priority], priority=priority,
            blocking=shown.get("blocking", kind in BLOCKING), target=_target(shown),
        )

    def _proofs(self, events: list[Event], clock: int) -> Iterable[Item]:
        """A proof opens by itself before it expires, unless it expired or the case got a newer one before."""
        newest = {e.subject: e for e in events if e.type == "proof.attached"}  # attached again: it counts from then
        for proof in newest.values():
            if "expires_at" not in proof.data:
                continue
            opened = max(us(proof.data["expires_at"]) - self.proof_window, proof.time)
            ends = [(e.time, "expired", e) for e in events
                    if e.type == "proof.expired" and e.subject == proof.subject and e.time >= proof.time][-1:]
            case = proof.data.get("case_id")
            newer = [(e.time, "attached", e) for e in newest.values() if case is not None
                     and e.data.get("case_id") == case and e.subject != proof.subject and e.time > proof.time]
            ends += sorted(newer, key=lambda one: one[0])[:1]
            if opened > clock or any(time <= opened for time, _, _ in ends):
                continue
            shown = {name: value for name, value in proof.data.items() if name not in NOT_SHOWN}
            item = self._item("proof_expiring", proof.subject, shown, opened, [])
            if ends:
                time, action, end = min(ends, key=lambda one: one[0])
                item.state, item.resolved_at, item.resolved_action = "resolved", time, action
                item.resolved_by = end.data.get("by_user_id") if action == "expired" else None
            item.updated_at = max([opened, *(time for time, _, _ in ends)])
            yield item


def _event(line: dict[str, Any]) -> Event:
    value = line["value"]
    data = value.get("data") or {}
    own_id = {"session": "session_id", "case": "case_id"}.get(value["type"].split(".")[0])
    if own_id and data.get(own_id) is None:
        data = {**data, own_id: value["subject"]}  # the subject is the session, the case
    return Event(
        value["workspaceid"], value["type"], value["subject"], us(value["time"]), value["source"], value["id"],
        {name: field for name, field in data.items() if field is not None},
        frozenset(name for name, field in data.items() if field is None),
    )


def _target(data: Mapping[str, Any]) -> tuple[str | None, str | None]:
    return data.get("target_user_id"), data.get("target_role")


def _bearings(event: Event) -> list[tuple[str, str, str]]:
    """[(kind, source id, "open" | "update" | "note" | resolved action)]: what an event says of which items."""
    subject = event.subject
    if event.type == "escalation.resolved":
        return [("escalation", subject, event.data.get("action") or "resolved")]
    if event.type == "draft.edited":
        return [("draft_review", subject, "open" if event.data["editor"]["type"] == "ai" else "edited")]
    if event.type == "case.state_changed":
        return [("blocked_case", subject, "open" if event.data["state"] == "BLOCKED" else "state_left")]
    if event.type == "proof.attached":
        session = event.data.get("session_id")
        return [("verifying_no_proof", session, "attached")] if session else []
    if event.type in ("proof.expired", "session.started"):
        return []
    kind, role = TABLE[event.type]
    return [(kind, subject, role)]


def _periods(opens: list[int], closes: list[int]) -> tuple[list[tuple[int, int | None]], int]:
    """When it was open, as [from, until) without the empty ones; and the start of the newest, empty or not."""
    periods: list[tuple[int, int | None]] = []
    start, started = None, 0
    for time, closing in sorted([(t, False) for t in opens] + [(t, True) for t in closes]):
        if not closing and start is None:
            start = started = time
        elif closing and start is not None:
            if start < time:
                periods.append((start, time))
            start = None
    return (periods if start is None else [*periods, (start, None)]), started


def _drafts(events: list[Event]) -> dict[str, Draft]:
    """Every draft that was edited; fields are of the newest event that names them."""
    found = {}
    by_draft: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        if event.type.startswith("draft."):
            by_draft[event.subject].append(event)
    for draft_id, of_draft in by_draft.items():
        edits = [event for event in of_draft if event.type == "draft.edited"]
        if not edits:
            continue
        done = max((event.time for event in of_draft if event.type != "draft.edited"), default=0)
        ai = max((event.time for event in edits if event.data["editor"]["type"] == "ai"), default=0)

        def newest(name: str, among: list[Event] = of_draft) -> Any:
            return next((event.data[name] for event in reversed(among) if name in event.data), None)

        editors = [(e.data["editor"]["type"], e.data["editor"]["id"]) for e in reversed(edits)]
        found[draft_id] = Draft(
            draft_id, newest("owner_user_id"), newest("title"), newest("cluster"), newest("stack"), edits[-1].time,
            ai > done, edits[-1].time > done, list(dict.fromkeys(editors)),
        )
    return found


def _incidents(items: Iterable[Item]) -> Iterable[Item]:
    """Groups of failed runs that were ever open on two clusters at once; marks the open members as grouped."""
    groups: dict[tuple[bool, str, str | None, str | None], list[Item]] = defaultdict(list)
    for item in items:
        shown = item.shown
        keyed = "incident_key" in shown
        name = (shown["incident_key"],) if keyed else (shown.get("pipeline"), shown.get("step"))
        if item.kind == "failed_run" and "cluster" in shown and any(part is not None for part in name):
            groups[keyed, "/".join(filter(None, name)), *item.target].append(item)
    for (_, name, *_), runs in groups.items():
        times = sorted({time for run in runs for period in run.periods for time in period if time is not None})
        on: tuple[int, int | None] | None = None  # the newest time it stood: from, until
        for time in times:
            there = [run for run in runs if any(a <= time and (b is None or time < b) for a, b in run.periods)]
            if on is not None and on[1] is None:
                if not there:
                    on = (on[0], time)
            elif len({run.shown["cluster"] for run in there}) > 1:
                on = (time, None)
        if on is None:
            continue
        since, ended = on
        members = [run for run in runs if run.open] if ended is None else []
        shown_by = members or [  # once it is over: those who took part
            run for run in runs if any(a < (ended or 0) and (b or 0) > since for a, b in run.periods)]
        incident = Item(
            "incident", name, {}, "unread" if ended is None else "resolved",
            created_at=since, due_at=min(run.due_at for run in shown_by),
            updated_at=ended or max([since, *(run.updated_at for run in runs)]),
            priority=min((run.priority for run in shown_by), key=BANDS.index),
            blocking=any(run.blocking for run in shown_by), target=runs[0].target, periods=[], resolved_at=ended,
            clusters=sorted({run.shown["cluster"] for run in shown_by}),
            members=sorted(run.source_id for run in members),
        )
        for run in members:
            run.grouped = True
        if ended is not None:
            ends = [run for run in runs if any(period[1] == ended for period in run.periods)]
            if len(ends) == 1:  # else any of those that closed at once may be named
                incident.resolved_action, incident.resolved_by = ends[0].resolved_action, ends[0].resolved_by
        yield incident
