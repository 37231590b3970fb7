"""Request and response models of the doors for sources without a Kafka producer (CONTRACT §8)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from schemas.scalars import is_valid_unicode, parse_timestamp
from schemas.topics import SOURCE_TYPES

__all__ = [
    "EVENTS_BODY", "EVENTS_RESPONSES", "HOOK_BODY", "HOOK_RESPONSES", "CreatedKey", "EventsAccepted", "EventsRefused",
    "HookAccepted", "HookRefused", "KeyList", "KeyRequest",
    "RevokedKey", "SourceKey",
]

MAX_NAME, MAX_SOURCE = 200, 2000


def _time(value: Any) -> Any:
    if value is None:
        return None
    try:
        return parse_timestamp(value) if isinstance(value, str) else parse_timestamp("")
    except (ValueError, OverflowError):
        raise PydanticCustomError("time", "must be an RFC 3339 time with an offset") from None


def _topics(value: list[str]) -> list[str]:
    for topic in value:
        if topic not in SOURCE_TYPES:
            raise PydanticCustomError("topic", "{topic} is not one of {topics}",
                                      {"topic": repr(topic[:100]), "topics": ", ".join(SOURCE_TYPES)})
    return sorted(set(value))


def _text(value: str) -> str:
    if not value.strip() or not is_valid_unicode(value):
        raise PydanticCustomError("text", "must be text that is not blank")
    return value


Text = Annotated[str, AfterValidator(_text)]


class KeyRequest(BaseModel):
    """A new key of a source. It may send events to its topics, of its source and those below it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[Text, StringConstraints(max_length=MAX_NAME)] = Field(examples=["CI"])
    topics: Annotated[list[str], Field(min_length=1, max_length=50), AfterValidator(_topics)] = Field(
        examples=[["waitpoints", "run-failures"]])
    source: Annotated[Text, StringConstraints(max_length=MAX_SOURCE)] | None = Field(
        None, examples=["/pipelines"],
        description="the events' `source` must equal it, or begin with it and a slash; default: any source")
    expires_at: Annotated[
        int | None, BeforeValidator(_time), WithJsonSchema({"type": "string", "format": "date-time"})] = None


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SourceKey(_Model):
    """A key of a source, without its text. `last_used`: the begin of the newest hour in which it was used."""

    id: str = Field(examples=["3vQ8ZkLw0a1B2c3D"])
    name: str
    topics: list[str]
    source: str | None = None
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None
    last_used: datetime | None = None


class KeyList(_Model):
    keys: list[SourceKey]


class CreatedKey(_Model):
    """`secret` is the key's text. It is in this response only; a repeat with the same Idempotency-Key lacks it."""

    key: SourceKey
    secret: str | None = Field(None, pattern="^attn_[0-9A-Za-z]{16}_[0-9A-Za-z]{49}$")


class RevokedKey(_Model):
    id: str
    revoked: bool


class RejectedEvent(_Model):
    """`index`: position in the batch, from 0. `error`: the reason, as a dead letter would have it."""

    index: Annotated[int, Field(ge=0)]
    error: str = Field(examples=["data.title: Field required, as this event opens an item"])
    status: int = Field(description="status of a request with this event alone: 400, 403 or 413", examples=[400])


class EventsAccepted(_Model):
    """The accepted events are durable on their topics."""

    accepted: Annotated[int, Field(ge=0)] = Field(examples=[2])
    rejected: list[RejectedEvent]


class EventsRefused(BaseModel):
    """No event was accepted. `rejected` names each of them, unless the request as a whole was refused."""

    model_config = ConfigDict(extra="allow")
    error: str = Field(examples=["type: 'deploy' is not one attn knows"])
    accepted: Annotated[int, Field(ge=0)] | None = None
    rejected: list[RejectedEvent] | None = None


_EXAMPLE = {
    "specversion": "1.0", "id": "evt-1", "source": "/pipelines/deploy", "type": "waitpoint.created", "subject": "wp_1",
    "time": "2026-05-20T08:14:22Z", "data": {"title": "Review production deploy", "priority": "high"},
}
_EVENT = {"type": "object", "required": ["specversion", "id", "source", "type", "subject", "time"]}

# `openapi_extra` of POST /events: the route reads the body itself.
EVENTS_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": {
    "application/cloudevents+json": {"schema": _EVENT, "example": _EXAMPLE},
    "application/cloudevents-batch+json": {"schema": {"type": "array", "items": _EVENT}, "example": [_EXAMPLE]},
}}}


def _refusal(description: str, error: str, **more: Any) -> dict[str, Any]:
    return {"model": EventsRefused, "description": description, "content": {
        "application/json": {"example": {"error": error, **more}}}}


