"""Request and response models of the doors for sources without a Kafka producer (CONTRACT §8)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from schemas.scalars import is_valid_unicode, parse_timestamp
from schemas.topics import SOURCE_TYPES

__all__ = ["CreatedKey", "EventsAccepted", "EventsRefused", "KeyList", "KeyRequest", "RevokedKey", "SourceKey"]

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
