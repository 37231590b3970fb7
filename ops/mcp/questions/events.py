"""CloudEvents of the tools: a question and its end, a notice and its end, and what became of a decision. Pure.

Times are microseconds since 1970. A question is a waitpoint with an ask, a notice is a message (CONTRACT §2, §7).
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import ValidationError

from ops.mcp.questions.arguments import AskHuman, InvalidArguments, NotifyHuman, OptionArgument, Who, expiry_of, explain
from ops.mcp.questions.handles import event_id, subject_of
from schemas.asking.ask import MAX_ASK_BYTES, Ask
from schemas.scalars import format_timestamp

__all__ = [
    "NOTICES", "QUESTIONS", "applied", "identity", "notice_withdrawn", "noticed", "questioned", "refused", "withdrawn",
]

QUESTIONS, NOTICES = "waitpoints", "messages"  # topics

Event = dict[str, Any]

_ID = re.compile(r"[^\s\x00-\x1f\x7f]{1,128}")
_TEXT_FORM = {"type": "object", "required": ["text"], "properties": {
    "text": {"type": "string", "title": "Answer", "minLength": 1}}}
_ANSWER = {"id": "answer", "does": "respond", "title": "Answer", "style": "primary"}
_DECLINE = {"id": "decline", "does": "reject", "title": "Decline"}


def identity(asked: AskHuman) -> dict[str, Any]:
    """Returns the arguments that make a call this question. Priority, expiry and waiting time do not."""
    kept = asked.model_dump(mode="json", include={"question", "context", "options", "form", "who", "reference"})
    return {name: value for name, value in kept.items() if value is not None}


def questioned(asked: AskHuman, source: str, handle: str, sender: str, now: int, after: int = 0) -> Event:
    """Returns the event that asks. `after`: the time at which an earlier question of this subject ended.

    Raises InvalidArguments if the ask breaks a rule of CONTRACT §7.
    """
    at = max(now, after + 1)
    ask: dict[str, Any] = {"id": handle, "options": _options(asked),
                           "expires_at": format_timestamp(expiry_of(asked.expires, at))}
    if asked.form is not None:
        ask["form"] = asked.form
    elif asked.options is None:
        ask["form"] = _TEXT_FORM
    _check(ask)
    data = {"title": asked.question, "priority": asked.priority, "blocking": True, "ask": ask, **_target(asked.who),
            "sender": {"type": "agent", "id": sender, "name": sender}}
    if asked.context is not None:
        data["body_md"] = asked.context
    return _event("waitpoint.created", source, handle, "asked", at, data)


def withdrawn(source: str, handle: str, now: int) -> Event:
    """Returns the event that ends a question because its caller no longer waits."""
    return _event("waitpoint.cancelled", source, handle, "withdrawn", now, {})


def noticed(notice: NotifyHuman, source: str, handle: str, sender: str, now: int) -> Event:
    """Returns the event of a notice."""
    data = {"title": notice.message, "priority": notice.priority, **_target(notice.who),
            "sender": {"type": "agent", "id": sender, "name": sender}}
    if notice.body is not None:
        data["body_md"] = notice.body
    return _event("message.posted", source, handle, "posted", now, data)


def notice_withdrawn(source: str, handle: str, now: int) -> Event:
    return _event("message.withdrawn", source, handle, "withdrawn", now, {})


def applied(source: str, handle: str, decision: str, now: int) -> Event:
    """Returns the report that the answer was handed to the caller."""
    return _event("decision.applied", source, handle, "applied", now, {"decision": decision}, decision)


def refused(source: str, handle: str, decision: str, reason: str, now: int) -> Event:
    """Returns the report that nobody takes the answer."""
    data = {"decision": decision, "reason": reason}
    return _event("decision.refused", source, handle, "refused", now, data, decision)


def _event(kind: str, source: str, handle: str, happened: str, at: int, data: Event, of: str | None = None) -> Event:
    return {"specversion": "1.0", "id": event_id(of or handle, happened), "source": source, "type": kind,
            "subject": subject_of(handle), "time": format_timestamp(at), "data": data}


def _options(asked: AskHuman) -> list[dict[str, Any]]:
    """Returns the options of the ask. A text that is no id gets the id `option-N`, from 1."""
    if asked.options is None:
        return [_ANSWER, _DECLINE]
    options = []
    for number, one in enumerate(asked.options, 1):
        if isinstance(one, OptionArgument):
            options.append(one.model_dump(exclude_none=True))
        else:
            plain = _ID.fullmatch(one) is not None
            options.append({"id": one if plain else f"option-{number}", "title": one, "does": "choose"})
    return options


def _check(ask: dict[str, Any]) -> None:
    """Raises InvalidArguments as attn would reject the ask, with the path of the argument."""
    try:
        size = len(json.dumps(ask, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode())
    except ValueError as error:  # NaN, or half a surrogate
        raise InvalidArguments(f"form: not JSON: {error}") from None
    if size > MAX_ASK_BYTES:
        raise InvalidArguments(f"options and form: {size} bytes; at most {MAX_ASK_BYTES} are accepted")
    try:
        Ask.model_validate(ask)
    except ValidationError as error:
        raise InvalidArguments(explain(error)) from None


def _target(who: Who | None) -> dict[str, str]:
    fields = {} if who is None else {"target_user_id": who.user, "target_role": who.role}
    return {name: value for name, value in fields.items() if value is not None}
