"""Files of events: lines, checks and times. Pure but for reading the file it is given."""

from __future__ import annotations

import gzip
import shutil
import sys
import tempfile
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import msgspec

from ops.errors import UserError
from schemas.scalars import format_timestamp, parse_timestamp
from schemas.settings import Settings
from schemas.topics import SOURCE_TYPES
from streams.core.json_text import read_json
from streams.core.normalise import EventLimits, Rejected, normalise

__all__ = [
    "ReplayLine", "check_event", "iter_events", "iter_lines", "limits_of", "open_input", "parse_line", "retime",
    "time_of",
]

_SPOOL = 16 << 20  # bytes of stdin kept in memory before a temporary file takes them


_NOTHING = msgspec.Raw(b"")


class ReplayLine(msgspec.Struct):
    """A line of a replay file. `value` keeps its bytes, so that numbers no float holds arrive as they were.

    What is no JSON is in `text` or `base64` instead. `dead_letter` is what the record settles (`attn dead-letters
    --export` writes it).
    """

    topic: str
    value: msgspec.Raw = _NOTHING
    key: str | None = None
    text: str | None = None
    base64: str | None = None
    key_base64: str | None = None
    headers: list[tuple[str, str]] = []
    headers_base64: list[tuple[str, str]] = []
    dead_letter: str | None = None

    @property
    def bytes_of_value(self) -> bytes:
        if self.text is not None:
            return self.text.encode()
        return _unpacked(self.base64) if self.base64 is not None else bytes(self.value)

    @property
    def bytes_of_key(self) -> bytes | None:
        if self.key_base64 is not None:
            return _unpacked(self.key_base64)
        return None if self.key is None else self.key.encode()

    @property
    def all_headers(self) -> list[tuple[str, bytes]]:
        texts = [(name, text.encode()) for name, text in self.headers]
        return texts + [(name, _unpacked(text)) for name, text in self.headers_base64]

    @property
    def settles(self) -> tuple[int, int] | None:
        """Partition and offset of the dead letter."""
        if self.dead_letter is None:
            return None
        partition, _, offset = self.dead_letter.partition(":")
        return int(partition), int(offset)


def _unpacked(text: str) -> bytes:
    return b64decode(text, validate=True)


_line = msgspec.json.Decoder(ReplayLine).decode
_raw_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_text = msgspec.json.Decoder(str).decode


@contextmanager
def open_input(path: str) -> Iterator[IO[bytes]]:
    """The file (`-`: stdin; `.gz`: unpacked) as one that can be read twice."""
    if path == "-":
        with tempfile.SpooledTemporaryFile(_SPOOL) as spool:
            shutil.copyfileobj(sys.stdin.buffer, spool)
            spool.seek(0)
            yield spool
        return
    try:
        with cast("IO[bytes]", gzip.open(path) if path.endswith(".gz") else Path(path).open("rb")) as file:
            yield file
    except (gzip.BadGzipFile, EOFError) as error:
        raise UserError(f"{path} is not a whole gzip file: {error}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


def iter_lines(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers from 1, without the blank ones."""
    for number, line in enumerate(lines, start=1):
        if stripped := line.strip():
            yield number, stripped


def iter_events(lines: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """An event a line, with its number; or one alone over many lines, as `schemas/examples` has them, put into one."""
    first = next(iter_lines(lines), None)
    lines.seek(0)
    if first is not None and _in_one_line(first[1]) is None:
        whole = _in_one_line(lines.read(_SPOOL))
        lines.seek(0)
        if whole is not None:
            yield first[0], whole
            return
    yield from iter_lines(lines)


def _in_one_line(text: bytes) -> bytes | None:
    """JSON, with its numbers as they were. None: it is none."""
    try:
        return msgspec.json.format(read_json(text)[0], indent=-1)
    except ValueError:
        return None


def limits_of(settings: Settings) -> EventLimits:
    return EventLimits(settings.max_title, settings.max_body, settings.max_payload, settings.max_event)


def check_event(
    topic: str, line: bytes, limits: EventLimits, link_dropped: Callable[[], object] = lambda: None
) -> str | None:
    """Why the stream would reject this event, or None. `link_dropped` as in `normalise`."""
    try:
        normalise(topic, line, (), limits, link_dropped)
    except Rejected as error:
        return str(error)
    return None


def workspace_of(event: bytes) -> bytes | None:
    """The record key `attn emit` gives: events of one workspace stay in one partition, in order."""
    try:
        workspace = read_json(event)[1]["workspaceid"]
    except (ValueError, KeyError, TypeError):
        return None
    return workspace.encode() if isinstance(workspace, str) else None


def parse_line(line: bytes) -> ReplayLine:
    """A line of a replay file. ValueError says what is wrong with it."""
    try:
        found = _line(line)
    except (msgspec.MsgspecError, RecursionError):
        found = _line(read_json(line)[0])
    if (found.value != _NOTHING) + (found.text is not None) + (found.base64 is not None) != 1:
        raise ValueError("one of value, text and base64 is needed")
    try:
        _ = found.bytes_of_value, found.bytes_of_key, found.all_headers, found.settles
    except ValueError as error:
        raise ValueError(f"base64 or dead_letter: {error}") from None
    if found.topic not in SOURCE_TYPES:
        raise ValueError(f"topic {found.topic[:100]!r} is not a source topic")
    return found


def _members(text: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    """The members of a JSON object as they are written. Raises ValueError if it is none."""
    try:
        return _raw_members(text)
    except (msgspec.MsgspecError, RecursionError):
        return _raw_members(read_json(bytes(text))[0])


def time_of(event: bytes | msgspec.Raw) -> int | None:
    """The event's `time` in microseconds, or None where it has none that can be read."""
    try:
        return parse_timestamp(_text(_members(event)["time"]))
    except (KeyError, ValueError):
        return None


def retime(event: bytes | msgspec.Raw, shift: int) -> bytes:
    """The event with `time`, `data.due_at` and `data.expires_at` later by `shift` microseconds, else as it was.

    What cannot be read is left for the stream to reject.
    """
    try:
        envelope = _members(event)
    except ValueError:
        return bytes(event)
    _shift(envelope, ("time",), shift)
    if "data" in envelope:
        try:
            data = _members(envelope["data"])
        except ValueError:
            return msgspec.json.encode(envelope)
        _shift(data, ("due_at", "expires_at"), shift)
        envelope["data"] = msgspec.Raw(msgspec.json.encode(data))
    return msgspec.json.encode(envelope)


def _shift(fields: dict[str, msgspec.Raw], names: tuple[str, ...], shift: int) -> None:
    for name in names:
        try:
            shifted = format_timestamp(parse_timestamp(_text(fields[name])) + shift)
            fields[name] = msgspec.Raw(msgspec.json.encode(shifted))
        except (KeyError, ValueError, OverflowError):
            continue
