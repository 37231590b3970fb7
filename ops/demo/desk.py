"""What the demo's sources do with decisions. Its only I/O is one file; `ops.demo.sources` reads the topic.

A real source works in the same way: it reads topic `decisions`, keeps each decision until `undo_until`, applies it once
(`data.decision` identifies it), and then closes its item by an event or says `decision.applied` or `decision.refused`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from ops.demo import effects
from schemas.scalars import SECOND, parse_timestamp
from schemas.topics import TOPIC_OF_TYPE
from streams.core.domain.event_types import EVENT_RULES
from streams.runtime import private_files

__all__ = ["DecisionDesk"]

_MAX_OPEN = 5000  # only the newest open items are held; the story has some hundreds
_MAX_DONE = 5000  # ids of applied decisions; attn repeats a record only after a crash
_OPENING = frozenset({
    "waitpoint.created", "escalation.opened", "run.failed", "session.waiting", "plan.proposed", "action.requested",
    "draft.edited", "task.blocked", "case.state_changed", "session.verifying", "proof.attached",
})
_TOPIC_OF_KIND = {
    "waitpoint": "waitpoints", "escalation": "escalations", "failed_run": "run-failures", "session_waiting": "sessions",
    "plan_approval": "plans", "pending_action": "actions", "draft_review": "drafts", "blocked_case": "cases",
    "blocked_task": "cases",
}


class _State(msgspec.Struct):
    """The content of the file. `pending`: decision id -> `data` of its record, until it is applied.

    `answered`: topic and subject -> id of the event that opened the answered item. `frozen`: id of the opening event ->
    end of the freeze in microseconds.
    """

    pending: dict[str, dict[str, Any]] = {}
    done: list[str] = []
    answered: dict[str, str] = {}
    frozen: dict[str, int] = {}


class DecisionDesk:
    """The open items of the story and the decisions about them. `file` stores what a restart must not lose."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._state = msgspec.json.decode(file.read_bytes(), type=_State) if file.exists() else _State()
        self._done = set(self._state.done)
        self._opened: dict[str, dict[str, Any]] = {}

    def accept(self, event: dict[str, Any]) -> bool:
        """Records an event of the story. Returns False if it closes an item about which somebody decided: do not send
        it."""
        name = f"{TOPIC_OF_TYPE[event['type']]}/{event['subject']}"
        if _opens(event):
            self._opened[name] = event
            while len(self._opened) > _MAX_OPEN:
                del self._opened[next(iter(self._opened))]
        elif _closes(event) and name in self._opened:
            opened = self._opened[name]
            if self._is_answered(name, opened):
                del self._opened[name]
                return False
            if any(_name(data) == name and _is_about(data, opened) for data in self._state.pending.values()):
                return False  # a person may still take it back; then the item stays open
            del self._opened[name]
        return True

    def receive(self, record: Mapping[str, Any]) -> None:
        """Takes a record of topic `decisions`. `save` makes it durable; only then may its offset be committed."""
        verb, data = str(record["type"]).removeprefix("decision."), dict(record["data"], subject=record["subject"])
        decision = str(data["decision"])
        if verb == "taken_back":
            self._state.pending.pop(decision, None)
        elif verb in ("made", "expired") and decision not in self._done and data["kind"] in _TOPIC_OF_KIND:
            self._state.pending[decision] = data

    def next_due(self) -> int | None:
        """Returns when the earliest decision is to be applied, in microseconds; None if none waits."""
        return min(map(_due, self._state.pending.values()), default=None)

    def due(self, now: int) -> list[tuple[str, list[dict[str, Any]]]]:
        """Returns each decision that can no longer be taken back, and the events that apply or refuse it.

        Ids and types of the events are the same in each call, so that events that are sent again change nothing.
        """
        ready = sorted((_due(data), decision) for decision, data in self._state.pending.items() if _due(data) <= now)
        return [(decision, self._events(self._state.pending[decision], now)) for _, decision in ready]

    def mark_done(self, decision: str, events: list[dict[str, Any]]) -> None:
        """Notes that the events of `due` are acknowledged. The decision is never applied again."""
        data = self._state.pending.pop(decision)
        name = _name(data)
        if events and events[0]["type"] != "decision.refused":
            self._state.answered[name] = self._opened[name]["id"]
            self._state.frozen.pop(self._opened[name]["id"], None)
        self._done.add(decision)
        self._state.done = [*self._state.done, decision][-_MAX_DONE:]
        self.save()

    def save(self) -> None:
        with private_files.replace_atomically(self._file) as draft:
            draft.write_bytes(msgspec.json.encode(self._state))

    def _events(self, data: Mapping[str, Any], now: int) -> list[dict[str, Any]]:
        """Returns no events if the question is no longer open: its item is closed, or it asks something else by now."""
        name = _name(data)
        opened = self._opened.get(name)
        if opened is None or self._is_answered(name, opened) or not _is_about(data, opened):
            return []
        if effects.is_frozen(opened, data):
            # The end follows from the first decision's own time, so a repetition after a crash refuses it again.
            ends = self._state.frozen.setdefault(opened["id"], _due(data) + effects.FREEZE_SECONDS * SECOND)
            if _due(data) < ends:
                return effects.refusal(opened, data, now, effects.freeze_reason(ends))
        return effects.events_of(opened, data, now)

    def _is_answered(self, name: str, opened: Mapping[str, Any]) -> bool:
        return bool(self._state.answered.get(name) == opened["id"])


def _due(data: Mapping[str, Any]) -> int:
    return parse_timestamp(str(data.get("undo_until") or data["decided_at"]))


def _name(data: Mapping[str, Any]) -> str:
    return f"{_TOPIC_OF_KIND[data['kind']]}/{data['subject']}"


def _is_about(data: Mapping[str, Any], opened: Mapping[str, Any]) -> bool:
    """Whether the item still asks what was decided: `ask.id` is the id of the opening event."""
    return bool(data["question"]["id"] == opened["id"])


def _opens(event: Mapping[str, Any]) -> bool:
    if event["type"] == "draft.edited":
        return bool(event["data"]["editor"]["type"] == "ai")
    if event["type"] == "case.state_changed":
        return bool(event["data"]["state"] == "BLOCKED")
    return event["type"] in _OPENING


def _closes(event: Mapping[str, Any]) -> bool:
    return EVENT_RULES[event["type"]].effect == "close" or (event["type"] == "case.state_changed" and not _opens(event))
