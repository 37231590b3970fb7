"""Messages of the live connections: feed frames, case events, and both directions of the WebSocket.

`api.contract.asyncapi` generates the AsyncAPI document from these models. The encoders of case events and WebSocket
messages use them; tests validate the feed frames, which are encoded elsewhere, against them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec
from pydantic import BaseModel, ConfigDict

from api.contract.responses.base import Count
from api.contract.responses.history import Activity
from api.contract.responses.inbox import Draft, UserPreferences
from api.contract.responses.items import Counts, Inbox, RankedItem

__all__ = [
    "CASE_EVENTS", "CLIENT_MESSAGES", "FRAMES", "SERVER_MESSAGES", "Auth", "Authenticated", "ClientMessage",
    "ErrorMessage", "InboxUpdated", "Ping", "Pong", "ServerMessage", "Subscribe", "Subscribed", "Unsubscribe",
    "Unsubscribed",
]

# Type of a fact -> type of the case event, and the fields of the fact that it contains.
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


class Snapshot(Inbox):
    """Replaces the client's whole copy: the first `limit` items of the ranked list, drafts, preferences and
    activity."""

    drafts: list[Draft]
    preferences: UserPreferences


class ItemFrame(_Frame):
    """The current item; the client inserts it by its `rank`."""

    item: RankedItem
    counts: Counts


class RemovedFrame(_Frame):
    """The item left the window. `decided`: its question got a decision, and the source has not closed it yet. `beyond`:
    it still exists, but items of higher rank displaced it."""

    id: str
    reason: Literal["resolved", "decided", "dismissed", "snoozed", "retargeted", "grouped", "beyond"]
    resolved_action: str | None = None
    counts: Counts


class Heartbeat(_Frame):
    """The edge is alive; `cursor` is its current cursor."""

    at: datetime
    cursor: Count


FRAMES: dict[str, type[BaseModel] | type[list[Draft]]] = {
    "snapshot": Snapshot, "added": ItemFrame, "changed": ItemFrame, "removed": RemovedFrame,
    "activity": Activity, "drafts": list[Draft], "preferences": UserPreferences,
    "heartbeat": Heartbeat,
}


# --- the WebSocket ---


class ClientMessage(msgspec.Struct, tag_field="type", forbid_unknown_fields=True):
    """A message of the client."""


class Auth(ClientMessage, tag="auth"):
    """Authenticates by a token. It is the first message, unless the handshake has the session cookie."""

    token: str


class Subscribe(ClientMessage, tag="subscribe"):
    """Subscribes to a channel, `workspace:ID` of the caller's workspace."""

    channel: str


class Unsubscribe(ClientMessage, tag="unsubscribe"):
    """Ends a subscription."""

    channel: str


class Ping(ClientMessage, tag="ping"):
    """Checks the connection; the edge answers with `pong`."""


class ServerMessage(msgspec.Struct, tag_field="type", omit_defaults=True):
    """A message of the edge."""


class Authenticated(ServerMessage, tag="authenticated"):
    """The caller is authenticated."""

    workspace_id: str


class Subscribed(ServerMessage, tag="subscribed"):
    """The subscription is active."""

    channel: str


class Unsubscribed(ServerMessage, tag="unsubscribed"):
    """The subscription has ended."""

    channel: str


class Pong(ServerMessage, tag="pong"):
    """Answers a `ping`."""


class ErrorMessage(ServerMessage, tag="error"):
    """An error. `channel`: the channel of a refused subscription. `limit`: the allowed number of connections, if it is
    exceeded."""

    error: str
    channel: str | None = None
    limit: int | None = None


class InboxUpdated(ServerMessage, tag="inbox.updated"):
    """The state of items has changed, or votes and decisions of items that ask, so the client should read the inbox
    again. `payload`: `{"id","state"}` for one item, `{"bulk":"true","state"}` for many."""

    channel: str
    payload: dict[str, str]


CLIENT_MESSAGES: tuple[type[ClientMessage], ...] = (Auth, Subscribe, Unsubscribe, Ping)
SERVER_MESSAGES: tuple[type[ServerMessage], ...] = (
    Authenticated, Subscribed, Unsubscribed, Pong, ErrorMessage, InboxUpdated)
