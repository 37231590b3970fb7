"""Records of `dead-letters`: key and value are the rejected record's own bytes; headers say where it was and why.

So a rejected record can be read with any Kafka tool and sent again as it is. Original headers are kept beside ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["DeadLetter"]

_PREFIX = "attn-"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """`at` is microseconds, the worker's clock. `size` is the value's full length in bytes: more than `len(value)`
    where it was too large to carry whole."""

    topic: str
    partition: int
    offset: int
    reason: str
    at: int
    key: bytes | None = None
    value: bytes | None = None
    headers: list[tuple[str, bytes]] = field(default_factory=list)
    size: int = 0

    @property
    def truncated(self) -> bool:
        return self.size > len(self.value or b"")

    def record_headers(self) -> list[tuple[str, bytes]]:
        """The Kafka headers of this dead letter's record."""
        ours = {
            "topic": self.topic, "partition": self.partition, "offset": self.offset, "reason": self.reason,
            "at": self.at, "size": self.size or len(self.value or b""),
        }
        return [*self.headers, *((_PREFIX + name, str(value).encode()) for name, value in ours.items())]

    @classmethod
    def from_record(
        cls, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]
    ) -> DeadLetter:
        """The dead letter a record of the topic is. ValueError: the record is not one of ours."""
        ours = {name[len(_PREFIX):]: (raw or b"").decode() for name, raw in headers if name.startswith(_PREFIX)}
        try:
            return cls(
                topic=ours["topic"], partition=int(ours["partition"]), offset=int(ours["offset"]),
                reason=ours["reason"], at=int(ours["at"]), size=int(ours["size"]), key=key, value=value,
                headers=[(name, raw or b"") for name, raw in headers if not name.startswith(_PREFIX)],
            )
        except (KeyError, ValueError) as error:
            raise ValueError(f"not a dead letter of attn: header {error}") from error
