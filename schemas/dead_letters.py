"""Records of `dead-letters`: key and value are the rejected record's own bytes; headers say where it was and why.

So a rejected record can be read with any Kafka tool and sent again as it is. Original headers are kept beside ours.
Between them are records without a value that say what was done about dead letters: `ResolvedMarker` and
`ResumeTopicMarker`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

__all__ = ["CAUSES", "DeadLetter", "ResolvedMarker", "ResumeTopicMarker", "parse_record"]

_PREFIX = "attn-"

Headers = list[tuple[str, bytes]]

_RESERVED_BYTES = 4096  # bytes: attn's own headers without the reason, and what Kafka adds to a batch
_HEADER_BYTES = 10  # the lengths of one header's name and value
_MAX_HEADERS = 1000  # that are kept of a record which is too large

# What a reason comes to: few enough to count by. The reason itself is free text.
CAUSES = {
    "empty": "the record has no value",
    "size": "larger than the limits allow",
    "json": "not JSON, or nested too deeply",
    "envelope": "not a CloudEvent",
    "type": "an event type that attn does not know, or of another topic",
    "fields": "a field is missing or is not what the schema says",
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
    """`at` is microseconds, the worker's clock. `size` is the value's full length in bytes: more than `len(value)`
    where it was too large to carry whole. `cause` is one of CAUSES.

    `cut` names what else is not the rejected record's own: "key" and "headers" were too large to carry whole
    (`key_size`, `headers_size` and `header_count` are those of the record); "names" of headers were not UTF-8, so
    their odd bytes are written as \\xNN.
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
        """Whether it is not the whole of the rejected record."""
        return self.size > len(self.value or b"") or bool(self.cut)

    def fit(self, limit: int) -> DeadLetter:
        """The same, cut where its Kafka record would be larger than `limit` bytes: key and headers to a quarter of the
        room at most, the value to the rest. Its record can be written by any client."""
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
        """The Kafka headers of this dead letter's record."""
        return [*self.headers, *_headers(
            topic=self.topic, partition=self.partition, offset=self.offset, reason=self.reason, at=self.at,
            size=self.size or len(self.value or b""), cause=self.cause, **self._cut_headers(),
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
        """The dead letter a record of the topic is. ValueError: the record is not one of ours."""
        ours = _attn_headers(headers)
        try:
            cause = ours.get("cause", "other")
            return cls(
                topic=ours["topic"], partition=int(ours["partition"]), offset=int(ours["offset"]),
                reason=ours["reason"], at=int(ours["at"]), size=int(ours["size"]), key=key, value=value,
                headers=[(name, raw or b"") for name, raw in headers if not name.startswith(_PREFIX)],
                cause=cause if cause in CAUSES else "other",
                cut=tuple(filter(None, ours.get("cut", "").split(","))), key_size=int(ours.get("key-size", 0)),
                headers_size=int(ours.get("headers-size", 0)), header_count=int(ours.get("headers", 0)),
            )
        except (KeyError, ValueError) as error:
            raise ValueError(f"not a dead letter of attn: header {error}") from error


@dataclass(frozen=True, slots=True)
class ResolvedMarker:
    """These dead letters were sent again, or were mended and sent: offsets in the partition that the record is in."""

    offsets: tuple[int, ...]

    def record_headers(self) -> Headers:
        return _headers(settled=",".join(map(str, self.offsets)))


@dataclass(frozen=True, slots=True)
class ResumeTopicMarker:
    """An operator's word to the workers that left a source topic alone: read on, whatever it brings."""

    topic: str

    def record_headers(self) -> Headers:
        return [(_PREFIX + "go-on", self.topic.encode())]


def parse_record(
    key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]
) -> DeadLetter | ResolvedMarker | ResumeTopicMarker | None:
    """What a record of the topic is; None: nothing of ours."""
    try:
        ours = _attn_headers(headers)
        if "topic" in ours:  # first: the rejected record may have had any headers of its own
            return DeadLetter.from_record(key, value, headers)
        if "settled" in ours:
            return ResolvedMarker(tuple(int(offset) for offset in ours["settled"].split(",")))
        if "go-on" in ours:
            return ResumeTopicMarker(ours["go-on"])
    except ValueError:
        pass
    return None


def _headers(**fields: object) -> Headers:
    return [(_PREFIX + name, str(value).encode()) for name, value in fields.items()]


def _attn_headers(headers: Sequence[tuple[str, bytes | None]]) -> dict[str, str]:
    """The last of each name: ours stand behind those of the record."""
    return {
        name[len(_PREFIX):]: (raw or b"").decode(errors="replace")
        for name, raw in headers if name.startswith(_PREFIX)
    }


def _utf8_name(name: str) -> str:
    """A header name as UTF-8 can write it: bytes that were no UTF-8 (surrogate escapes) become \\xNN."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _encoded_size(headers: Headers) -> int:
    return sum(_HEADER_BYTES + len(name.encode()) + len(raw) for name, raw in headers)


def _first_headers(headers: Headers, room: int) -> Headers:
    """The first headers that fit; the value of the last is cut."""
    found: Headers = []
    for name, raw in headers[:_MAX_HEADERS]:
        room -= _encoded_size([(name, b"")])
        if room < 0:
            break
        found.append((name, raw[:room]))
        room -= len(raw)
        if room <= 0:
            break
    return found
