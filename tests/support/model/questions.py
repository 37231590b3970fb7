"""Types of questions and decisions for `support.model.decisions`. Imports no code of attn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from support.model.types import Item

__all__ = ["DEFAULTS", "UNDER_WAY", "Asked", "Expected", "Key", "Made", "does_of", "identity_of"]

Key = tuple[str, str]
UNDER_WAY = ("made", "sending", "undeliverable")  # a close by the source then means: applied

# kind -> (id, does) of the default options.
DEFAULTS: dict[str, list[tuple[str, str]]] = {
    "waitpoint": [("approve", "approve"), ("reject", "reject")],
    "plan_approval": [("approve", "approve"), ("reject", "reject")],
    "pending_action": [("confirm", "approve"), ("decline", "reject")],
    "session_waiting": [("answer", "respond")],
    "draft_review": [("commit", "approve"), ("discard", "reject")],
    "failed_run": [("retry", "retry"), ("ignore", "ignore")],
    "escalation": [("resolve", "acknowledge")],
    "blocked_case": [("resume", "approve"), ("skip", "ignore"), ("reject", "reject")],
    "blocked_task": [("acknowledge", "acknowledge")],
}


@dataclass
class Made:
    """A decision. `number`: count of earlier decisions of the item. `back`: why the decided item is listed again."""

    key: Key
    number: int
    option: str | None
    does: str | None
    at: int
    undo_until: int
    state: str
    actors: list[str]
    answer: str = ""  # option, form and arguments as one text
    source: str = ""
    confirm: bool = True
    to: str | None = None
    batch: tuple[str, str] | None = None
    back: str | None = None
    sent_at: int = 0
    published: list[str] = field(default_factory=list)  # verbs of its records, in order
    facts: list[str] = field(default_factory=list)

    @property
    def is_published(self) -> bool:
        return "made" in self.published or "expired" in self.published


@dataclass
class Asked:
    """The current question of an item. `votes`: user -> answer, of votes that have not led to a decision."""

    identity: str
    ask: Mapping[str, Any]
    votes: dict[str, str] = field(default_factory=dict)
    decision: Made | None = None
    ended: bool = False  # the source has closed the item
    final_base: str | None = None  # the opening event when its decision became final

    @property
    def undecided(self) -> bool:
        return not self.ended and (self.decision is None or self.decision.state in ("refused", "taken_back"))


@dataclass(frozen=True)
class Expected:
    """The allowed responses to a write. There are several statuses where the contract does not order the reasons."""

    statuses: frozenset[int]
    decision: Made | None = None
    needed: int | None = None


def identity_of(source: str, item: Item, ask: Mapping[str, Any]) -> str:
    """Returns the content that the digest covers, as text, without the default options that attn adds."""
    reply = {name: value for name, value in (ask.get("reply") or {}).items() if name in ("to", "confirm")}
    known = ("id", "options", "form", "action", "deciders", "quorum", "expires_at", "on_expiry", "batch")
    shown: dict[str, Any] = {name: ask[name] for name in known if ask.get(name) is not None}
    if ask.get("reply") is not None:
        shown["reply"] = reply
    return json.dumps([source, item.source_id, item.shown.get("title"), item.shown.get("body_md"), shown],
                      sort_keys=True)


def does_of(ask: Mapping[str, Any], kind: str, option: str | None) -> str | None:
    options = [(entry["id"], entry["does"]) for entry in ask["options"]] if ask.get("options") else DEFAULTS[kind]
    return next((does for name, does in options if name == option), None)
