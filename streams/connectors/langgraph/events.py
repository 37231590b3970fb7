"""Maps interrupts of a thread to CloudEvents that ask in attn, and back: which interrupt an item or a decision is of.

Pure. Item ids (`subject`) are `DEPLOYMENT/THREAD/INTERRUPT`, in a batch with the number of the question behind it.
`ask.id` has the interrupt and a digest of its value: a decision can so be compared with what the thread asks now, and
no store is needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple

from schemas.asking.ask import MAX_ASK_BYTES
from schemas.scalars import ROLES
from streams.connectors.langgraph.deployments import Deployment
from streams.connectors.langgraph.dialects.asking import Question
from streams.connectors.langgraph.dialects.reading import read_interrupt
from streams.connectors.langgraph.json_values import digest_of, json_text, levels_of
from streams.connectors.langgraph.server import Interrupt, Thread
from streams.core.json_text import MAX_DEPTH

__all__ = ["ELSEWHERE", "Location", "QuestionId", "closing_event", "digest_of_interrupt", "opening_events"]

ELSEWHERE = "elsewhere"  # option of a question that attn cannot show in full: it is answered in the thread itself
_MAX_BODY = 15_000  # characters: at most 60,000 bytes, and attn accepts 64 KiB
_PRIORITIES = ("low", "normal", "high", "urgent")
_ASK_ROOM = 4096  # bytes that handles and options of an ask need
_EVENT_LEVELS = 5  # levels of JSON around the arguments in an event


class Location(NamedTuple):
    """Where a question stands: the subject of its item."""

    deployment: str
    thread: str
    interrupt: str
    number: int = 0
    alone: bool = True  # whether it is the only question of its interrupt

    @property
    def subject(self) -> str:
        return "/".join([*self[:3], *([] if self.alone else [str(self.number)])])

    @classmethod
    def of(cls, subject: str) -> Location | None:
        """Returns the location of a subject, None if the subject is not of this connector."""
        found = re.fullmatch(r"([^/]+)/([^/]+)/([^/]+)(?:/(\d{1,3}))?", subject)
        return found and cls(found[1], found[2], found[3], int(found[4] or 0), found[4] is None)


@dataclass(frozen=True, slots=True)
class QuestionId:
    """`ask.id`: interrupt, digest of its value and schema, and which of how many questions of it."""

    interrupt: str
    digest: str
    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.interrupt}:{self.digest}:{self.index}:{self.count}"

    @classmethod
    def of(cls, text: str) -> QuestionId | None:
        found = re.fullmatch(r"([^:]+):([0-9a-f]{16}):(\d{1,3}):(\d{1,3})", text)
        return found and cls(found[1], found[2], int(found[3]), int(found[4]))


def digest_of_interrupt(interrupt: Interrupt) -> str:
    """Returns 16 hex digits that change with what the interrupt asks."""
    return digest_of([interrupt.value, interrupt.response_schema])


def opening_events(deployment: Deployment, thread: Thread) -> list[dict[str, Any]]:
    """Returns one event for each question that the thread waits with.

    Event ids have the time of the thread's state: a hook and a sweep that see the same state make the same event.
    """
    return [
        _opening(deployment, thread, interrupt, question, QuestionId(interrupt.id, digest, index, len(questions)))
        for interrupt in thread.interrupts
        for digest in [digest_of_interrupt(interrupt)]
        for questions in [read_interrupt(interrupt.value, interrupt.response_schema).questions]
        for index, question in enumerate(questions)
    ]


def _opening(
    deployment: Deployment, thread: Thread, interrupt: Interrupt, question: Question, asked: QuestionId,
) -> dict[str, Any]:
    location = Location(deployment.name, thread.id, interrupt.id, asked.index, asked.count == 1)
    link = deployment.link_of(thread.id)
    graph = _text(thread.metadata, "graph_id")
    ask, note = _ask(question, location, asked, link)
    data = {
        "title": question.title, "body_md": _body(question.body, note, deployment, thread, graph), "ask": ask,
        "cluster": deployment.name, "session_id": thread.id, "action_url": link,
        "sender": {"type": "agent", "id": _text(thread.metadata, "assistant_id") or graph, "name": graph},
        "payload": {"deployment": deployment.name, "thread_id": thread.id, "interrupt_id": interrupt.id,
                    "graph_id": graph},
        **_addressed(thread.metadata),
    }
    kinds = {"pending_action": "action.requested", "session_waiting": "session.waiting"}
    return _event(deployment, location, kinds[question.kind], f"{location.subject}:{asked.digest}@{thread.updated_at}",
                  thread.updated_at, data)


def _ask(question: Question, location: Location, asked: QuestionId, link: str) -> tuple[dict[str, Any], str]:
    """Returns the ask, and a note for the body if attn cannot show all that would run.

    Nothing may be approved that was not shown: such a question keeps the answers that let nothing run.
    """
    ask: dict[str, Any] = {"id": str(asked), "options": list(question.options)}
    if not location.alone:
        ask["batch"] = {"key": sha256("/".join([*location[:3], asked.digest]).encode()).hexdigest()[:32]}
    if question.action is None:
        return ask, ""
    size = len(json_text(question.action).encode())
    if size <= MAX_ASK_BYTES - _ASK_ROOM and levels_of(question.action) <= MAX_DEPTH - _EVENT_LEVELS:
        return {**ask, "action": question.action}, ""
    options = [option for option in question.options if option["does"] not in ("approve", "edit")]
    ask["options"] = options or [{"id": ELSEWHERE, "does": "acknowledge", "title": "Answered in the thread"}]
    ask["action"] = {"name": question.action["name"]}
    return ask, f"The arguments ({size} bytes) are larger than attn shows, or nested deeper. Read them at {link}."


def _body(body: str, note: str, deployment: Deployment, thread: Thread, graph: str | None) -> str:
    shown = body if len(body) <= _MAX_BODY else f"{body[:_MAX_BODY]}\n\nThe first {_MAX_BODY} characters are shown."
    origin = f"Thread `{thread.id}`{f' of graph `{graph}`' if graph else ''} in `{deployment.name}`"
    return "\n\n".join(part for part in (shown, note, origin) if part)


def _addressed(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Target and priority that the thread's metadata names. An unknown role or priority is left out: it would reject
    the event."""
    role, priority = _text(metadata, "attn_role"), _text(metadata, "attn_priority")
    named = {
        "target_user_id": _text(metadata, "attn_user"), "target_role": role if role in ROLES else None,
        "priority": priority if priority in _PRIORITIES else None,
    }
    return {name: value for name, value in named.items() if value is not None}


