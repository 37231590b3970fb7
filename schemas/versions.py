"""Versions of what attn writes for itself: packs of `attn.log`, rows of `attn.views`, facts of `attn.facts`.

A version is a promise about meaning: who knows version N reads everything that was written with N or less, and upgrades
it by writing it again. It is raised by a change that somebody who knows less would take for something else. An optional
field that readers may overlook is no such change, nor is a new kind of row that nobody but its writer needs.

Who meets a newer version must stop before it acts on it: folding, serving or keeping half-understood data is worse than
being away. Hence `UnsupportedVersion` is no ValueError: what catches those takes bad records out of the way, and a
newer record is not bad.
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
    """A newer attn wrote this; `str(error)` is for the operator."""

    def __init__(self, what: str, found: int, known: int) -> None:
        super().__init__(
            f"{what} of version {found} was met, written by a newer attn; this one knows versions up to {known}. "
            "Upgrade it: it must not go on with what it may misunderstand"
        )
        self.version, self.supported = found, known


class _VersionField(msgspec.Struct):
    v: int = 1


_decode_version = msgspec.json.Decoder(_VersionField).decode


def versioned_decoder(what: str, known: int, decode: Callable[[bytes], T]) -> Callable[[bytes], T]:
    """`decode` with a look at the version: also where a newer one is in a shape that `decode` does not know.

    The result raises UnsupportedVersion, or what `decode` raises: msgspec.DecodeError, UnicodeDecodeError,
    RecursionError.
    """

    def read(raw: bytes) -> T:
        try:
            found = decode(raw)
        except (ValueError, RecursionError):
            if (version := _version(raw)) > known:
                raise UnsupportedVersion(what, version, known) from None
            raise
        if found.v > known:
            raise UnsupportedVersion(what, found.v, known)
        return found

    return read


def _version(raw: bytes) -> int:
    """0: it says none."""
    try:
        return _decode_version(raw).v
    except (ValueError, RecursionError):
        return 0
