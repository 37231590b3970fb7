"""One source record -> one event of the log, or the reason why not. Pure: bytes in, a value or `Rejected` out."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from pydantic import ValidationError

from schemas.log import NO_PAYLOAD, Data, Editor, Event, Sender, Step
from schemas.sources import MODELS, EventData
from schemas.topics import TOPIC_OF_TYPE
from streams.core.json_text import read_json
from streams.core.normalise_fast import ValidatedEvent, validate_fast

__all__ = ["EventLimits", "Rejected", "normalise"]

_CE_HEADER = "ce_"
_MAX_REASON = 500  # characters: a reason is a Kafka header and a line on a terminal


class Rejected(Exception):
    """The record goes to dead-letters; `str(error)` is the reason given there, `cause` what it comes to
    (schemas.dead_letters.CAUSES)."""

    def __init__(self, reason: str, cause: str) -> None:
        super().__init__(reason)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class EventLimits:
    """Sizes beyond which a record is rejected (CONTRACT §2): characters of a title, else bytes."""

    title: int = 512
    body: int = 64 << 10
    payload: int = 64 << 10
    event: int = 1 << 20


_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def normalise(
    topic: str, value: bytes | None, headers: Iterable[tuple[str, bytes | None]] = (),
    limits: EventLimits = EventLimits(), link_dropped: Callable[[], object] = lambda: None,
) -> Event:
    """A record of a source topic as an event of the log. Structured and binary CloudEvents are told apart by headers.

    Raises `Rejected` with a reason a producer can act on: what is wrong and where. Calls `link_dropped` where the event
    is accepted without its `action_url`.
    """
    named = {name.lower(): raw for name, raw in headers}
    binary = "ce_specversion" in named and not _is_structured(named)
    value = value or (b"null" if binary else b"")  # an event without data, as most that close
    if not value:
        raise Rejected("the record has no value", "empty")
    if len(value) > limits.event:
        raise Rejected(f"the event is {len(value)} bytes; at most {limits.event} are accepted", "size")
    value, body = _parse_json(value)
    envelope = _from_headers(named, body) if binary else body
    if not isinstance(envelope, dict):
        raise Rejected(f"not a CloudEvent: a JSON object is expected, not {type(envelope).__name__}", "envelope")
    if not binary and "data_base64" in envelope and envelope.get("data") is None:
        value, envelope["data"] = _parse_json(_from_base64(envelope["data_base64"]), "data_base64: ")
        binary = True
    event_type = _event_type_of(topic, envelope)
    found = None if binary else validate_fast(event_type, value)
    attributes, time, fields = found or _validate_with_model(event_type, envelope, value, binary)
    if found is None and fields["action_url"] is None and (envelope.get("data") or {}).get("action_url"):
        link_dropped()
    data = _to_data(fields)
    _check_limits(event_type, data, limits)
    return Event(
        ws=attributes.workspaceid, type=event_type, subject=attributes.subject, time=time, source=attributes.source,
        id=attributes.id, data=data, cleared=_cleared_fields(event_type, envelope),
    )


def _parse_json(value: bytes, where: str = "") -> tuple[bytes, Any]:
    try:
        return read_json(value)
    except ValueError as error:
        raise Rejected(f"{where}not JSON: {error}", "json") from error


def _from_base64(text: Any) -> bytes:
    """The data of an SDK that was given bytes and does not look into them."""
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError) as error:
        raise Rejected(f"data_base64: {error}", "json") from error


def _is_structured(headers: dict[str, bytes | None]) -> bool:
    return (headers.get("content-type") or b"").lower().startswith(b"application/cloudevents")


def _from_headers(headers: dict[str, bytes | None], data: Any) -> dict[str, Any]:
    """The envelope of binary mode: attributes are `ce_*` headers in UTF-8, the value is the data."""
    try:
        envelope: dict[str, Any] = {
            name.removeprefix(_CE_HEADER): (raw or b"").decode()
            for name, raw in headers.items() if name.startswith(_CE_HEADER)
        }
    except UnicodeDecodeError as error:
        raise Rejected(f"a ce_* header is not UTF-8: {error}", "envelope") from error
    envelope["data"] = data
    return envelope


def _event_type_of(topic: str, envelope: dict[str, Any]) -> str:
    event_type = envelope.get("type")
    if not isinstance(event_type, str):
        raise Rejected("type: a CloudEvent needs one", "envelope")
    belongs = TOPIC_OF_TYPE.get(event_type)
    if belongs is None:
        raise Rejected(f"type: {event_type[:100]!r} is not one attn knows", "type")
    if belongs != topic:
        raise Rejected(f"type: {event_type} belongs on topic {belongs}, not {topic}", "type")
    return event_type


def _validate_with_model(event_type: str, envelope: dict[str, Any], value: bytes, binary: bool) -> ValidatedEvent:
    """What `quick` gives, or the reason why not."""
    if envelope.get("data") is None:
        envelope.pop("data", None)  # null is no data, which is enough for an event that closes
    try:
        checked = MODELS[event_type].model_validate(envelope)
    except ValidationError as error:
        raise Rejected(_explain(error), "fields") from error
    fields = dict(checked.data)
    if fields.pop("payload") is not None:
        # The payload is carried as it is: its own bytes, not a re-encoding that would round large numbers.
        fields["payload"] = _decode_members(value if binary else _decode_members(value)["data"])["payload"]
    return ValidatedEvent(checked, checked.time, fields)


def _explain(error: ValidationError) -> str:
    found = [f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors(
        include_url=False, include_context=False, include_input=False)]
    return "; ".join(found)[:_MAX_REASON]


def _to_data(fields: dict[str, Any]) -> Data:
    if (sender := fields.get("sender")) is not None:
        fields["sender"] = Sender(sender.type, sender.id, sender.name)
    if (steps := fields.get("steps")) is not None:
        fields["steps"] = [Step(step.title, step.mode) for step in steps]
    if (editor := fields.get("editor")) is not None:
        fields["editor"] = Editor(editor.type, editor.id, editor.name)
    return Data(**fields)


def _check_limits(event_type: str, data: Data, limits: EventLimits) -> None:
    opens = (event_type == "draft.edited" and data.editor is not None and data.editor.type == "ai") or (
        event_type == "case.state_changed" and data.state == "BLOCKED"
    )
    if opens and data.title is None:
        raise Rejected("data.title: Field required, as this event opens an item", "fields")
    if data.title is not None and len(data.title) > limits.title:
        raise Rejected(f"data.title: {len(data.title)} characters; at most {limits.title} are accepted", "size")
    for name, text in (("body_md", data.body_md), ("error", data.error)):
        if text is not None and len(text) * 4 > limits.body and len(text.encode()) > limits.body:
            raise Rejected(f"data.{name}: {len(text.encode())} bytes; at most {limits.body} are accepted", "size")
    if data.payload is not NO_PAYLOAD and len(bytes(data.payload)) > limits.payload:
        raise Rejected(f"data.payload: {len(bytes(data.payload))} bytes; at most {limits.payload} are accepted", "size")


def _cleared_fields(event_type: str, envelope: dict[str, Any]) -> tuple[str, ...]:
    """What an update sets to null, or to "", on purpose; elsewhere that is the same as an absent field."""
    if event_type != "escalation.updated":
        return ()
    given = envelope.get("data") or {}
    return tuple(sorted(name for name, item in given.items() if item in (None, "") and name in EventData.model_fields))
