"""Questions, answers and the events that ask them. Pure: no I/O, no clock.

A question has a *handle*: a hash of source, subject and content. It is the `id` of the ask and part of the event's id,
therefore a repeat of the same question is the same event, and attn counts it once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

from attn_client.clock import parse_time
from attn_client.exact import canonical

__all__ = [
    "KINDS", "Action", "Actor", "Answer", "Kind", "Option", "Question", "ask_event", "close_event", "handle_of",
    "notify_event", "report_event", "subject_of", "unpost_event",
]

Does = Literal["approve", "reject", "edit", "respond", "ignore", "retry", "acknowledge", "choose"]
Kind = Literal["waitpoint", "pending_action", "session_waiting", "plan_approval"]
_DOES = frozenset(("approve", "reject", "edit", "respond", "ignore", "retry", "acknowledge", "choose"))

# Kind of item -> topic, the type that opens it, the type that withdraws it (CONTRACT §2).
KINDS: Mapping[str, tuple[str, str, str]] = {
    "waitpoint": ("waitpoints", "waitpoint.created", "waitpoint.cancelled"),
    "pending_action": ("actions", "action.requested", "action.expired"),
    "session_waiting": ("sessions", "session.waiting", "session.resumed"),
    "plan_approval": ("plans", "plan.proposed", "plan.superseded"),
    "message": ("messages", "message.posted", "message.withdrawn"),
}


@dataclass(frozen=True)
class Option:
    """One answer that a person may give. `does` says what it means; `form` is a flat JSON Schema object."""

    id: str
    does: Does = "choose"
    title: str | None = None
    style: Literal["primary", "danger", "plain"] | None = None
    comment: Literal["no", "optional", "required"] | None = None
    form: Mapping[str, Any] | None = None
    safe: bool | None = None


@dataclass(frozen=True)
class Action:
    """What will be done if it is approved. `editable`: True, or the names of the arguments that people may change."""

    name: str
    args: Mapping[str, Any] = field(default_factory=dict)
    editable: bool | Sequence[str] | None = None
    args_schema: Mapping[str, Any] | None = None
    risk: Literal["low", "medium", "high", "critical"] | None = None
    reversible: bool | None = None


@dataclass(frozen=True)
class Question:
    """What a person is asked. Only `title` is required.

    `subject`: the question's own id in your system (a run, a tool call). The same subject and content is the same
    question: it gets the same answer, also after a restart. Without `subject` the content identifies the question
    until its answer was confirmed; after that the same content asks anew.

    `options`: `Option`s, or ids of options; an id such as "approve" or "reject" does what it says, any other is one
    of several choices. `expires`: a duration from now, or a time. `quorum`: how many people must agree. `data`: further
    fields of the event (`cluster`, `case_id`, `payload`, ...).
    """

    title: str
    body: str | None = None
    options: Sequence[Option | str] | None = None
    form: Mapping[str, Any] | None = None
    action: Action | None = None
    subject: str | None = None
    kind: Kind = "waitpoint"
    priority: Literal["low", "normal", "high", "urgent"] | None = None
    to_user: str | None = None
    to_role: str | None = None
    deciders: Mapping[str, Any] | None = None
    quorum: int | None = None
    expires: timedelta | datetime | None = None
    on_expiry: str | None = None
    batch: str | None = None
    confirm: bool = True
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Actor:
    """A person who took part in the decision."""

    user: str
    name: str | None
    role: str | None
    at: datetime


@dataclass(frozen=True)
class Answer:
    """What was decided. `option` is the id of the chosen option, `does` what it means.

    `form`: the values of the form. `args`: all arguments of an edited action, else None. `edited`: JSON pointers of the
    arguments that a person changed. `decision`: the id of the decision, the same for each repeat of the answer: store
    it together with the effect, and the effect happens once. `confirmed`: whether attn knows that it took effect.
    """

    decision: str
    subject: str
    kind: str
    option: str
    does: str
    form: Mapping[str, Any]
    args: Mapping[str, Any] | None
    edited: Sequence[str]
    comment: str | None
    actors: Sequence[Actor]
    confirmed: bool
    raw: Mapping[str, Any] = field(repr=False)

    @property
    def approved(self) -> bool:
        """Whether the option approves, edits included."""
        return self.does in ("approve", "edit")

    @property
    def by(self) -> str | None:
        """Returns the user whose vote made the decision. None if the question expired to its safe option."""
        return self.actors[-1].user if self.actors else None

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Answer:
        """Returns the answer of an entry of `GET /org/me/decisions`."""
        return cls(
            decision=entry["id"], subject=entry["source_id"], kind=entry["kind"], option=entry.get("option") or "",
            does=entry.get("does") or "", form=entry.get("form") or {}, args=entry.get("args"),
            edited=tuple(entry.get("edited") or ()), comment=entry.get("comment"),
            actors=tuple(
                Actor(one["user"], one.get("name"), one.get("role"), parse_time(one["at"])) for one in entry["actors"]),
            confirmed=entry["state"] == "applied", raw=entry)


def _hash(*parts: Any, digits: int = 32) -> str:
    return hashlib.sha256(canonical(list(parts))).hexdigest()[:digits]


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _batch(key: str) -> str:
    """Returns the key of a batch as attn accepts it: 128 characters without white space."""
    return key if len(key) <= 128 and key.isprintable() and " " not in key and key else f"b_{_hash(key)}"


def _option(option: Option | str) -> dict[str, Any]:
    if isinstance(option, Option):
        return _given(**vars(option))
    if option in _DOES:
        style = {"approve": "primary", "reject": "danger"}.get(option)
        return _given(id=option, does=option, style=style)
    return {"id": "_".join(option.split()), "does": "choose", "title": option}


def _options(question: Question) -> list[dict[str, Any]] | None:
    """Returns the options; None leaves those of the kind to attn."""
    if question.options is not None:
        return [_option(option) for option in question.options]
    if question.action is not None and question.action.editable:
        return [_option("approve"), _option("edit"), _option("reject")]
    if question.form is not None:
        return [{"id": "answer", "does": "respond", "style": "primary"}]
    return None


def _content(question: Question) -> dict[str, Any]:
    """Returns `data` of the event without the ask's id and without times that depend on the clock."""
    action = _given(**vars(question.action)) if question.action is not None else None
    ask = _given(
        options=_options(question), form=question.form, action=action, deciders=question.deciders,
        quorum={"approve": question.quorum} if question.quorum is not None else None, on_expiry=question.on_expiry,
        batch={"key": _batch(question.batch)} if question.batch is not None else None,
        reply=None if question.confirm else {"confirm": False})
    return {**question.data, **_given(
        title=question.title, body_md=question.body, priority=question.priority, target_user_id=question.to_user,
        target_role=question.to_role), "ask": ask}


