"""Parses one record of a Kafka record batch (format 2) and checks every length in it. Pure."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Malformed", "Parsed", "parse"]

_MAX_VARINT_BYTES = 10  # of 64 bits


class Malformed(ValueError):
    """The bytes are not a valid record. `end`: the start of the next record, or None if it is unknown."""

    def __init__(self, reason: str, end: int | None = None) -> None:
        super().__init__(reason)
        self.end = end


class Parsed(NamedTuple):
    """`timestamp` and `delta` (of the offset) are relative to the batch. Bytes of a header name that are not UTF-8
    become surrogate escapes."""

    timestamp: int
    delta: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


def parse(body: memoryview, at: int, max_headers: int) -> tuple[Parsed, int]:
    """Returns the record at `at` and the start of the next record. Raises Malformed."""
    length, at = _varint(body, at, len(body))
    end = at + length
    if length < 0 or end > len(body):
        raise Malformed(f"a record of {length} bytes, {len(body) - at} are left")
    try:
        return _fields(body, at, end, max_headers), end
    except Malformed as error:
        raise Malformed(str(error), end) from None


def _fields(body: memoryview, at: int, end: int, max_headers: int) -> Parsed:
    at += 1  # attributes, unused
    timestamp, at = _varint(body, at, end)
    delta, at = _varint(body, at, end)
    key, at = _bytes(body, at, end, "key")
    value, at = _bytes(body, at, end, "value")
    count, at = _varint(body, at, end)
    if not 0 <= count <= max_headers:
        raise Malformed(f"{count} headers; at most {max_headers} are read")
    headers = []
    for _ in range(count):
        name, at = _bytes(body, at, end, "header name")
        if name is None:
            raise Malformed("a header without a name")
        content, at = _bytes(body, at, end, "header value")
        headers.append((name.decode(errors="surrogateescape"), content))
    if at != end:
        raise Malformed(f"{end - at} bytes behind the last header")
    return Parsed(timestamp, delta, key, value, headers)


def _bytes(body: memoryview, at: int, end: int, what: str) -> tuple[bytes | None, int]:
    size, at = _varint(body, at, end)
    if size < 0:  # Kafka's own clients take any negative length for null
        return None, at
    if size > end - at:
        raise Malformed(f"a {what} of {size} bytes, {end - at} are left")
    return bytes(body[at:at + size]), at + size


def _varint(body: memoryview, at: int, end: int) -> tuple[int, int]:
    if at >= end:
        raise Malformed("it ends inside a number")
    first = body[at]
    if first < 0x80:
        return (first >> 1) ^ -(first & 1), at + 1
    number, shift = first & 0x7F, 7
    for position in range(at + 1, min(at + _MAX_VARINT_BYTES, end)):
        byte = body[position]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), position + 1
        shift += 7
    raise Malformed("it ends inside a number" if end - at < _MAX_VARINT_BYTES else "a number of more than 64 bits")
