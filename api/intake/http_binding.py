"""HTTP protocol binding of CloudEvents 1.0: splits a request into events. Pure.

An event is what a Kafka record would have: a value and headers. A structured event keeps its bytes, a binary one its
body and its attributes as `ce_*` headers, and each event of a batch its own bytes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Literal, NamedTuple

import msgspec

from streams.core.json_text import read_json

__all__ = ["MalformedRequest", "Mode", "SentEvent", "UnsupportedMedia", "binary_event", "mode_of", "split_batch"]

Mode = Literal["structured", "batch", "binary"]

_HINT = (
    "send content-type: application/cloudevents+json (one event), application/cloudevents-batch+json (a JSON array of "
    "events), or the attributes as ce-* headers (binary mode)")
_UTF8 = re.compile(r"""\s*charset\s*=\s*"?(?:utf-?8|us-ascii)"?\s*""", re.IGNORECASE)
_PREFIX = b"ce-"
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")

_split = msgspec.json.Decoder(list[msgspec.Raw]).decode


class UnsupportedMedia(Exception):
    """The request is no CloudEvent in a supported mode and format (415). `str(error)` says what to send."""


class MalformedRequest(Exception):
    """The request cannot be split into events (400). `str(error)`: the reason."""


class SentEvent(NamedTuple):
    """One event of a request: value and headers of the Kafka record that it becomes."""

    value: bytes
    headers: list[tuple[str, bytes]]


def mode_of(content_type: str, has_attributes: bool) -> Mode:
    """Returns the mode of a request. `has_attributes`: it has a header `ce-specversion`.

    Raises UnsupportedMedia if it is in none, or in another format or encoding of text than JSON in UTF-8.
    """
    media, *parameters = content_type.split(";")
    media = media.strip().lower()
    if media.startswith("application/cloudevents"):
        if media not in ("application/cloudevents+json", "application/cloudevents-batch+json"):
            raise UnsupportedMedia(f"content-type: the event format of {media[:100]} is not supported: {_HINT}")
        if any("charset" in part.lower() and not _UTF8.fullmatch(part) for part in parameters):
            raise UnsupportedMedia("content-type: JSON must be in UTF-8")
        return "batch" if media == "application/cloudevents-batch+json" else "structured"
    if has_attributes:
        return "binary"
    raise UnsupportedMedia(f"not a CloudEvent: {_HINT}")


def split_batch(body: bytes, limit: int) -> list[bytes]:
    """Returns the bytes of each event of a batch. Raises MalformedRequest if the body is no JSON array, or has more
    than `limit` events."""
    try:
        events = _split(body)
    except (ValueError, RecursionError):
        events = _split_repaired(body)
    if len(events) > limit:
        raise MalformedRequest(f"the batch has {len(events)} events: at most {limit} are accepted in one request")
    return [bytes(event) for event in events]


def _split_repaired(body: bytes) -> list[msgspec.Raw]:
    """Splits a batch that msgspec refuses, but a worker would read: with a byte order mark or a lone surrogate."""
    try:
        text, _ = read_json(body)
        return _split(text)
    except msgspec.ValidationError:
        raise MalformedRequest("the batch is not a JSON array of events") from None
    except (ValueError, RecursionError) as error:
        raise MalformedRequest(f"the batch is not JSON: {error}") from None


def binary_event(headers: Iterable[tuple[bytes, bytes]], body: bytes) -> SentEvent:
    """Returns the event of a request in binary mode. `headers`: lower-case names, as sent.

    Raises MalformedRequest if a `ce-*` header occurs twice or is not UTF-8 after percent-decoding. The data's media
    type is the Content-Type; a header `ce-datacontenttype`, which the binding does not allow, is dropped.
    """
    named: list[tuple[str, bytes]] = []
    for name, value in headers:
        if name == b"content-type":
            named.append(("content-type", value))
        elif name.startswith(_PREFIX) and name != b"ce-datacontenttype":
            named.append((f"ce_{name.removeprefix(_PREFIX).decode('latin-1')}", _attribute(name, value)))
    repeated = [name for name, count in Counter(name for name, _ in named).items() if count > 1]
    if repeated:
        raise MalformedRequest(f"header {repeated[0].replace('ce_', 'ce-', 1)} occurs more than once")
    return SentEvent(body, named)


def _attribute(name: bytes, value: bytes) -> bytes:
    """Returns an attribute's value in UTF-8: double-quoted parts are unescaped, then one round of percent-decoding."""
    plain = _QUOTED.sub(lambda quoted: _ESCAPED.sub(rb"\1", quoted[1]), value)
    decoded = _PERCENT.sub(lambda match: bytes((int(match[1], 16),)), plain)
    try:
        decoded.decode()
    except UnicodeDecodeError:
        raise MalformedRequest(f"header {name.decode('latin-1')} is not UTF-8 after percent-decoding") from None
    return decoded
