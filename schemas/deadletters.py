"""Records of `dead-letters`: key and value are the rejected record's own bytes; headers say where it was and why.

So a rejected record can be read with any Kafka tool and sent again as it is. Original headers are kept beside ours.
Between them are records without a value that say what was done about dead letters: `Settled` and `GoOn`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["CAUSES", "DeadLetter", "GoOn", "Settled", "parse"]

_PREFIX = "attn-"

Headers = list[tuple[str, bytes]]

# What a reason comes to: few enough to count by. The reason itself is free text.
CAUSES = {
    "empty": "the record has no value",
    "size": "larger than the limits allow",
    "json": "not JSON, or nested too deeply",
    "envelope": "not a CloudEvent",
    "type": "an event type that attn does not know, or of another topic",
    "fields": "a field is missing or is not what the schema says",
    "fault": "attn itself failed to read it",
    "pack": "a record of the log that is no pack",
    "row": "a row became larger than Kafka takes",
    "fact": "not a fact",
    "insert": "ClickHouse does not take it",
    "other": "of an attn that gave no cause",
}


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """`at` is microseconds, the worker's clock. `size` is the value's full length in bytes: more than `len(value)`
    where it was too large to carry whole. `cause` is one of CAUSES."""

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

    @property
    def truncated(self) -> bool:
        return self.size > len(self.value or b"")

    def record_headers(self) -> Headers:
        """The Kafka headers of this dead letter's record."""
        return [*self.headers, *_headers(
            topic=self.topic, partition=self.partition, offset=self.offset, reason=self.reason, at=self.at,
            size=self.size or len(self.value or b""), cause=self.cause,
        )]

    @classmethod
    def from_record(
        cls, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]
    ) -> DeadLetter:
        """The dead letter a record of the topic is. ValueError: the record is not one of ours."""
        ours = _ours(headers)
        try:
            cause = ours.get("cause", "other")
            return cls(
                topic=ours["topic"], partition=int(ours["partition"]), offset=int(ours["offset"]),
                reason=ours["reason"], at=int(ours["at"]), size=int(ours["size"]), key=key, value=value,
                headers=[(name, raw or b"") for name, raw in headers if not name.startswith(_PREFIX)],
                cause=cause if cause in CAUSES else "other",
            )
        except (KeyError, ValueError) as error:
            raise ValueError(f"not a dead letter of attn: header {error}") from error


@dataclass(frozen=True, slots=True)
class Settled:
    """These dead letters were sent again, or were mended and sent: offsets in the partition that the record is in."""

    offsets: tuple[int, ...]

    def record_headers(self) -> Headers:
        return _headers(settled=",".join(map(str, self.offsets)))


@dataclass(frozen=True, slots=True)
class GoOn:
    """An operator's word to the workers that left a source topic alone: read on, whatever it brings."""

    topic: str

    def record_headers(self) -> Headers:
        return [(_PREFIX + "go-on", self.topic.encode())]


def parse(
    key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]
) -> DeadLetter | Settled | GoOn | None:
    """What a record of the topic is; None: nothing of ours."""
    try:
        ours = _ours(headers)
        if "topic" in ours:  # first: the rejected record may have had any headers of its own
            return DeadLetter.from_record(key, value, headers)
        if "settled" in ours:
            return Settled(tuple(int(offset) for offset in ours["settled"].split(",")))
        if "go-on" in ours:
            return GoOn(ours["go-on"])
    except ValueError:
        pass
    return None


def _headers(**fields: object) -> Headers:
    return [(_PREFIX + name, str(value).encode()) for name, value in fields.items()]


def _ours(headers: Sequence[tuple[str, bytes | None]]) -> dict[str, str]:
    """The last of each name: ours stand behind those of the record."""
    return {
        name[len(_PREFIX):]: (raw or b"").decode(errors="replace")
        for name, raw in headers if name.startswith(_PREFIX)
    }
