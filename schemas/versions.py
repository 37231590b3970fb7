"""Format versions of the records that attn writes for itself: packs in `attn.log`, rows in `attn.views`, facts in
`attn.facts`.

A process that supports version N reads all records of version N or lower, and upgrades them when it writes them again.
A version must be raised for each change that a process of the older version would misinterpret. An optional field that
readers may ignore, and a new kind of row that only its writer needs, do not need a new version.

A process that reads a newer version must stop before it folds, serves or stores such data. Hence `UnsupportedVersion`
is not a ValueError: handlers of ValueError send bad records to `dead-letters`, and a newer record is not bad.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import msgspec

__all__ = ["UnsupportedVersion", "versioned_decoder"]


class Versioned(Protocol):
    v: int


T = TypeVar("T", bound=Versioned)


class UnsupportedVersion(Exception):
    """A newer attn wrote the record. `str(error)` says what the operator has to do."""

    def __init__(self, what: str, version: int, supported: int) -> None:
        super().__init__(
            f"unsupported format version: {what} has version {version}, this attn supports up to {supported}; upgrade "
            "this process (it stops to avoid misreading newer data)"
        )
        self.version, self.supported = version, supported


class _VersionField(msgspec.Struct):
    v: int = 1


_decode_version = msgspec.json.Decoder(_VersionField).decode


def versioned_decoder(what: str, supported: int, decode: Callable[[bytes], T]) -> Callable[[bytes], T]:
    """Returns `decode` with a version check. `what` names the record in errors. `supported`: the highest version.

    The check also recognises a newer record that `decode` refuses because of its shape. The result raises
    UnsupportedVersion for a newer record, else what `decode` raises: msgspec.DecodeError, UnicodeDecodeError or
    RecursionError.
    """

    def read(raw: bytes) -> T:
        try:
            record = decode(raw)
        except (ValueError, RecursionError):
            if (version := _version(raw)) > supported:
                raise UnsupportedVersion(what, version, supported) from None
            raise
        if record.v > supported:
            raise UnsupportedVersion(what, record.v, supported)
        return record

    return read


def _version(raw: bytes) -> int:
    """Returns the version of the record, 0 if it has none."""
    try:
        return _decode_version(raw).v
    except (ValueError, RecursionError):
        return 0