def handle_of(question: Question, source: str, run: str | None) -> str:
    """Returns the handle: `q_` and 32 hex digits of source, run, subject and content.

    Raises TypeError if the content is not JSON.
    """
    expires = question.expires
    lasts = expires.total_seconds() if isinstance(expires, timedelta) else str(expires) if expires else None
    return "q_" + _hash(source, run, question.kind, question.subject, _content(question), lasts)


def subject_of(question: Question, handle: str) -> str:
    """Returns the subject of the question's event; without one of its own it is the handle."""
    return question.subject if question.subject is not None else handle


def _event(source: str, id: str, type: str, subject: str, at: datetime, data: Mapping[str, Any]) -> dict[str, Any]:
    time = at.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")
    return {"specversion": "1.0", "id": id, "source": source, "type": type, "subject": subject, "time": time,
            "data": data}


def ask_event(
    question: Question, source: str, subject: str, handle: str, at: datetime, after: str | None = None,
) -> dict[str, Any]:
    """Returns the event that asks. `after`: what ended the question before, if it is asked again (id of a decision, or
    time of the end): the event and the ask get another id then."""
    data, expires = _content(question), question.expires
    id = handle if after is None else f"{handle}.{_hash(after, digits=8)}"
    data["ask"] = {**data["ask"], "id": id, **_given(
        expires_at=(at + expires if isinstance(expires, timedelta) else expires).isoformat() if expires else None)}
    return _event(source, id, KINDS[question.kind][1], subject, at, data)


def notify_event(
    source: str, title: str, body: str | None, subject: str, at: datetime, data: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns the event of a message. Its id follows from the content: a repeat changes nothing."""
    content = {**data, **_given(title=title, body_md=body)}
    return _event(source, "n_" + _hash(source, subject, content), KINDS["message"][1], subject, at, content)


def close_event(source: str, kind: str, subject: str, item: Mapping[str, Any], at: datetime) -> dict[str, Any]:
    """Returns the event that withdraws an open item. Its id follows from the item, so a repeat is the same event."""
    id = "w_" + _hash(source, kind, subject, (item.get("ask") or {}).get("id"), item["created_at"])
    return _event(source, id, KINDS[kind][2], subject, at, {})


def unpost_event(source: str, subject: str, at: datetime, id: str) -> dict[str, Any]:
    """Returns the event that withdraws a message."""
    return _event(source, f"w_{id}", KINDS["message"][2], subject, at, {})


def report_event(
    source: str, answer: Answer, at: datetime, refused: str | None = None,
) -> dict[str, Any]:
    """Returns the report `decision.applied`, or `decision.refused` with a reason of at most 1024 characters."""
    verb = "applied" if refused is None else "refused"
    data = {"decision": answer.decision, **_given(reason=refused[:1024] if refused else None)}
    return _event(source, f"{answer.decision}.{verb}", f"decision.{verb}", answer.subject, at, data)
