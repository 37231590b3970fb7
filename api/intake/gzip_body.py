"""Inflates a gzip body piece by piece, with limits of size, ratio and members. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

__all__ = ["GzipError", "GzipReader", "InflatedTooLarge"]

_GZIP = 31  # wbits of zlib: gzip with header and checksum
_PIECE = 64 << 10
# JSON of repeated events shrinks to a 50th. Deflate itself reaches 1:1032, with zeros.
MAX_RATIO = 200
_RATIO_FROM = 1 << 20  # inflated bytes from which the ratio counts: small bodies are harmless
_MAX_MEMBERS = 64  # streams that follow each other in one body (RFC 1952)


class GzipError(Exception):
    """The body is not gzip, or is truncated."""


class InflatedTooLarge(Exception):
    """The inflated body exceeds a limit; `str(error)` names it."""


class GzipReader:
    """Inflates one body. `limit`: inflated bytes of the whole body."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._inflate = zlib.decompressobj(_GZIP)
        self._members, self._read, self._written = 1, 0, 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yields the inflated pieces of the next bytes. Raises GzipError or InflatedTooLarge, before more than a piece
        of 64 KiB beyond the limit is in memory."""
        self._read += len(data)
        while data:
            if self._inflate.eof:
                self._start_member()
            try:
                piece = self._inflate.decompress(data, _PIECE)
            except zlib.error as error:
                raise GzipError(f"the body is not gzip: {error}") from None
            data = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
            if piece:
                self._count(len(piece))
                yield piece

    def close(self) -> None:
        """Raises GzipError if the body ended within a member."""
        if not self._inflate.eof:
            raise GzipError("the gzip body is truncated")

    def _start_member(self) -> None:
        self._members += 1
        if self._members > _MAX_MEMBERS:
            raise GzipError(f"the gzip body has more than {_MAX_MEMBERS} members")
        self._inflate = zlib.decompressobj(_GZIP)

    def _count(self, size: int) -> None:
        self._written += size
        if self._written > self._limit:
            raise InflatedTooLarge(f"the inflated body is too large: at most {self._limit} bytes")
        if self._written > _RATIO_FROM and self._written > MAX_RATIO * self._read:
            raise InflatedTooLarge(f"the body inflates to more than {MAX_RATIO} times its size")
