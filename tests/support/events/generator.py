"""Random valid source events of every type: from a seed (`generate`) or from another `Pick` (`event`, `untied`).

There are few workspaces, subjects, users and times. Events therefore collide: several opens and closes of one subject,
an open and a close at the same time, a draft edited by several users. Ties that the contract does not decide are
removed: two events with the same role for one item at one time.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

from schemas.topics import SOURCE_TYPES, TOPIC_OF_TYPE

T = TypeVar("T")
Line = dict[str, Any]

START = datetime(2026, 5, 20, 0, 0, tzinfo=UTC)
SLOTS, SLOT = 160, timedelta(minutes=30)  # times of events: 80 hours
END = START + SLOTS * SLOT
WORKSPACES = ("ws_01", "ws_02")
USERS = ("ann", "bob", "cy")
ROLES = ("OWNER", "MANAGER", "MEMBER")
CLUSTERS = ("prod-eu", "prod-us", "edge-1")
OPENING = {
    "waitpoint.created", "escalation.opened", "run.failed", "message.posted", "session.waiting", "plan.proposed",
    "action.requested", "task.blocked", "session.verifying",
}
PREFIX = {"waitpoints": "wp", "escalations": "esc", "run-failures": "run", "messages": "msg", "sessions": "ses",
          "plans": "plan", "actions": "act", "drafts": "draft"}


class Pick(Protocol):
    """Source of random choices."""

    def one(self, options: Sequence[T]) -> T: ...
    def number(self, low: int, high: int) -> int: ...


class Seeded:
    """`Pick` from a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def one(self, options: Sequence[T]) -> T:
        return options[self._random.randrange(len(options))]

    def number(self, low: int, high: int) -> int:
        return self._random.randint(low, high)


def event(
    pick: Pick, *, types: Sequence[str] | None = None, subjects: int = 2, workspaces: Sequence[str] = WORKSPACES,
    start: datetime = START,
) -> Line:
    """Returns one line {"topic", "key", "value"}. The caller sets the event's `id`."""
    kind = pick.one(types or [name for names in SOURCE_TYPES.values() for name in names])
    topic = TOPIC_OF_TYPE[kind]
    number = pick.number(1, subjects)
    at = start + SLOT * pick.number(0, SLOTS - 1)
    data = _data(pick, kind, number, at, start)
    value: dict[str, Any] = {
        "specversion": "1.0", "id": "", "source": f"/{topic}", "type": kind, "subject": _subject(kind, number),
        "time": _text(pick, at), "workspaceid": pick.one(workspaces),
    }
    if data or pick.number(0, 1):
        value["data"] = data
    return {"topic": topic, "key": pick.one((None, value["workspaceid"], "k")), "value": value}


def _text(pick: Pick, at: datetime) -> str:
    """Returns the time as RFC 3339, in one of its usual spellings."""
    return pick.one((
        at.isoformat().replace("+00:00", "Z"),
        at.astimezone(tz=None).astimezone(UTC).isoformat(),
        (at + timedelta(hours=2)).replace(tzinfo=None).isoformat() + ".000+02:00",
    ))


def _subject(kind: str, number: int) -> str:
    if kind == "case.state_changed":
        return f"case_{number}"
    if kind.startswith("task."):
        return f"task_{number}"
    if kind == "session.verifying":
        return f"ses_{number}"
    if kind.startswith("proof."):
        return f"proof_{number}"
    return f"{PREFIX[TOPIC_OF_TYPE[kind]]}_{number}"


def _maybe(pick: Pick, data: dict[str, Any], make: dict[str, Callable[[], Any]], odds: int) -> None:
    """Sets each field with a chance of 1 in `odds`."""
    for name, value in make.items():
        if pick.number(1, odds) == odds:
            data[name] = value()


