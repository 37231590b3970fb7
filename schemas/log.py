"""Records of `attn.log`: packs of normalised source events and of commands. An empty pack is a tick: it only advances
the log clock.

The models use msgspec, not pydantic: each event is encoded and decoded several times, and only attn writes them
(ops/decisions/0003). `attn schemas` exports them as JSON Schema as well.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from schemas.versions import versioned_decoder

__all__ = [
    "LOG_VERSION", "NO_PAYLOAD", "BatchAnswer", "ChangeSession", "Command", "CreateKey", "CreateLink", "Data", "Decide",
    "DecideMany", "Dismiss", "Editor", "EndSessions", "Event", "KeyUsed", "OpenSession", "Pack", "Report",
    "ReportedState", "Restore", "RevokeKey", "RevokeTokens", "Sender", "SessionUsed", "SetPreferences", "SetState",
    "Step", "TakeBack", "Widget", "decode_pack", "encode_pack",
]

# Raise it for a change that an older worker would fold differently or not at all: a new kind of entry, a new meaning of
# a field. Version 2: asks and decisions (CONTRACT §7), keys of sources (§8). Version 3: sessions (§9).
LOG_VERSION = 3

# Means "no payload": msgspec omits a field that has its default, and has no optional Raw.
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
    """Validated `data` of a source event (CONTRACT §2), times in microseconds. An absent field is None."""

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
    ask: msgspec.Raw = NO_PAYLOAD  # as the source wrote it; `reply.token` is sealed
    decision: str | None = None  # of `decision.applied` and `decision.refused`: which one; default the current one
    reason: str | None = None


class Event(Struct, tag="event", tag_field="t", omit_defaults=True):
    """One accepted source event. `source` and `id` identify it within the workspace. Its `time` (µs), not its arrival,
    decides what is newest (law 2)."""

    ws: str
    type: str
    subject: str
    time: int
    source: str
    id: str
    data: Data
    cleared: tuple[str, ...] = ()  # names of data fields that an update set to null


class Command(Struct, omit_defaults=True, kw_only=True):
    """A user's write. `time`: the edge's clock in microseconds; `id`: id of the outcome; `roles`: the roles that the
    user acts as; `if_rev`: revision from If-Match."""

    ws: str
    id: str
    time: int
    user: str
    roles: tuple[str, ...]
    edge: str = ""
    idempotency_key: str | None = None
    if_rev: int | None = None


class SetState(Command, tag="set_state", tag_field="t"):
    """Changes the state of one item (PATCH) or of several (`bulk`)."""

    items: tuple[str, ...]
    state: Literal["unread", "read", "resolved"]
    resolved_action: str | None = None
    bulk: bool = False


class Dismiss(Command, tag="dismiss", tag_field="t"):
    item: str
    until: int | None = None  # end of a snooze in microseconds; None: dismissed


class Restore(Command, tag="restore", tag_field="t"):
    item: str


class Decide(Command, tag="decide", tag_field="t"):
    """A person's answer to an item's question. `digest`: of the question that they saw; `by_edge`: of the one that the
    edge showed, because the request named none. `form` and `args`: JSON by `canonical_json.exact_json`, checked by the
    edge and again by the fold."""

    item: str
    option: str
    digest: str
    role: str
    name: str | None = None
    form: msgspec.Raw = NO_PAYLOAD
    args: msgspec.Raw = NO_PAYLOAD
    comment: str | None = None
    viewed: float | None = None
    by_edge: bool = False


class TakeBack(Command, tag="take_back", tag_field="t"):
    """Undoes the decision of an item, by one of the people who made it."""

    item: str


class BatchAnswer(Struct, frozen=True, omit_defaults=True):
    """One item of `DecideMany`, with the revision that the client saw; `by_edge`: that the edge showed."""

    item: str
    rev: int
    by_edge: bool = False


class DecideMany(Command, tag="decide_many", tag_field="t"):
    """The same plain option for several items: one without form, and that does not edit."""

    answers: tuple[BatchAnswer, ...]
    option: str
    role: str
    name: str | None = None
    comment: str | None = None


ReportedState = Literal["delivered", "applied", "refused", "undeliverable"]


class Report(Struct, tag="report", tag_field="t", omit_defaults=True):
    """What became of a decision at its receiver, as `attn deliver` and connectors report it. `id` identifies the
    report: a repeat changes nothing. `time`: microseconds. `again`: an operator sends the decision again."""

    ws: str
    id: str
    time: int
    decision: str
    state: ReportedState | Literal["again"]
    reason: str | None = None


class Widget(Struct, frozen=True):
    id: str
    visible: bool


class SetPreferences(Command, tag="set_preferences", tag_field="t"):
    """Replaces the preferences that it names; None leaves one unchanged."""

    pinned_clusters: list[str] | None = None
    widgets: list[Widget] | None = None


class CreateKey(Command, tag="create_key", tag_field="t"):
    """Creates a key with which a source sends events over HTTP (CONTRACT §8). `digest`: SHA-256 of the key's text, in
    hexadecimal; the text itself is in no record. `source`: prefix of the events' `source`; None: any."""

    key: str
    digest: str
    name: str
    topics: tuple[str, ...]
    source: str | None = None
    expires_at: int | None = None


