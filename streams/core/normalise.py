"""Normalises a source record: returns an event of the log, or raises `Rejected` with the reason."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from pydantic import ValidationError

from schemas.asking.ask import MAX_ASK_BYTES, Ask
from schemas.log import NO_PAYLOAD, Data, Editor, Event, Sender, Step
from schemas.sources import MODELS, CloudEvent, EventData
from schemas.topics import DECISION_REPORTS, TOPIC_OF_TYPE
from streams.core.asks.stored_text import to_stored_ask
from streams.core.json_text import read_json
from streams.core.normalise_fast import ValidatedEvent, validate_fast
from streams.core.sealing import Sealer

__all__ = ["EventLimits", "Rejected", "normalise"]

_CE_HEADER = "ce_"
_MAX_REASON = 500  # characters; a reason is a Kafka header and one line of `attn dead-letters`


class Rejected(Exception):
    """The record must go to dead-letters. `str(error)`: the reason; `cause`: one of schemas.dead_letters.CAUSES."""

    def __init__(self, reason: str, cause: str) -> None:
        super().__init__(reason)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class EventLimits:
    """Size limits of an accepted event (CONTRACT §2): `title` in characters, the others in bytes."""

    title: int = 512
    body: int = 64 << 10
    payload: int = 64 << 10
    event: int = 1 << 20


_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def normalise(
    topic: str, value: bytes | None, headers: Iterable[tuple[str, bytes | None]] = (),
    limits: EventLimits = EventLimits(), link_dropped: Callable[[], object] = lambda: None,
    sealer: Sealer | None = None,
) -> Event:
    """Returns the event of a record of a source topic. Headers decide between structured and binary CloudEvents.

    Raises Rejected with the field and the problem, so that a producer can fix it. Calls `link_dropped` if the event is
    accepted without its unusable `action_url`. `sealer` replaces the reply token of an ask; without one, an event with
    a token is rejected.
    """
    named = {name.lower(): raw for name, raw in headers}
    binary = "ce_specversion" in named and not _is_structured(named)
    value = value or (b"null" if binary else b"")  # an event without data, like most events that close
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
    validated = None if binary else validate_fast(event_type, value)
    attributes, time, fields = validated or _validate_with_model(
        event_type, envelope, value, binary, sealer)
    if validated is None and fields.get("action_url", "") is None and (envelope.get("data") or {}).get("action_url"):
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
    """Returns the decoded `data_base64`, in which some SDKs send JSON data."""
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError) as error:
        raise Rejected(f"data_base64: {error}", "json") from error


def _is_structured(headers: dict[str, bytes | None]) -> bool:
    return (headers.get("content-type") or b"").lower().startswith(b"application/cloudevents")


def _from_headers(headers: dict[str, bytes | None], data: Any) -> dict[str, Any]:
    """Returns the envelope of a binary CloudEvent: attributes are `ce_*` headers in UTF-8, the value is the data."""
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
    expected_topic = TOPIC_OF_TYPE.get(event_type)
    if expected_topic is None:
        if event_type in DECISION_REPORTS:
            return event_type  # on the topic of the source that got the decision
        raise Rejected(f"type: {event_type[:100]!r} is not one attn knows", "type")
    if expected_topic != topic:
        raise Rejected(f"type: {event_type} belongs on topic {expected_topic}, not {topic}", "type")
    return event_type


def _validate_with_model(
    event_type: str, envelope: dict[str, Any], value: bytes, binary: bool, sealer: Sealer | None,
) -> ValidatedEvent:
    """Returns the event as the pydantic model validates it. Raises Rejected with the first problems."""
    if envelope.get("data") is None:
        envelope.pop("data", None)  # null means no data, which an event that closes may have
    try:
        checked = MODELS[event_type].model_validate(envelope)
    except ValidationError as error:
        raise Rejected(_explain(error, envelope), "fields") from None  # its text has the input, and so a token
    fields = dict(checked.data)
    if event_type in DECISION_REPORTS:
        error_text = fields.pop("error")
        fields["reason"] = fields["reason"] or error_text
    payload, ask = fields.pop("payload", None), fields.pop("ask", None)
    if payload is not None or ask is not None:
        # Keeps the text of both: encoding them again would round large numbers.
        members = _decode_members(value if binary else _decode_members(value)["data"])
        if payload is not None:
            fields["payload"] = members["payload"]
        if ask is not None:
            fields["ask"] = _seal_ask(checked, ask, members["ask"], sealer)
    return ValidatedEvent(checked, checked.time, fields)


def _seal_ask(event: CloudEvent, ask: Ask, raw: msgspec.Raw, sealer: Sealer | None) -> msgspec.Raw:
    """Returns the text of the ask with its token sealed. Raises Rejected if it is too large, or cannot be sealed."""
    if (size := len(bytes(raw))) > MAX_ASK_BYTES:
        raise Rejected(f"data.ask: {size} bytes; at most {MAX_ASK_BYTES} are accepted", "size")
    token = ask.reply.token if ask.reply is not None else None
    if token is None:
        return to_stored_ask(raw, None)
    if sealer is None:
        raise Rejected(
            "data.ask.reply.token: the worker has no key to seal it; set ATTN_SEAL_KEYS for the worker, then send the "
            "event again", "key")
    question = [event.workspaceid, event.source, event.subject, ask.id or event.subject]
    return to_stored_ask(raw, sealer.seal(token, question))


def _explain(error: ValidationError, envelope: dict[str, Any]) -> str:
    problems = dict.fromkeys(
        f"{_place(item['loc'], envelope, item['type'] == 'missing')}: {item['msg']}"
        for item in error.errors(include_url=False, include_context=False, include_input=False))
    return "; ".join(problems)[:_MAX_REASON]


def _place(path: tuple[str | int, ...], node: Any, missing: bool) -> str:
    """Returns where in the event a problem is. Leaves out the names that pydantic adds for members of a union."""
    parts = []
    for number, part in enumerate(path, start=1):
        if isinstance(node, list) and isinstance(part, int):
            node = node[part]
        elif isinstance(node, dict) and (part in node or (missing and number == len(path))):
            node = node.get(part)
        else:
            continue
        parts.append(str(part))
    return ".".join(parts)


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
    """Returns the fields that an update sets to null or "". In other event types that means an absent field."""
    if event_type != "escalation.updated":
        return ()
    data = envelope.get("data") or {}
    return tuple(sorted(name for name, value in data.items() if value in (None, "") and name in EventData.model_fields))
