"""What `attn.log` holds: packs of normalised source events and of commands. An empty pack is a tick of the clock.

msgspec rather than pydantic: these models cross the hot path several times an event, and only attn writes them
(ops/decisions/0003). `attn schemas` exports them as JSON Schema all the same.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from schemas.versions import versioned_decoder

__all__ = [
    "LOG_VERSION", "NO_PAYLOAD", "Command", "Data", "Dismiss", "Editor", "Event", "Pack", "Restore", "Sender",
    "SetPreferences", "SetState", "Step", "Widget", "decode_pack", "encode_pack",
]

# To be raised by what an older worker would fold otherwise or not at all: a new kind of entry, a field's new meaning.
LOG_VERSION = 1

# Stands for "no payload": msgspec leaves a field out where it is its default, and has no optional Raw.
NO_PAYLOAD = msgspec.Raw()


class Sender(Struct, omit_defaults=True, frozen=True):
    type: str | None = None
    id: str | None = None
    name: str | None = None


class Step(Struct, frozen=True):
    title: str
    mode: Literal["auto", "confirm"]


class Editor(Struct, omit_defaults=True, frozen=True):
    type: Literal["user", "ai"]
    id: str
    name: str | None = None


class Data(Struct, omit_defaults=True):
    """The `data` of a source event, checked (CONTRACT §2), times in microseconds. An absent field is None."""

    title: str | None = None
    body_md: str | None = None
    priority: str | None = None
    blocking: bool | None = None
    target_user_id: str | None = None
    target_role: str | None = None
    sender: Sender | None = None
    cluster: str | None = None
    stack: str | None = None
    conversation_id: str | None = None
    case_id: str | None = None
    case_title: str | None = None
    session_id: str | None = None
    action_url: str | None = None
    due_at: int | None = None
    expires_at: int | None = None
    payload: msgspec.Raw = NO_PAYLOAD
    by_user_id: str | None = None
    action: str | None = None
    steps: list[Step] | None = None
    risk: str | None = None
    reversible: bool | None = None
    pipeline: str | None = None
    step: str | None = None
    error: str | None = None
    incident_key: str | None = None
    editor: Editor | None = None
    owner_user_id: str | None = None
    state: str | None = None
    task_id: str | None = None
    proof_id: str | None = None


class Event(Struct, tag="event", tag_field="t", omit_defaults=True):
    """One accepted source event. `source` + `id` is its identity within the workspace; `time` decides, not arrival."""

    ws: str
    type: str
    subject: str
    time: int
    source: str
    id: str
    data: Data
    cleared: tuple[str, ...] = ()  # data fields an update set to null on purpose


class Command(Struct, omit_defaults=True, kw_only=True):
    """What a person did. `time` is the edge's clock; `id` names the outcome; `roles` are those the caller acts as."""

    ws: str
    id: str
    time: int
    user: str
    roles: tuple[str, ...]
    edge: str = ""
    idempotency_key: str | None = None
    if_rev: int | None = None


class SetState(Command, tag="set_state", tag_field="t"):
    """Crewship's PATCH (one item) and bulk (several)."""

    items: tuple[str, ...]
    state: Literal["unread", "read", "resolved"]
    resolved_action: str | None = None
    bulk: bool = False


class Dismiss(Command, tag="dismiss", tag_field="t"):
    item: str
    until: int | None = None  # a snooze ends then


class Restore(Command, tag="restore", tag_field="t"):
    item: str


class Widget(Struct, frozen=True):
    id: str
    visible: bool


class SetPreferences(Command, tag="set_preferences", tag_field="t"):
    """Replaces the keys it names; None leaves a key as it is."""

    pinned_clusters: list[str] | None = None
    widgets: list[Widget] | None = None


class Pack(Struct):
    """One record of `attn.log`. `at` (the writer's clock) moves the log's clock forward; it never goes back."""

    at: int
    entries: list[Event | SetState | Dismiss | Restore | SetPreferences] = []
    v: int = LOG_VERSION


encode_pack = msgspec.json.Encoder().encode
# UnsupportedVersion: of a newer attn. ValueError or RecursionError: not a pack.
decode_pack = versioned_decoder("a pack of attn.log", LOG_VERSION, msgspec.json.Decoder(Pack).decode)
