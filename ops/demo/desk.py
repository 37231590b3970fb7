"""Holds the open items of the demo's sources, and the answers that a user may give. Its only I/O is one file.

A real source works in the same way: its event links to a page of the source (`action_url`), and the source sends the
result to Kafka.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from schemas.topics import TOPIC_OF_TYPE
from streams.core.domain.event_types import EVENT_RULES
from streams.runtime import private_files

__all__ = ["ANSWERS", "Answer", "AnswerDesk"]

_MAX_OPEN = 5000  # only the newest open items are held; the story has some hundreds


@dataclass(frozen=True, slots=True)
class Answer:
    """The label of a button, and the type and data of the event that it sends."""

    label: str
    type: str
    data: Mapping[str, Any] = field(default_factory=dict)


# By the type of the event that opened the item. An item without answers closes by itself.
ANSWERS: dict[str, tuple[Answer, ...]] = {
    "waitpoint.created": (Answer("Approve", "waitpoint.approved"), Answer("Reject", "waitpoint.rejected")),
    "escalation.opened": (
        Answer("Answer", "escalation.resolved", {"action": "answered"}),
        Answer("Take it over", "escalation.resolved", {"action": "took_over"})),
    "run.failed": (Answer("Retry", "run.retried"), Answer("Cancel the run", "run.cancelled")),
    "session.waiting": (Answer("Resume", "session.resumed"),),
    "plan.proposed": (Answer("Approve", "plan.approved"), Answer("Reject", "plan.rejected")),
    "action.requested": (Answer("Confirm", "action.confirmed"), Answer("Decline", "action.declined")),
    "draft.edited": (Answer("Commit", "draft.committed"), Answer("Discard", "draft.discarded")),
    "task.blocked": (Answer("Unblock", "task.unblocked"),),
    "case.state_changed": (Answer("Resume", "case.state_changed", {"state": "IN_PROGRESS"}),),
    "session.verifying": (), "proof.attached": (),
}


class _State(msgspec.Struct):
    """The content of the file. `answered`: topic and subject -> id of the event that opened the answered item."""

    key: str
    port: int = 0
    answered: dict[str, str] = {}


class AnswerDesk:
    """The open items and their answers. `file` stores the key of the links, the port and the answered items."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._state = msgspec.json.decode(file.read_bytes(), type=_State) if file.exists() else _State(
            secrets.token_urlsafe(24))
        self._opened: dict[str, dict[str, Any]] = {}

    @property
    def port(self) -> int:
        """The port in links; 0 until the server has one."""
        return self._state.port

    @port.setter
    def port(self, port: int) -> None:
        self._state.port = port
        self._save()

    def accept(self, event: dict[str, Any]) -> bool:
        """Records an event of the story. Returns False if it closes an item that a user answered: do not send it."""
        name = _name(event)
        if _opens(event):
            self._opened[name] = event
            while len(self._opened) > _MAX_OPEN:
                del self._opened[next(iter(self._opened))]
        elif _closes(event):
            opened = self._opened.pop(name, None)
            return opened is None or not self._is_answered(opened)
        return True

    def path(self, event: dict[str, Any]) -> str | None:
        """Returns the path of the page that answers the item which the event opens; None if it opens none.

        The path has a signature, so it cannot be guessed. An item that is opened again has another signature: a page
        that is still open from the first time cannot answer the second.
        """
        return f"/{self._signature(event)}/{_name(event)}" if _opens(event) else None

    def opener(self, signature: str, topic: str, subject: str) -> dict[str, Any] | None:
        """Returns the event that opened the item; None if the item is not open or the signature is wrong."""
        event = self._opened.get(f"{topic}/{subject}")
        if event is None or self._is_answered(event):
            return None
        return event if hmac.compare_digest(signature.encode(), self._signature(event).encode()) else None

    def mark_answered(self, event: dict[str, Any]) -> None:
        """Marks the item of `event` (from `opener`) as answered, once Kafka has acknowledged the answer.

        In the meantime the story may have closed the item, or opened it again with another event.
        """
        self._state.answered[_name(event)] = event["id"]
        self._save()

    def _is_answered(self, event: dict[str, Any]) -> bool:
        return bool(self._state.answered.get(_name(event)) == event["id"])

    def _signature(self, event: dict[str, Any]) -> str:
        signed = f"{_name(event)} {event['id']}".encode()
        return hmac.new(self._state.key.encode(), signed, hashlib.sha256).hexdigest()[:32]

    def _save(self) -> None:
        with private_files.replace_atomically(self._file) as draft:
            draft.write_bytes(msgspec.json.encode(self._state))


def _name(event: dict[str, Any]) -> str:
    return f"{TOPIC_OF_TYPE[event['type']]}/{event['subject']}"


def _opens(event: dict[str, Any]) -> bool:
    if event["type"] == "draft.edited":
        return bool(event["data"]["editor"]["type"] == "ai")
    if event["type"] == "case.state_changed":
        return bool(event["data"]["state"] == "BLOCKED")
    return event["type"] in ANSWERS


def _closes(event: dict[str, Any]) -> bool:
    return EVENT_RULES[event["type"]].effect == "close" or (event["type"] == "case.state_changed" and not _opens(event))
