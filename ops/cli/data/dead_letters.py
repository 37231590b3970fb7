"""Reads the topic `dead-letters`: selects the unresolved records, counts them by cause, and exports them as JSON lines.

A dead letter is resolved once a later `ResolvedMarker` record on the topic names its offset. Older versions of attn
wrote no such records: there the committed offset of the consumer group `GROUP` marks all dead letters below it as
resolved.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRecord

from ops.cli.data.kafka import Sender, kafka_timeout, read_to_end
from schemas.dead_letters import DeadLetter, ResolvedMarker, ResumeTopicMarker, parse_record
from schemas.scalars import format_timestamp
from schemas.topics import DEAD_LETTERS, LOG, SOURCE_TYPES

__all__ = [
    "GROUP", "DeadLetterRecord", "Filter", "RecordPosition", "Summary", "can_export", "can_retry", "export_line",
    "mark_resolved", "unresolved", "why_not",
]

GROUP = "attn.dead-letters.retry"
_MARKER_OFFSETS = 500  # offsets in one marker: a few kilobytes of header

RecordPosition = tuple[int, int]  # partition and offset of a dead letter


@dataclass(frozen=True, slots=True)
class DeadLetterRecord:
    """A record of the topic. `letter` is None if the record is not a dead letter of attn."""

    position: RecordPosition
    record: ConsumerRecord
    letter: DeadLetter | None
    resolved: bool = False

    @property
    def name(self) -> str:
        return "{}:{}".format(*self.position)


@dataclass(frozen=True, slots=True)
class Filter:
    """Selects dead letters. A field that is None selects all.

    `reason`: a cause, or a part of the reason (case-insensitive). `since`: microseconds.
    """

    topic: str | None = None
    reason: str | None = None
    since: int | None = None

    def takes(self, letter: DeadLetter | None) -> bool:
        if letter is None:
            return self == Filter()
        return (
            self.topic in (None, letter.topic)
            and (self.reason is None or self.reason == letter.cause or self.reason.lower() in letter.reason.lower())
            and (self.since is None or letter.at >= self.since)
        )


@dataclass(slots=True)
class Summary:
    """Counts the dead letters of one topic and cause. Times are microseconds."""

    topic: str
    cause: str
    letters: int = 0
    open: int = 0
    first: int = 0
    last: int = 0
    reason: str = ""  # of the dead letter that was read last

    def add(self, letter: DeadLetter, is_open: bool) -> None:
        self.first = min(self.first or letter.at, letter.at)
        self.last, self.reason = max(self.last, letter.at), letter.reason
        self.letters += 1
        self.open += is_open


def can_retry(letter: DeadLetter | None) -> bool:
    return why_not(letter) is None


def can_export(letter: DeadLetter | None) -> bool:
    """Returns whether a person may correct a dead letter and send it again with `attn replay`."""
    return letter is not None and letter.topic in SOURCE_TYPES and can_retry(replace(letter, blanked=0))


def why_not(letter: DeadLetter | None) -> str | None:
    """Returns the reason why a dead letter cannot be sent again, or None if it can."""
    if letter is None:
        return "not a dead letter of attn"
    if letter.cause == "unreadable":
        return "its value is the raw bytes of a record batch that could not be parsed"
    if letter.truncated:
        cut = [*(["value"] if letter.size > len(letter.value or b"") else []), *letter.cut]
        original = f"{letter.size} bytes of value, {letter.key_size} of key, {letter.headers_size} of headers"
        return f"cut: {', '.join('names of headers' if part == 'names' else part for part in cut)} (it had {original})"
    if letter.blanked:
        return ("its reply token was blanked; let its source send the event again, or export the record, fill in "
                "data.ask.reply.token and run attn replay")
    if letter.topic not in SOURCE_TYPES and letter.topic != LOG:
        return f"topic {letter.topic} does not take records again"
    return None


async def _resolved(reader: AIOKafkaConsumer) -> Callable[[RecordPosition], bool]:
    """Reads the topic once. Returns a function that says whether the record at a position is resolved."""
    async with kafka_timeout():
        committed = {part.partition: await reader.committed(part) or 0 for part in reader.assignment()}
    marked: set[RecordPosition] = set()
    async for record in read_to_end(reader):
        parsed = parse_record(record.key, record.value, record.headers)
        if isinstance(parsed, ResolvedMarker):
            marked.update((record.partition, offset) for offset in parsed.offsets)
    return lambda position: position in marked or position[1] < committed.get(position[0], 0)


async def unresolved(
    reader: AIOKafkaConsumer, chosen: Filter, all_too: bool = False
) -> AsyncIterator[DeadLetterRecord]:
    """Yields the unresolved records that match `chosen`, in the order of each partition. `all_too`: all that match."""
    is_resolved = await _resolved(reader)
    await reader.seek_to_beginning()
    async for record in read_to_end(reader):
        parsed = parse_record(record.key, record.value, record.headers)
        if isinstance(parsed, ResolvedMarker | ResumeTopicMarker) or not chosen.takes(parsed):
            continue
        position = record.partition, record.offset
        if all_too or not is_resolved(position):
            yield DeadLetterRecord(position, record, parsed, is_resolved(position))


async def mark_resolved(out: Sender, positions: Iterable[RecordPosition]) -> None:
    """Writes `ResolvedMarker` records for these dead letters.

    Call it only after the records that replace the dead letters are acknowledged.
    """
    by_partition: dict[int, list[int]] = {}
    for partition, offset in positions:
        by_partition.setdefault(partition, []).append(offset)
    for partition, offsets in by_partition.items():
        for start in range(0, len(offsets), _MARKER_OFFSETS):
            marker = ResolvedMarker(tuple(offsets[start:start + _MARKER_OFFSETS]))
            await out.send(DEAD_LETTERS, None, b"settled", headers=marker.record_headers(), partition=partition)


def export_line(record: DeadLetterRecord) -> dict[str, Any]:
    """Returns a line for `attn replay`, with the reason that a person needs to correct it."""
    letter = record.letter
    assert letter is not None
    line: dict[str, Any] = {
        "dead_letter": record.name, "reason": letter.reason, "at": format_timestamp(letter.at), "topic": letter.topic,
        **_key(letter.key), **_value(letter.value or b""), **({"blanked": letter.blanked} if letter.blanked else {}),
    }
    if letter.headers:
        texts = [(name, _text(raw)) for name, raw in letter.headers]
        if all(text is not None for _, text in texts):
            line["headers"] = texts
        else:
            line["headers_base64"] = [(name, _base64(raw)) for name, raw in letter.headers]
    return line


def _key(key: bytes | None) -> dict[str, Any]:
    if key is None:
        return {}
    text = _text(key)
    return {"key_base64": _base64(key)} if text is None else {"key": text}


def _value(value: bytes) -> dict[str, Any]:
    """Returns a value without change to its bytes: as JSON if it is JSON on one line, else as text, else as base64."""
    text = _text(value)
    if text is None:
        return {"base64": _base64(value)}
    try:
        msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return {"text": text}
    on_one_line = value == value.strip() and b"\n" not in value and b"\r" not in value
    return {"value": msgspec.Raw(value)} if on_one_line else {"text": text}


def _text(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
