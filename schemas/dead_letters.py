"""Records of `dead-letters`. Key and value are the bytes of the rejected record; headers have its source and the
reason.

So any Kafka tool can read a rejected record, and send it again. Its own headers are kept before those of attn. Records
without a value are operator markers: `ResolvedMarker` and `ResumeTopicMarker`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

__all__ = ["CAUSES", "DeadLetter", "ResolvedMarker", "ResumeTopicMarker", "SourceRecord", "parse_record"]

_PREFIX = "attn-"

Headers = list[tuple[str, bytes]]

_RESERVED_BYTES = 4096  # bytes for attn's own headers without the reason, and for Kafka's batch header
_HEADER_BYTES = 10  # bytes for the lengths of a header's name and value
_MAX_HEADERS = 1000  # headers that are kept of a record that is too large

# Cause -> meaning. Causes are few, so that metrics can count by them; the reason is free text.
CAUSES = {
    "empty": "the record has no value",
    "size": "larger than the limits allow",
    "json": "not JSON, or nested too deeply",
    "envelope": "not a CloudEvent",
    "type": "an event type that attn does not know, or of another topic",
    "fields": "a field is missing or is not what the schema says",
    "key": "it has a reply token, and no key to seal it is configured",
    "fault": "attn itself failed to read it",
    "unreadable": "no Kafka record: a broken or too large record batch, of which the bytes are kept",
    "pack": "a record of the log that is no pack",
    "row": "a row became larger than Kafka takes",
    "fact": "not a fact",
    "insert": "ClickHouse does not take it",
    "other": "of an attn that gave no cause",
}


class SourceRecord(Protocol):
    """What `DeadLetter.of_record` reads of a consumer's record (aiokafka's ConsumerRecord has it)."""

    topic: str
    partition: int
    offset: int
    key: Any
    value: Any
    headers: Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A rejected record. `at`: clock of the process in microseconds. `cause`: one of CAUSES. `size`: full length of the
    value in bytes, more than `len(value)` if the value was truncated.

    `cut`: what else differs from the rejected record. "key" and "headers" were truncated (`key_size`, `headers_size`
    and
    `header_count` are the full ones); "names" of headers were not UTF-8, so their invalid bytes are written as \\xNN.

    `blanked`: how many reply tokens were replaced by "" (CONTRACT §7). All other bytes are those of the record; `size`
    is the size without the tokens.
    """

    topic: str
    partition: int
    offset: int
    reason: str
    at: int
    key: bytes | None = None
    value: bytes | None = None
    headers: Headers = field(default_factory=list)
    size: int = 0
    cause: str = "other"
    cut: tuple[str, ...] = ()
    key_size: int = 0
    headers_size: int = 0
    header_count: int = 0
    blanked: int = 0

    @classmethod
    def of_record(cls, record: SourceRecord, reason: str, cause: str, at: int) -> DeadLetter:
        """Returns the dead letter for a record of any topic. `at`: microseconds, the clock of the process."""
        return cls(
            topic=record.topic, partition=record.partition, offset=record.offset, reason=reason, at=at,
            key=record.key, value=record.value, headers=[(name, raw or b"") for name, raw in record.headers],
            cause=cause,
        )

    @property
    def truncated(self) -> bool:
        """Returns whether a part of the rejected record is missing."""
        return self.size > len(self.value or b"") or bool(self.cut)

    def fit(self, limit: int) -> DeadLetter:
        """Returns the dead letter, truncated if its Kafka record would exceed `limit` bytes.

        Key and headers get at most a quarter of the space each, the value gets the rest.
        """
        room = max(0, limit - _RESERVED_BYTES - len(self.reason.encode()))
        cut = dict.fromkeys(self.cut)
        headers = [(_utf8_name(name), raw) for name, raw in self.headers]
        if headers != self.headers:
            cut["names"] = None
        key, value, weight = self.key, self.value, _encoded_size(headers)
        if len(key or b"") + len(value or b"") + weight > room:
            if key is not None and len(key) > room // 4:
                key, cut["key"] = key[:room // 4], None
            if weight > room // 4 or len(headers) > _MAX_HEADERS:
                headers, cut["headers"] = _first_headers(headers, room // 4), None
            value = None if value is None else value[:max(0, room - len(key or b"") - _encoded_size(headers))]
        return replace(
            self, key=key, value=value, headers=headers, size=self.size or len(self.value or b""), cut=tuple(cut),
            key_size=self.key_size or len(self.key or b""), headers_size=self.headers_size or weight,
            header_count=self.header_count or len(self.headers),
        )

    def record_headers(self) -> Headers:
        """Returns the Kafka headers of this dead letter's record."""
        return [*self.headers, *_headers(
            topic=self.topic, partition=self.partition, offset=self.offset, reason=self.reason, at=self.at,
            size=self.size or len(self.value or b""), cause=self.cause, **self._cut_headers(),
            **({"blanked": self.blanked} if self.blanked else {}),
        )]

    def _cut_headers(self) -> dict[str, object]:
        if not self.cut:
            return {}
        return {"cut": ",".join(self.cut), "key-size": self.key_size, "headers-size": self.headers_size,
                "headers": self.header_count}

    @classmethod
    def from_record(
        cls, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]
    ) -> DeadLetter:
        """Returns the dead letter of a record of the topic. Raises ValueError if attn did not write the record."""
        attn_headers = _attn_headers(headers)
        try:
            cause = attn_headers.get("cause", "other")
            return cls(
                topic=attn_headers["topic"], partition=int(attn_headers["partition"]),
                offset=int(attn_headers["offset"]),
                reason=attn_headers["reason"], at=int(attn_headers["at"]), size=int(attn_headers["size"]), key=key,
                value=value, headers=[(name, raw or b"") for name, raw in headers if not name.startswith(_PREFIX)],
                cause=cause if cause in CAUSES else "other",
                cut=tuple(filter(None, attn_headers.get("cut", "").split(","))),
                key_size=int(attn_headers.get("key-size", 0)),
                headers_size=int(attn_headers.get("headers-size", 0)), header_count=int(attn_headers.get("headers", 0)),
                blanked=int(attn_headers.get("blanked", 0)),
            )
        except (KeyError, ValueError) as error:
            raise ValueError(f"not a dead letter of attn: header {error}") from error


@dataclass(frozen=True, slots=True)
class ResolvedMarker:
    """Operator marker: these dead letters were sent again. `offsets`: in the partition of the marker."""

    offsets: tuple[int, ...]

    def record_headers(self) -> Headers:
        return _headers(settled=",".join(map(str, self.offsets)))


@dataclass(frozen=True, slots=True)
class ResumeTopicMarker:
    """Operator marker: workers close the circuit of this source topic and read on."""

    topic: str

    def record_headers(self) -> Headers:
        return [(_PREFIX + "go-on", self.topic.encode())]


def parse_record(
    key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]
) -> DeadLetter | ResolvedMarker | ResumeTopicMarker | None:
    """Returns the dead letter or marker of a record of the topic, None if attn did not write it."""
    try:
        attn_headers = _attn_headers(headers)
        if "topic" in attn_headers:  # checked first: the rejected record may have any headers of its own
            return DeadLetter.from_record(key, value, headers)
        if "settled" in attn_headers:
            return ResolvedMarker(tuple(int(offset) for offset in attn_headers["settled"].split(",")))
        if "go-on" in attn_headers:
            return ResumeTopicMarker(attn_headers["go-on"])
    except ValueError:
        pass
    return None


def _headers(**fields: object) -> Headers:
    return [(_PREFIX + name, str(value).encode()) for name, value in fields.items()]


def _attn_headers(headers: Sequence[tuple[str, bytes | None]]) -> dict[str, str]:
    """Returns the last value of each `attn-` header: attn's headers follow those of the rejected record."""
    return {
        name[len(_PREFIX):]: (raw or b"").decode(errors="replace")
        for name, raw in headers if name.startswith(_PREFIX)
    }


def _utf8_name(name: str) -> str:
    """Returns a header name as valid UTF-8: invalid bytes (surrogate escapes) become \\xNN."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _encoded_size(headers: Headers) -> int:
    return sum(_HEADER_BYTES + len(name.encode()) + len(raw) for name, raw in headers)


def _first_headers(headers: Headers, room: int) -> Headers:
    """Returns the first headers that fit into `room` bytes; the value of the last one is truncated."""
    result: Headers = []
    for name, raw in headers[:_MAX_HEADERS]:
        room -= _encoded_size([(name, b"")])
        if room < 0:
            break
        result.append((name, raw[:room]))
        room -= len(raw)
        if room <= 0:
            break
    return result
