"""Records of the topic `decisions`: CloudEvents about what people decided, in JSON, structured mode (CONTRACT §7).

The key is the workspace. `id` is the decision's id and the verb (`dec_….made`): a record that is written again after a
crash has the same id. The fold emits these records with the sealed reply token; the worker opens it while it writes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from schemas.log import NO_PAYLOAD

__all__ = [
    "DECISION_SOURCE", "Actor", "DecisionData", "DecisionEvent", "DecisionVerb", "Fence", "QuestionRef", "ReplyTo",
    "decode_decision", "encode_decision",
]

DECISION_SOURCE = "/attn/decisions"
DecisionVerb = Literal["made", "taken_back", "expired", "delivered", "refused", "applied"]


class Actor(msgspec.Struct, omit_defaults=True):
    """One of the people who decided. `at`: RFC 3339; `vote`: the option that they chose."""

    user: str
    role: str
    at: str
    vote: str
    name: str | None = None
    comment: str | None = None


class QuestionRef(msgspec.Struct):
    """`id`: the source's handle of the question (`ask.id`, default the subject). `digest`: of what was shown."""

    id: str
    digest: str


class Fence(msgspec.Struct):
    """Position in `attn.log` that made the decision. A later decision of the same workspace has a higher offset."""

    partition: int
    offset: int


class ReplyTo(msgspec.Struct, omit_defaults=True):
    """`to`: name of the endpoint; `token`: the source's, opened for this record; `error`: why it cannot be opened."""

    to: str | None = None
    token: str | None = None
    error: str | None = None


class DecisionData(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`args`: all arguments of the action anew, of an edit only; `edited`: JSON pointers of what differs.

    `undo_until`: until then a person may take it back; a source that acts earlier ends that. `reason`: why the source
    refused it, or why it was not delivered. `source`: that of the event which asked. `confirm`: whether attn waits for
    the source to say that it took effect. `members`: of an incident, the source ids of the runs that were open.
    """

    decision: str
    item: str
    kind: str
    source: str
    question: QuestionRef
    opened_at: str
    decided_at: str
    fence: Fence
    option: str | None = None
    does: str | None = None
    title: str | None = None
    args: msgspec.Raw = NO_PAYLOAD
    edited: tuple[str, ...] | None = None
    form: msgspec.Raw = NO_PAYLOAD
    comment: str | None = None
    actors: tuple[Actor, ...] = ()
    undo_until: str | None = None
    expires_at: str | None = None
    reason: str | None = None
    confirm: bool = True
    batch: str | None = None
    members: tuple[str, ...] = ()
    reply: ReplyTo | None = None


class DecisionEvent(msgspec.Struct, kw_only=True):
    """CloudEvent 1.0. `type`: `decision.` and a verb; `subject`: the source's id; `time`: when the state began."""

    id: str
    type: str
    subject: str
    time: str
    workspaceid: str
    data: DecisionData
    source: str = DECISION_SOURCE
    specversion: str = "1.0"
    datacontenttype: str = "application/json"


encode_decision = msgspec.json.Encoder().encode
# Raises ValueError or RecursionError if the record is no decision.
decode_decision: Callable[[bytes], DecisionEvent] = msgspec.json.Decoder(DecisionEvent).decode