def _shown(pick: Pick, kind: str, at: datetime) -> dict[str, Callable[[], Any]]:
    when = lambda: (at + SLOT * pick.number(-4, 40)).isoformat()  # noqa: E731
    return {
        "priority": lambda: pick.one(("low", "normal", "high", "urgent")),
        "blocking": lambda: pick.one((True, False)),
        "target_user_id": lambda: pick.one(USERS),
        "target_role": lambda: pick.one(ROLES),
        "cluster": lambda: pick.one(CLUSTERS),
        "stack": lambda: pick.one(("web", "db")),
        "body_md": lambda: pick.one(("", "**why**", "größer 🚀")),
        "due_at": when,
        "expires_at": when,
        "payload": lambda: pick.one(({}, {"n": 1}, {"a": [1.0, {"b": None}], "ü": "🙂"})),
        "sender": lambda: {"type": "agent", "id": pick.one(("ag_1", "ag_2")), "name": "Daniel"},
        "conversation_id": lambda: pick.one(("conv_1", "conv_2")),
        "case_id": lambda: pick.one(("case_1", "case_2")),
        "case_title": lambda: pick.one(("One", "Two")),
        "session_id": lambda: pick.one(("ses_1", "ses_2")),
        "action_url": lambda: "https://example.com/x",
        "newer_than_the_schema": lambda: {"x": 1},
    }


def _data(pick: Pick, kind: str, number: int, at: datetime, start: datetime) -> dict[str, Any]:
    data: dict[str, Any] = {}
    shown = _shown(pick, kind, at)
    title: Callable[[], str] = lambda: pick.one(("Review", "Look here", "Später"))  # noqa: E731
    if kind in OPENING or kind == "proof.attached":
        data["title"] = title()
        _maybe(pick, data, shown, 3)
    if kind == "escalation.updated":
        _maybe(pick, data, shown | {"title": title}, 4)
        for name in list(data):
            if name not in ("title", "newer_than_the_schema") and pick.number(1, 4) == 4:
                data[name] = None
    elif kind == "escalation.resolved":
        _maybe(pick, data, {"action": lambda: pick.one(("approved", "closed"))}, 2)
    elif kind == "run.failed":
        data.pop("target_user_id", None)
        _maybe(pick, data, {
            "cluster": lambda: pick.one(CLUSTERS), "pipeline": lambda: pick.one(("deploy", "test")),
            "step": lambda: pick.one(("apply", "plan")), "error": lambda: "exit 1",
            "incident_key": lambda: pick.one(("inc_1", "inc_2")),
        }, 2)
    elif kind == "plan.proposed":
        data["steps"] = [{"title": "s", "mode": pick.one(("auto", "confirm"))} for _ in range(pick.number(0, 3))]
    elif kind == "action.requested":
        _maybe(pick, data, {"risk": lambda: pick.one(("low", "critical")), "reversible": lambda: True}, 2)
    elif kind == "draft.edited":
        person = {"type": "user", "id": pick.one(USERS)}
        data["editor"] = pick.one(({"type": "ai", "id": "ag_1", "name": "Helper"}, person))
        data["title"] = title()
        _maybe(pick, data, shown | {"owner_user_id": lambda: pick.one(USERS)}, 4)
    elif kind == "case.state_changed":
        data["state"] = pick.one(("BLOCKED", "BLOCKED", "IMPLEMENTING", "DONE"))
        data["case_id"] = f"case_{number}"
        if data["state"] == "BLOCKED":
            data["title"] = title()
            _maybe(pick, data, {name: make for name, make in shown.items() if name != "case_id"}, 4)
    elif kind == "proof.attached":
        elsewhere = pick.number(1, 8) == 8  # a proof may be attached to another case later, or earlier
        data |= {"case_id": f"case_{(number + elsewhere) % 2 + 1}", "session_id": f"ses_{pick.number(1, 2)}"}
        data["expires_at"] = (start + SLOT * pick.number(0, SLOTS + 40)).isoformat()
        if pick.number(1, 5) == 5:
            del data["expires_at"]
        if pick.number(1, 5) == 5:
            del data["session_id"]
    elif kind == "task.blocked":
        data["task_id"] = f"task_{number}"
    elif kind == "session.verifying":
        data["session_id"] = f"ses_{number}"
    if kind not in OPENING | {"draft.edited", "case.state_changed", "proof.attached", "escalation.updated"}:
        _maybe(pick, data, {"by_user_id": lambda: pick.one(USERS)}, 2)
    return data


