"""Reads files of events: splits them into lines, checks events, and shifts their times. The only I/O is the file."""

from __future__ import annotations

import gzip
import shutil
import sys
import tempfile
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, cast

import msgspec

from ops.errors import UserError
from schemas.scalars import format_timestamp, parse_timestamp
from schemas.settings import Settings
from schemas.topics import SOURCE_TYPES
from streams.core.json_text import read_json
from streams.core.normalise import EventLimits, Rejected, normalise
from streams.core.sealing import KEY_BYTES, Sealer

__all__ = [
    "CHECK_SEALER", "ReplayLine", "check_event", "iter_events", "iter_lines", "limits_of", "open_input", "parse_line",
    "retime", "time_of",
]

_SPOOL = 16 << 20  # bytes of stdin kept in memory; more go to a temporary file
_NOTHING = msgspec.Raw(b"")
CHECK_SEALER = Sealer([bytes(KEY_BYTES)])  # for checks of events: nothing that it seals is kept


class ReplayLine(msgspec.Struct):
    """A line of a replay file. `value` keeps its bytes: a float would change some numbers.

    `text` or `base64` has a value that is not JSON. `dead_letter` names the dead letter that the record resolves
    (`attn dead-letters export` writes it).
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
    def resolves(self) -> tuple[int, int] | None:
        """Partition and offset of the dead letter that the record resolves."""
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
    """Yields the file (`-`: stdin; `.gz`: decompressed) as a seekable stream. Raises UserError if it cannot be read."""
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
    """Yields the lines that are not blank, with their numbers from 1."""
    for number, line in enumerate(lines, start=1):
        if stripped := line.strip():
            yield number, stripped


def iter_events(lines: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yields one event per line, with line numbers. If the file is one event over many lines, yields it on one line."""
    first = next(iter_lines(lines), None)
    lines.seek(0)
    if first is not None and _in_one_line(first[1]) is None:
        event = _in_one_line(lines.read(_SPOOL))
        lines.seek(0)
        if event is not None:
            yield first[0], event
            return
    yield from iter_lines(lines)


def _in_one_line(text: bytes) -> bytes | None:
    """Returns JSON text on one line, its numbers unchanged; None if it is not JSON."""
    try:
        return msgspec.json.format(read_json(text)[0], indent=-1)
    except ValueError:
        return None


def limits_of(settings: Settings) -> EventLimits:
    return EventLimits(settings.max_title, settings.max_body, settings.max_payload, settings.max_event)


def check_event(
    topic: str, line: bytes, limits: EventLimits, link_dropped: Callable[[], object] = lambda: None
) -> str | None:
    """Returns the reason why ingest would reject this event, or None. `link_dropped`: see `normalise`."""
    try:
        normalise(topic, line, (), limits, link_dropped, CHECK_SEALER)
    except Rejected as error:
        return str(error)
    return None


def workspace_of(event: bytes) -> bytes | None:
    """Returns the record key of `attn emit`: the workspace, so its events stay in one partition and in order."""
    try:
        workspace = read_json(event)[1]["workspaceid"]
    except (ValueError, KeyError, TypeError):
        return None
    return workspace.encode() if isinstance(workspace, str) else None


def parse_line(line: bytes) -> ReplayLine:
    """Parses a line of a replay file. Raises ValueError with the reason if it is invalid."""
    try:
        parsed = _line(line)
    except (msgspec.MsgspecError, RecursionError):
        parsed = _line(read_json(line)[0])
    if (parsed.value != _NOTHING) + (parsed.text is not None) + (parsed.base64 is not None) != 1:
        raise ValueError("one of value, text and base64 is needed")
    try:
        _ = parsed.bytes_of_value, parsed.bytes_of_key, parsed.all_headers, parsed.resolves
    except ValueError as error:
        raise ValueError(f"base64 or dead_letter: {error}") from None
    if parsed.topic not in SOURCE_TYPES:
        raise ValueError(f"topic {parsed.topic[:100]!r} is not a source topic")
    return parsed


def _members(text: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    """Returns the members of a JSON object as raw bytes. Raises ValueError if the text is not a JSON object."""
    try:
        return _raw_members(text)
    except (msgspec.MsgspecError, RecursionError):
        return _raw_members(read_json(bytes(text))[0])


def time_of(event: bytes | msgspec.Raw) -> int | None:
    """Returns the event's `time` in microseconds, or None if it is missing or invalid."""
    try:
        return parse_timestamp(_text(_members(event)["time"]))
    except (KeyError, ValueError):
        return None


def retime(event: bytes | msgspec.Raw, shift: int) -> bytes:
    """Returns the event with `time`, `data.due_at`, `data.expires_at` and `data.ask.expires_at` shifted by `shift`
    microseconds.

    Invalid values stay unchanged: ingest rejects them.
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
        if "ask" in data:
            with suppress(ValueError):
                ask = _members(data["ask"])
                _shift(ask, ("expires_at",), shift)
                data["ask"] = msgspec.Raw(msgspec.json.encode(ask))
        envelope["data"] = msgspec.Raw(msgspec.json.encode(data))
    return msgspec.json.encode(envelope)


def _shift(fields: dict[str, msgspec.Raw], names: tuple[str, ...], shift: int) -> None:
    for name in names:
        try:
            shifted = format_timestamp(parse_timestamp(_text(fields[name])) + shift)
            fields[name] = msgspec.Raw(msgspec.json.encode(shifted))
        except (KeyError, ValueError, OverflowError):
            continue
