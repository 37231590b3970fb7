"""What is said on live connections: the frames of the feed, and both sides of the WebSocket. Streams are written from
these tables, or tests hold them against these models; the AsyncAPI document is made of them (api.contract.asyncapi)."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec
from pydantic import BaseModel, ConfigDict

from api.contract import responses
from api.contract.responses import Count

__all__ = [
    "CASE_EVENTS", "CLIENT_MESSAGES", "FRAMES", "SERVER_MESSAGES", "Auth", "Authenticated", "ClientMessage",
    "ErrorMessage", "InboxUpdated", "Ping", "Pong", "ServerMessage", "Subscribe", "Subscribed", "Unsubscribe",
    "Unsubscribed",
]

# Type of a fact -> what it is called here, and which of its fields are told.
CASE_EVENTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "case.state_changed": ("case_state_changed", ("case_id", "state")),
    "session.started": ("session_started", ("case_id", "session_id")),
    "session.waiting": ("session_waiting", ("case_id", "session_id")),
    "session.resumed": ("session_resumed", ("case_id", "session_id")),
    "session.completed": ("session_completed", ("case_id", "session_id")),
    "proof.attached": ("proof_attached", ("case_id", "session_id", "proof_id")),
    "proof.expiring": ("proof_expiring", ("case_id", "session_id", "proof_id")),
    "task.blocked": ("task_blocked", ("case_id", "session_id", "task_id")),
    "task.unblocked": ("task_unblocked", ("case_id", "session_id", "task_id")),
}


# --- frames of /org/me/feed, by the name of their event ---


class _Frame(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Snapshot(responses.Inbox):
    """Replaces all the reader has: the first `limit` items of the ranked list, and what is personal."""

    drafts: list[responses.Draft]
    preferences: responses.UserPreferences


class ItemFrame(_Frame):
    """The item as it is now, to be put in by its `rank`."""

    item: responses.RankedItem
    counts: responses.Counts


class RemovedFrame(_Frame):
    """The item left the window: `beyond` means that others pushed it out, not that it is gone."""

    id: str
    reason: Literal["resolved", "dismissed", "snoozed", "retargeted", "grouped", "beyond"]
    resolved_action: str | None = None
    counts: responses.Counts


class Heartbeat(_Frame):
    """The edge is alive, and this is its cursor."""

    at: datetime
    cursor: Count


FRAMES: dict[str, type[BaseModel] | type[list[responses.Draft]]] = {
    "snapshot": Snapshot, "added": ItemFrame, "changed": ItemFrame, "removed": RemovedFrame,
    "activity": responses.Activity, "drafts": list[responses.Draft], "preferences": responses.UserPreferences,
    "heartbeat": Heartbeat,
}


# --- the WebSocket ---


class ClientMessage(msgspec.Struct, tag_field="type", forbid_unknown_fields=True):
    """A client's message."""


class Auth(ClientMessage, tag="auth"):
    """Who it is: a token. The first message, unless the session cookie came with the handshake."""

    token: str


class Subscribe(ClientMessage, tag="subscribe"):
    channel: str


class Unsubscribe(ClientMessage, tag="unsubscribe"):
    channel: str


class Ping(ClientMessage, tag="ping"):
    pass


class ServerMessage(msgspec.Struct, tag_field="type", omit_defaults=True):
    pass


class Authenticated(ServerMessage, tag="authenticated"):
    workspace_id: str


class Subscribed(ServerMessage, tag="subscribed"):
    channel: str


class Unsubscribed(ServerMessage, tag="unsubscribed"):
    channel: str


class Pong(ServerMessage, tag="pong"):
    pass


class ErrorMessage(ServerMessage, tag="error"):
    """`limit`: how many connections may be, where that is what is wrong."""

    error: str
    channel: str | None = None
    limit: int | None = None


class InboxUpdated(ServerMessage, tag="inbox.updated"):
    """Ask again: the state of an item, `{"id","state"}`, or of a batch, `{"bulk":"true","state"}`, has changed."""

    channel: str
    payload: dict[str, str]


CLIENT_MESSAGES: tuple[type[ClientMessage], ...] = (Auth, Subscribe, Unsubscribe, Ping)
SERVER_MESSAGES: tuple[type[ServerMessage], ...] = (
    Authenticated, Subscribed, Unsubscribed, Pong, ErrorMessage, InboxUpdated)