def _roles(value: dict[str, Any]) -> tuple[str, ...]:
    """Returns the roles of the event. The contract does not order two events with one role at one time."""
    kind = value["type"]
    if kind == "draft.edited":
        return ("edit", "close") if value["data"]["editor"]["type"] == "user" else ("edit",)
    if kind == "case.state_changed":
        return ("open",) if value["data"]["state"] == "BLOCKED" else ("close",)
    if kind.startswith("proof."):
        return (kind,)
    return ("open",) if kind in OPENING else ("update",) if kind == "escalation.updated" else ("close",)


def untied(lines: Sequence[Line]) -> list[Line]:
    """Drops each event with the subject, role and time of an earlier one. Sets the ids of the others."""
    taken: set[tuple[Any, ...]] = set()
    kept: list[Line] = []
    for line in lines:
        value = line["value"]
        moment = datetime.fromisoformat(value["time"]).astimezone(UTC)
        subject = "any" if value["type"].startswith("proof.") else value["subject"]
        verifying = value["type"] == "session.verifying"  # an item of its own
        roles = {(value["workspaceid"], line["topic"], subject, verifying, role, moment) for role in _roles(value)}
        if not roles & taken:
            taken |= roles
            value["id"] = f"evt-{len(kept)}"
            kept.append(line)
    return kept


def generate(seed: int, size: int, **options: Any) -> list[Line]:
    """Returns at most `size` lines from a seed (ties are dropped); options as for `event`."""
    pick = Seeded(seed)
    return untied([event(pick, **options) for _ in range(size)])


def garbage() -> list[tuple[str, bytes]]:
    """Returns invalid records as (topic, value). attn must reject each of them and continue."""
    good = {
        "specversion": "1.0", "id": "e", "source": "/s", "type": "waitpoint.created", "subject": "wp",
        "workspaceid": "ws_01", "time": "2026-05-20T08:14:22Z", "data": {"title": "T"},
    }

    def broken(topic: str = "waitpoints", **changes: Any) -> tuple[str, bytes]:
        value = {name: field for name, field in (good | changes).items() if field is not ...}
        return topic, json.dumps(value).encode()

    def nested(depth: int) -> tuple[str, bytes]:
        topic, value = broken(data={"title": "T", "payload": {"x": "HERE"}})
        return topic, value.replace(b'"HERE"', b"[" * depth + b"]" * depth)

    return [
        ("waitpoints", b""), ("messages", b"\xff\xfe\x00"), ("run-failures", b"[1,2"),
        ("plans", b"null"), ("plans", b"[]"), ("actions", b'"text"'), ("cases", b"{}"), ("sessions", b"[" * 5000),
        broken(workspaceid=...), broken(workspaceid=""), broken(workspaceid=7), broken(id=...), broken(subject=...),
        broken(time=...), broken(time="2026-05-20T08:14:22"), broken(time="yesterday"), broken(time=1779264862),
        broken(time="2026-02-30T08:14:22Z"), broken(specversion="0.3"), broken(type="waitpoint.exploded"),
        broken(type="plan.proposed"), broken("messages"), broken(data=...), broken(data=[]), broken(data={}),
        broken(data={"title": ""}), broken(data={"title": "x" * 513}),
        broken(data={"title": "T", "body_md": "x" * 65_537}),
        broken(data={"title": "T", "payload": {"x": "y" * 65_536}}), broken(data={"title": "T", "payload": []}),
        broken(data={"title": "T", "priority": "asap"}), broken(data={"title": "T", "target_role": "KING"}),
        broken(data={"title": "T", "blocking": "yes"}), broken(data={"title": "T", "due_at": "soon"}),
        broken("drafts", type="draft.edited"),
        broken("drafts", type="draft.edited", data={"editor": {"type": "ai", "id": "a"}}),
        broken("drafts", type="draft.edited", data={"title": "T", "editor": {"type": "cat", "id": "a"}}),
        broken("cases", type="case.state_changed"),
        broken("plans", type="plan.proposed", data={"title": "T", "steps": [{}]}),
        *(nested(depth) for depth in (980, 1010, 1020, 1100)),  # parsers have different depth limits
        ("waitpoints", json.dumps(good | {"data": {"title": "T", "x": "y" * (1 << 20)}}).encode()),
    ]