def _one(status: int, error: str) -> dict[str, Any]:
    return {"accepted": 0, "rejected": [{"index": 0, "error": error, "status": status}]}


_TITLE = "data.title: Field required, as this event opens an item"
_TOPIC = "type: the key may not send to topic plans"
_LARGE = "the event is 1048577 bytes; at most 1048576 are accepted"
EVENTS_RESPONSES: dict[int | str, dict[str, Any]] = {
    202: {"model": EventsAccepted, "description": "the accepted events are durable; `rejected` names the others",
          "content": {"application/json": {"example": {
              "accepted": 2, "rejected": [{"index": 1, "error": _TITLE, "status": 400}]}}}},
    400: _refusal("no event can be read, or each is invalid", _TITLE, **_one(400, _TITLE)),
    401: _refusal("no key or token, or one that is not valid", "the key is not known, or was revoked"),
    403: _refusal("outside of the key's workspace, topics or source, or not a role that sends events",
                  _TOPIC, **_one(403, _TOPIC)),
    413: _refusal("the body, or the event in it, is too large", _LARGE, **_one(413, _LARGE)),
    415: _refusal("not a CloudEvent in JSON, or an encoding other than gzip",
                  "content-encoding: 'br' is not supported; send gzip, or none"),
    429: _refusal("the rate or the number of requests in progress of this key; `Retry-After` has the seconds",
                  "too many events: at most 200 a second; 4096 bytes of a body count as one more"),
    503: _refusal("Kafka has not acknowledged the events in time: send them again after `Retry-After` seconds",
                  "Kafka has not acknowledged the events in time; send them again: an event that arrives twice counts "
                  "once"),
}


class HookAccepted(EventsAccepted):
    """The events of a webhook are durable. `rejected`: parts that could not be mapped, by their position in the
    payload; the payload is in `dead-letters` then."""

    ignored: str | None = Field(None, description="why the webhook makes no event",
                                examples=["event 'push' is not mapped"])
    truncated: Annotated[int, Field(ge=1)] | None = Field(
        None, description="alerts that the sender left out; attn connect alertmanager reads them from its API")


class HookRefused(EventsRefused):
    """The webhook was refused. With 400 the payload is in `dead-letters`."""


_DELIVERY = {"version": "4", "status": "firing", "groupKey": "{}:{alertname=\"HighLatency\"}", "alerts": [{
    "status": "firing", "labels": {"alertname": "HighLatency", "severity": "critical", "cluster": "eu-1"},
    "annotations": {"summary": "p99 is above 2 s"}, "startsAt": "2026-05-20T08:14:22Z",
    "endsAt": "0001-01-01T00:00:00Z", "fingerprint": "9bca5e254e89f060"}]}
HOOK_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": {
    "application/json": {"schema": {}, "example": _DELIVERY},
    "application/x-www-form-urlencoded": {"schema": {"type": "object", "properties": {"payload": {"type": "string"}}}},
}}}
_STARTS = "alerts.0.startsAt: is missing"
_SIGNED = ("a webhook needs a key, as Authorization: Bearer or as the password of Authorization: Basic, or a body that "
           "is signed with a secret of the hook")
HOOK_RESPONSES: dict[int | str, dict[str, Any]] = {
    202: {"model": HookAccepted,
          "description": "the events are durable; `rejected` names parts that are in dead-letters",
          "content": {"application/json": {"example": {
              "accepted": 1, "rejected": [{"index": 0, "error": _STARTS, "status": 400}], "truncated": 2}}}},
    400: _refusal("the payload as a whole cannot be mapped; it is in dead-letters",
                  "version: must be '4', not '1'; Grafana sends to /hooks/grafana",
                  **_one(400, "version: must be '4', not '1'; Grafana sends to /hooks/grafana")),
    401: _refusal("no key or token, or one that is not valid, or a wrong signature", _SIGNED),
    403: _refusal("every event is outside of the key's topics or source, or not a role that sends events",
                  "type: the key may not send to topic escalations",
                  **_one(403, "type: the key may not send to topic escalations")),
    404: _refusal("no such hook in the workspace", "no hook named 'jira'; alertmanager, grafana and github are built "
                                                   "in, others are in the file ATTN_HOOKS"),
    413: _refusal("the body is too large, also after decompression", "the body is too large: at most 4194304 bytes"),
    415: _refusal("an encoding other than gzip", "content-encoding: 'br' is not supported; send gzip, or none"),
    429: _refusal("the rate or the number of requests in progress of this sender; of Alertmanager 503",
                  "too many events: at most 200 a second; 4096 bytes of a body count as one more"),
    503: EVENTS_RESPONSES[503],
}