class RevokeKey(Command, tag="revoke_key", tag_field="t"):
    key: str


class KeyUsed(Struct, tag="key_used", tag_field="t", omit_defaults=True):
    """An edge reports that a key was used in the hour that begins at `time` (µs). `id` names key and hour, so that the
    reports of several edges count once."""

    ws: str
    id: str
    key: str
    time: int


class OpenSession(Command, tag="open_session", tag_field="t"):
    """Opens a session of `user` in one workspace (CONTRACT §9); a session that enters several workspaces has one
    command for each. `digest`: SHA-256 of the cookie's text, in hexadecimal; the text itself is in no record. Times in
    microseconds. `link`: id of the sign-in link that it uses up. `limit`: sessions of the user, above which the oldest
    ends."""

    session: str
    digest: str
    role: str
    via: str
    expires_at: int
    idle: int
    limit: int
    name: str | None = None
    device: str = ""
    address: str = ""
    issuer: str | None = None
    issuer_sid: str | None = None
    subject: str | None = None  # `sub` at the issuer
    auth_time: int | None = None
    acr: str | None = None
    refresh: str | None = None  # the issuer's refresh token, sealed
    link: str | None = None


class EndSessions(Command, tag="end_sessions", tag_field="t"):
    """Ends one session, or all of a user except `keep`. `reason`: for the history."""

    session: str | None = None
    of_user: str | None = None
    keep: str | None = None
    reason: str = "revoked"


class ChangeSession(Command, tag="change_session", tag_field="t"):
    """Changes one session in one workspace; None leaves a field unchanged."""

    session: str
    role: str | None = None
    name: str | None = None
    expires_at: int | None = None
    auth_time: int | None = None
    acr: str | None = None
    refresh: str | None = None


class SessionUsed(Struct, tag="session_used", tag_field="t", omit_defaults=True):
    """An edge reports that a session was used in the hour that begins at `time` (µs), as `KeyUsed` of a key."""

    ws: str
    id: str
    session: str
    time: int


class RevokeTokens(Command, tag="revoke_tokens", tag_field="t"):
    """Revokes bearer tokens of the workspace: that with this `jti`, or those of a user issued before a time (default:
    the command's). `until`: when all of them have expired; None: unknown."""

    jti: str | None = None
    of_user: str | None = None
    before: int | None = None
    until: int | None = None


class CreateLink(Command, tag="create_link", tag_field="t"):
    """Creates a link that signs `of_user` in once. `digest`: SHA-256 of its text, in hexadecimal.

    `parent`: the session that lets a terminal in; the link is the terminal's. `denied`: it lets the terminal not in.
    `recorded`: whether the history has a fact of it; that of `attn up`, made at each start, has none until it is
    used."""

    link: str
    digest: str
    of_user: str
    role: str
    expires_at: int
    name: str | None = None
    parent: str | None = None
    denied: bool = False
    recorded: bool = True


class Pack(Struct):
    """One record of `attn.log`. `at` is the writer's clock in microseconds; the log clock is the highest `at` so
    far."""

    at: int
    entries: list[
        Event | SetState | Dismiss | Restore | SetPreferences | Decide | TakeBack | DecideMany | Report | CreateKey
        | RevokeKey | KeyUsed | OpenSession | EndSessions | ChangeSession | SessionUsed | RevokeTokens
        | CreateLink] = []
    v: int = LOG_VERSION


encode_pack = msgspec.json.Encoder().encode
# Raises UnsupportedVersion if a newer attn wrote the record; ValueError or RecursionError if it is not a pack.
decode_pack = versioned_decoder("a pack of attn.log", LOG_VERSION, msgspec.json.Decoder(Pack).decode)
