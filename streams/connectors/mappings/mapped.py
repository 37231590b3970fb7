"""What every mapping shares: its result, its error, readers of foreign JSON, and the envelope of an event. Pure.

A mapping turns a payload of another system into CloudEvents without `workspaceid`, which the edge adds. It never fails
with anything but MappingError, whatever JSON value it gets. The `id` of an event follows from what happened at the
other system, never from the delivery, so a hook that is repeated and a sweep that sees the same state make the same
event, and attn counts it once.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from hashlib import sha256
from math import isfinite
from typing import Any

import orjson

from schemas.scalars import format_timestamp, is_valid_unicode, parse_clamped_timestamp, parse_timestamp
from schemas.sources import is_link

__all__ = [
    "MAX_BODY", "MAX_TITLE", "CloudEventDict", "Mapped", "MappingError", "at_path", "clip", "cloud_event", "code_block",
    "code_span", "encode_event", "get_time", "link_of", "need_list", "need_object", "need_text", "need_time",
    "short_id", "shown", "text_of",
]

CloudEventDict = dict[str, Any]

MAX_TITLE = 300  # characters, below the limit of an event (ATTN_MAX_TITLE)
MAX_BODY = 16 << 10  # characters of a body
_MAX_ID = 400  # characters; attn accepts 512, and a prefix may follow
_BACKTICKS = re.compile("`+")
_MAX_SHOWN = 80  # characters of a foreign value in an error


class MappingError(Exception):
    """A payload, or one part of it, cannot be mapped. `field`: where, such as `alerts.0.startsAt`; "" is the payload.

    `str(error)` is `FIELD: REASON`.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field or 'payload'}: {reason}")
        self.field, self.reason = field, reason

    @property
    def index(self) -> int:
        """Position in the payload's list of the part that the field names, from 0; 0 for the payload as a whole."""
        return next((int(part) for part in self.field.split(".") if part.isascii() and part.isdecimal()), 0)


@dataclass(slots=True)
class Mapped:
    """The result for one payload.

    `events`: CloudEvents (dicts) in the order of the payload. `indexes`: for each event the position of its part in the
    payload's list; empty if the payload has one part. `problems`: parts that could not be mapped; the events of the
    other parts are complete. `ignored`: why a payload has no events, if that is intended. `truncated`: how many alerts
    the sender left out of the payload.
    """

    events: list[CloudEventDict] = field(default_factory=list)
    indexes: list[int] = field(default_factory=list)
    problems: list[MappingError] = field(default_factory=list)
    ignored: str = ""
    truncated: int = 0


def need_object(value: Any, place: str) -> dict[str, Any]:
    """Returns the value if it is a JSON object. Raises MappingError if not."""
    if not isinstance(value, dict):
        raise MappingError(place, f"must be an object, not {_kind(value)}")
    return value


def need_list(value: Any, place: str) -> list[Any]:
    """Returns the value if it is a JSON array. Raises MappingError if not."""
    if not isinstance(value, list):
        raise MappingError(place, f"must be an array, not {_kind(value)}")
    return value


def at_path(value: Any, *names: str) -> Any:
    """Returns a member of nested objects; None if a level is missing or no object."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def text_of(value: Any, limit: int = 1000) -> str:
    """Returns a text, clipped to `limit` characters; "" for anything else. A number becomes its digits."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    if isinstance(value, int) and abs(value) >= 10**18:
        return ""
    return clip(str(value), limit)


def need_text(value: Any, place: str, limit: int = _MAX_ID) -> str:
    """Returns a text of 1 to `limit` characters that is not blank, or an integer's digits. Raises MappingError."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18 else value
    if text is None:
        raise MappingError(place, "is missing")
    if not isinstance(text, str):
        raise MappingError(place, f"must be text, not {_kind(value)}")
    if not text.strip() or len(text) > limit or not is_valid_unicode(text):
        raise MappingError(place, f"must be text of 1 to {limit} characters, not {len(text)} ({shown(text)})")
    return text


def need_time(value: Any, place: str) -> int:
    """Returns the microseconds of an RFC 3339 time between 1970 and 2200. Raises MappingError for anything else."""
    time = get_time(value, place)
    if time is None:
        raise MappingError(place, "is missing" if value in (None, "") else f"is before 1970 ({shown(value)})")
    return time


def get_time(value: Any, place: str) -> int | None:
    """Returns the microseconds of an RFC 3339 time; None if it is missing or before 1970, as Go's zero time is.

    Raises MappingError for a time from 2200 on, and for anything else.
    """
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise MappingError(place, f"must be a time, not {_kind(value)}")
    try:
        return None if parse_clamped_timestamp(value) is None else parse_timestamp(value)
    except (ValueError, OverflowError) as error:
        raise MappingError(place, f"{error} ({shown(value)})") from None


def clip(text: str, limit: int) -> str:
    """Returns text of at most `limit` characters without lone surrogates; a cut one ends with an ellipsis."""
    if not is_valid_unicode(text):
        text = text.encode(errors="surrogatepass").decode(errors="replace")
    return text if len(text) <= limit else text[:limit - 1] + "…"


def link_of(*values: Any) -> str | None:
    """Returns the first value that a page may show as a link; None if there is none."""
    return next((value for value in values if isinstance(value, str) and value and is_link(value)), None)


def code_block(text: str) -> str:
    """Returns a Markdown code block: foreign text in it has no effect, whatever it contains."""
    longest = max(map(len, _BACKTICKS.findall(text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def short_id(text: str) -> str:
    """Returns 16 hex digits that stand for a text of any length."""
    return sha256(text.encode(errors="replace")).hexdigest()[:16]


def code_span(text: str) -> str:
    """Returns a Markdown code span of one line: foreign text in it has no effect."""
    return "`" + " ".join(text.replace("`", "'").split()) + "`"


def shown(value: Any) -> str:
    """Returns a foreign value for an error: the begin of a text, the kind of anything else."""
    return repr(clip(value, _MAX_SHOWN)) if isinstance(value, str) else _kind(value)


def cloud_event(
    type: str, subject: str, time: int, *, id: str, source: str, data: dict[str, Any] | None = None,
) -> CloudEventDict:
    """Returns a CloudEvent. `time`: microseconds. Members of `data` that are None are left out.

    An `id` of more than 400 characters is replaced by a digest of itself.
    """
    event: CloudEventDict = {
        "specversion": "1.0", "id": id if len(id) <= _MAX_ID else short_id(id), "source": source, "type": type,
        "subject": subject, "time": format_timestamp(time),
    }
    kept = {name: value for name, value in (data or {}).items() if value is not None}
    return event | ({"data": kept} if kept else {})


def encode_event(event: CloudEventDict) -> bytes:
    """Returns the JSON text of an event. Numbers of any length are kept; infinity, which JSON lacks, becomes null."""
    try:
        return orjson.dumps(event)
    except TypeError:  # an integer of more than 64 bits, or a lone surrogate
        return json.dumps(_without_infinity(event), separators=(",", ":")).encode()


def _without_infinity(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_infinity(child) for name, child in value.items()}
    if isinstance(value, list):
        return [_without_infinity(child) for child in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


