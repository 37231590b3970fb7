"""Decompresses the body of a Kafka record batch within a size limit. Pure.

aiokafka decompresses without a limit: one megabyte of gzip or zstd can become gigabytes of memory. Each codec of this
module writes into a buffer of bounded size or stops at the limit.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

import cramjam

__all__ = ["CODECS", "Broken", "TooLarge", "decompress"]

CODECS = {1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}

_GZIP = 31  # zlib's window bits for a gzip header and trailer
_FIRST_BUFFER = 64 << 10
_XERIAL = b"\x82SNAPPY\x00"  # framing of the Java and Go clients: blocks, each preceded by its length
_XERIAL_HEADER = 16


class Broken(ValueError):
    """The bytes are not valid for their codec, or the codec is unknown."""


class TooLarge(ValueError):
    """The bytes decompress to more than the limit."""


def decompress(codec: int, body: memoryview, limit: int) -> bytes | memoryview:
    """Returns the decompressed body of a batch. `codec`: bits 0 to 2 of its attributes (KIP-98).

    Raises Broken if the bytes are malformed, TooLarge if the result exceeds `limit` bytes.
    """
    try:
        if codec == 1:
            return _gzip(body, limit)
        if codec == 2:
            return _snappy(body, limit)
        if codec == 3:
            return _into(cramjam.lz4.decompress_into, body, limit)
        if codec == 4:
            return _into(cramjam.zstd.decompress_into, body, limit)
    except (zlib.error, cramjam.DecompressionError, struct.error, OverflowError) as error:
        raise Broken(f"{CODECS[codec]}: {error}") from error
    raise Broken(f"unknown compression codec {codec}")


def _gzip(body: memoryview, limit: int) -> bytes:
    output, rest = bytearray(), bytes(body)
    while rest:  # a gzip file may have several members
        member = zlib.decompressobj(_GZIP)
        output += member.decompress(rest, limit + 1 - len(output))
        if len(output) > limit:
            raise _too_large(limit)
        if not member.eof:
            raise Broken("gzip: the data ends before its trailer")
        rest = member.unused_data.lstrip(b"\0")  # padding after the last member is allowed
    return bytes(output)


def _into(codec: Callable[[memoryview, bytearray], int], body: memoryview, limit: int) -> memoryview:
    size = min(max(_FIRST_BUFFER, 8 * len(body)), limit)
    while True:
        out = bytearray(size)
        try:
            return memoryview(out)[:codec(body, out)]
        except cramjam.DecompressionError as error:
            if "whole buffer" not in str(error):
                raise
        if size >= limit:
            raise _too_large(limit)
        size = min(size * 16, limit)


def _snappy(body: memoryview, limit: int) -> bytes:
    if bytes(body[:len(_XERIAL)]) != _XERIAL:
        return _block(body, limit, limit)
    output, at = bytearray(), _XERIAL_HEADER
    while at < len(body):
        (size,) = struct.unpack_from(">i", body, at)
        at += 4
        if not 0 <= size <= len(body) - at:
            raise Broken(f"snappy: a block of {size} bytes, {len(body) - at} are left")
        output += _block(body[at:at + size], limit - len(output), limit)
        at += size
    return bytes(output)


def _block(block: memoryview, room: int, limit: int) -> bytes:
    raw: Any = bytes(block)
    if not raw:
        return b""
    if cramjam.snappy.decompress_raw_len(raw) > room:
        raise _too_large(limit)
    return bytes(cramjam.snappy.decompress_raw(raw))


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"decompresses to more than {limit} bytes")