def closing_event(
    deployment: Deployment, location: Location, digest: str, kind: str, *, opened_at: str, now: datetime, outcome: str,
    by_user: str | None = None,
) -> dict[str, Any]:
    """Returns the event that closes an item. `outcome`: `approve` or `reject` as the decision did, `gone` if the thread
    went on without attn, `deleted`.

    Its time is after that of the opening event also if the clocks of attn's host and the server differ.
    """
    if kind == "pending_action":
        type_ = {"approve": "action.confirmed", "reject": "action.declined"}.get(outcome, "action.expired")
    else:
        type_ = "session.completed" if outcome == "deleted" else "session.resumed"
    opened = datetime.fromisoformat(opened_at) if opened_at else now
    time = max(now, opened + timedelta(milliseconds=1)).astimezone(UTC).isoformat()
    data = {"by_user_id": by_user} if by_user else {}
    return _event(deployment, location, type_, f"{location.subject}:{digest}:{outcome}@{opened_at}", time, data)


def _event(
    deployment: Deployment, location: Location, type_: str, id_: str, time: str, data: dict[str, Any],
) -> dict[str, Any]:
    return {"specversion": "1.0", "id": id_, "source": deployment.source, "type": type_, "subject": location.subject,
            "time": time, "data": data}


def _text(metadata: Mapping[str, Any], name: str) -> str | None:
    value = metadata.get(name)
    return value[:256] if isinstance(value, str) and value.strip() else None
