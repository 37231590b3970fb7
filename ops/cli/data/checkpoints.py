"""Reads and writes checkpoint files. A checkpoint has the rows of all partitions, each at one position.

`attn rebuild --base` starts from a checkpoint. The format is gzip of JSON lines, which common tools can read. The first
line is a header: version, rules, time. Each partition has a line with its position and number of rows, then its rows as
[key, row]. The last line is a checksum of all lines before it.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from ops.errors import UserError
from schemas.scalars import format_timestamp
from schemas.versions import UnsupportedVersion, versioned_decoder
from schemas.views import VIEW_VERSION, PositionRow, decode_row, encode_row, position_key
from streams.core.config import FoldConfig
from streams.rebuild.partition_view import PartitionView
from streams.rebuild.rebuild import RebuildBase
from streams.runtime import private_files
from streams.runtime.clock import now_us

__all__ = ["VERSION", "Checkpoint", "CheckpointHeader", "CheckpointWriter", "config_fields"]

VERSION = 1


class CheckpointHeader(Struct, kw_only=True):
    """The first line. `rules`: settings of the fold that wrote the rows. `view`: format version of the rows."""

    attn: str = "checkpoint"
    v: int = VERSION
    view: int = VIEW_VERSION
    partitions: int
    made: str
    rules: dict[str, Any]


class _Part(Struct):
    """The line before the rows of a partition."""

    partition: int
    rows: int
    position: PositionRow | None = None


class _End(Struct):
    """The last line: the checksum."""

    blake2b: str


_head = versioned_decoder("a checkpoint", VERSION, msgspec.json.Decoder(CheckpointHeader).decode)
_part = msgspec.json.Decoder(_Part).decode
_end = msgspec.json.Decoder(_End).decode
_row = msgspec.json.Decoder(tuple[str, msgspec.Raw]).decode


def config_fields(rules: FoldConfig) -> dict[str, Any]:
    """Returns the settings of the fold in the form of the header."""
    return {name: sorted(value) if isinstance(value, frozenset) else value for name, value in asdict(rules).items()}


class CheckpointWriter:
    """Writes a checkpoint. It replaces an existing file once it is complete and synced to disk."""

    def __init__(self, path: Path, partitions: int, rules: FoldConfig) -> None:
        self._path = path
        self._head = CheckpointHeader(
            partitions=partitions, made=format_timestamp(now_us()), rules=config_fields(rules))

    async def write(self, views: AsyncIterator[tuple[int, PartitionView]]) -> int:
        """Writes all partitions in their order; returns the number of rows.

        Raises UserError if a partition has an invalid row, or if the file cannot be written.
        """
        rows, digest = 0, hashlib.blake2b(digest_size=32)
        try:
            with private_files.replace_atomically(self._path) as draft, draft.open("wb") as raw:
                with gzip.GzipFile("", "wb", 3, raw, mtime=0) as file:
                    for line in _lines([self._head]):
                        digest.update(line)
                        file.write(line)
                    async for partition, view in views:
                        for line in _lines(_values(partition, view)):
                            digest.update(line)
                            file.write(line)
                        rows += len(view.rows)
                    file.write(encode_row(_End(digest.hexdigest())) + b"\n")
                raw.flush()
                os.fsync(raw.fileno())
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error.strerror}") from None
        return rows


def _lines(values: Iterable[Any]) -> Iterator[bytes]:
    return (encode_row(value) + b"\n" for value in values)


def _values(partition: int, view: PartitionView) -> Iterator[Any]:
    yield _Part(partition, len(view.rows), view.position)
    for key, value in view.rows.items():
        if not _is_row(key, value):
            raise UserError(f"partition {partition}: the value of key {key!r} is not a row; `attn rebuild` repairs it")
        yield key.decode(), msgspec.Raw(value)


def _is_row(key: bytes, value: bytes) -> bool:
    try:
        return encode_row(decode_row(key, value)) == value
    except (ValueError, RecursionError):
        return False


class Checkpoint:
    """Reads a checkpoint. All methods raise UserError if the file is no checkpoint, truncated, or changed."""

    def __init__(self, path: Path) -> None:
        """Reads the whole file once and verifies its checksum."""
        self._path = path
        digest, last = hashlib.blake2b(digest_size=32), b""
        for number, line in enumerate(self._read()):
            if number == 0:
                self.head = self._first(line)
            digest.update(last)
            last = line
        if not last:
            raise UserError(f"{path} is empty")
        try:
            valid = _end(last).blake2b == digest.hexdigest()
        except ValueError:
            valid = False
        if not valid:
            raise UserError(f"{path}: wrong checksum; the file was truncated or changed")

    def bases(self, partitions: set[int]) -> Iterator[tuple[int, RebuildBase]]:
        """Yields `partitions` in their order, except those without rows."""
        lines = self._read()
        next(lines)
        for _ in range(self.head.partitions):
            part = _part(next(lines))
            rows: dict[bytes, bytes] = {}
            for _ in range(part.rows):
                line = next(lines)
                if part.partition in partitions:
                    key, value = _row(line)
                    rows[key.encode()] = bytes(value)
            if part.partition in partitions and part.position is not None:
                rows[position_key(part.partition)] = encode_row(part.position)
                yield part.partition, RebuildBase(rows, part.position)

    def _first(self, line: bytes) -> CheckpointHeader:
        try:
            head = _head(line)
        except UnsupportedVersion as error:
            raise UserError(f"{self._path}: {error}") from None
        except (ValueError, RecursionError):
            raise UserError(f"{self._path} is not a checkpoint of attn") from None
        if head.view > VIEW_VERSION:
            raise UserError(f"{self._path}: {UnsupportedVersion('a view', head.view, VIEW_VERSION)}")
        return head

    def _read(self) -> Iterator[bytes]:
        try:
            with gzip.open(self._path, "rb") as file:
                yield from file
        except EOFError:
            raise UserError(f"{self._path}: its end is missing") from None
        except (gzip.BadGzipFile, zlib.error):
            raise UserError(f"{self._path} is not a checkpoint of attn, or was changed") from None
        except OSError as error:
            raise UserError(f"cannot read {self._path}: {error.strerror or error}") from None
