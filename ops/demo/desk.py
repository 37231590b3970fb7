"""Open items of the demo's sources, and the answers a person may give to them. Its only I/O is one file.

A real source works in the same way: it links to a page of its own (`action_url`), and reports the result on Kafka.
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

_HELD = 5000  # open ones that are remembered, the newest; the story has some hundreds


@dataclass(frozen=True, slots=True)
class Answer:
    """What a button says, and the event it makes."""

    label: str
    type: str
    data: Mapping[str, Any] = field(default_factory=dict)


# By the type of the event that opened it. What has none here passes by itself.
ANSWERS: dict[str, tuple[Answer, ...]] = {
    "waitpoint.created": (Answer("Approve", "waitpoint.approved"), Answer("Reject", "waitpoint.rejected")),
    "escalation.opened": (
        Answer("Answer", "escalation.resolved", {"action": "answered"}),
        Answer("Take it over", "escalation.resolved", {"action": "took_over"})),
    "run.failed": (Answer("Retry", "run.retried"), Answer("Cancel the run", "run.cancelled")),
    "session.waiting": (Answer("Let it go on", "session.resumed"),),
    "plan.proposed": (Answer("Approve", "plan.approved"), Answer("Reject", "plan.rejected")),
    "action.requested": (Answer("Confirm", "action.confirmed"), Answer("Decline", "action.declined")),
    "draft.edited": (Answer("Commit", "draft.committed"), Answer("Discard", "draft.discarded")),
    "task.blocked": (Answer("Unblock", "task.unblocked"),),
    "case.state_changed": (Answer("Go on with it", "case.state_changed", {"state": "IN_PROGRESS"}),),
    "session.verifying": (), "proof.attached": (),
}


class _Kept(msgspec.Struct):
    """`answered`: by topic and subject, the id of the story's event that had opened what was answered."""

    key: str
    port: int = 0
    answered: dict[str, str] = {}


class AnswerDesk:
    """`file` keeps what must outlive a restart: the key of the links, the port, and what was answered."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._kept = msgspec.json.decode(file.read_bytes(), type=_Kept) if file.exists() else _Kept(
            secrets.token_urlsafe(24))
        self._opened: dict[str, dict[str, Any]] = {}

    @property
    def port(self) -> int:
        """Where links point to; 0: nowhere yet."""
        return self._kept.port

    @port.setter
    def port(self, port: int) -> None:
        self._kept.port = port
        self._keep()

    def told(self, event: dict[str, Any]) -> bool:
        """Takes note of an event of the story. False: somebody answered it here, so the story must not say it too."""
        name = _name(event)
        if _opens(event):
            self._opened[name] = event
            while len(self._opened) > _HELD:
                del self._opened[next(iter(self._opened))]
        elif _closes(event):
            opened = self._opened.pop(name, None)
            return opened is None or not self._is_answered(opened)
        return True

    def path(self, event: dict[str, Any]) -> str | None:
        """Where on the desk what the event opens is answered. Nobody can make one up: it holds a seal. What asks a
        second time has another: a page that is still there from the first does not answer it."""
        return f"/{self._seal(event)}/{_name(event)}" if _opens(event) else None

    def opener(self, seal: str, topic: str, subject: str) -> dict[str, Any] | None:
        """The event that opened it. None: it is not open, or the seal is not its own."""
        event = self._opened.get(f"{topic}/{subject}")
        if event is None or self._is_answered(event):
            return None
        return event if hmac.compare_digest(seal.encode(), self._seal(event).encode()) else None

    def answered(self, event: dict[str, Any]) -> None:
        """What `opener` gave was answered, and that was said on Kafka. The story may have gone on meanwhile."""
        self._kept.answered[_name(event)] = event["id"]
        self._keep()

    def _is_answered(self, event: dict[str, Any]) -> bool:
        return bool(self._kept.answered.get(_name(event)) == event["id"])

    def _seal(self, event: dict[str, Any]) -> str:
        sealed = f"{_name(event)} {event['id']}".encode()
        return hmac.new(self._kept.key.encode(), sealed, hashlib.sha256).hexdigest()[:32]

    def _keep(self) -> None:
        with private_files.replace_atomically(self._file) as draft:
            draft.write_bytes(msgspec.json.encode(self._kept))


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
