"""Builds Kafka record batches byte by byte: valid ones, and invalid ones as from faulty clients or a corrupt disk."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cramjam
from aiokafka.codec import lz4_encode, snappy_encode
from aiokafka.record.util import calc_crc32c

__all__ = ["CODECS", "HEADER", "Batch", "Rec", "control", "legacy", "varint"]

HEADER = struct.Struct(">qiibIhiqqqhii")
CRC_AT, ATTRIBUTES_AT = 17, 21
NAMES = ("none", "gzip", "snappy", "lz4", "zstd")
CODECS: dict[int, Callable[[bytes], bytes]] = {
    0: bytes,
    1: gzip.compress,
    2: snappy_encode,
    3: lz4_encode,
    4: lambda raw: bytes(cramjam.zstd.compress(raw)),
    5: lambda raw: raw,  # unassigned codec numbers
    7: lambda raw: raw,
}


def varint(number: int) -> bytes:
    value = ((number << 1) ^ (number >> 63)) & 0xFFFFFFFFFFFFFFFF
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _sized(raw: bytes | None) -> bytes:
    return varint(-1) if raw is None else varint(len(raw)) + raw


@dataclass
class Rec:
    """One record. `raw` replaces the bytes after the record's length; `length` replaces the length."""

    key: bytes | None = None
    value: bytes | None = b"{}"
    headers: Sequence[tuple[bytes, bytes | None]] = ()
    timestamp: int = 0
    delta: int | None = None
    header_count: int | None = None
    raw: bytes | None = None
    length: int | None = None

    def encode(self, number: int) -> bytes:
        body = self.raw
        if body is None:
            delta = number if self.delta is None else self.delta
            count = len(self.headers) if self.header_count is None else self.header_count
            body = b"\0" + varint(self.timestamp) + varint(delta) + _sized(self.key) + _sized(self.value)
            body += varint(count) + b"".join(_sized(name) + _sized(raw) for name, raw in self.headers)
        return varint(len(body) if self.length is None else self.length) + body


@dataclass
class Batch:
    """A batch of format 2. Fields that are None are computed from the records; `body` replaces the records' bytes."""

    records: list[Rec] = field(default_factory=list)
    base: int = 0
    codec: int = 0
    attributes: int = 0
    magic: int = 2
    last_delta: int | None = None
    count: int | None = None
    length: int | None = None
    crc: int | None = None
    timestamps: tuple[int, int] = (1_780_000_000_000, 1_780_000_000_000)
    producer: tuple[int, int, int] = (-1, -1, -1)
    body: bytes | None = None
    packed: bytes | None = None

    @property
    def last(self) -> int:
        return self.base + (len(self.records) - 1 if self.last_delta is None else self.last_delta)

    def at(self, base: int) -> Batch:
        return replace(self, base=base)

    def encode(self) -> bytes:
        body = self.body
        if body is None:
            body = b"".join(record.encode(number) for number, record in enumerate(self.records))
        packed = CODECS[self.codec](body) if self.packed is None else self.packed
        length = len(packed) + HEADER.size - 12 if self.length is None else self.length
        encoded = bytearray(HEADER.pack(
            self.base, length, 0, self.magic, 0, self.attributes | self.codec,
            self.last - self.base, *self.timestamps, *self.producer,
            len(self.records) if self.count is None else self.count,
        ) + packed)
        crc = calc_crc32c(bytes(encoded[ATTRIBUTES_AT:])) if self.crc is None else self.crc
        struct.pack_into(">I", encoded, CRC_AT, crc)
        return bytes(encoded)


def control(kind: int, producer: int, base: int = 0, key: bytes | None = None) -> Batch:
    """Returns the control batch that ends a transaction: `kind` 0 aborts, 1 commits, others are undefined."""
    key = struct.pack(">HH", 0, kind) if key is None else key
    return Batch([Rec(key, b"\0" * 6)], base, attributes=0x30, producer=(producer, 0, -1))


def legacy(values: Sequence[bytes | None], magic: int = 1, codec: int = 0, base: int = 0) -> bytes:
    """Returns a message set of format 0 or 1."""
    from aiokafka.record.legacy_records import LegacyRecordBatchBuilder

    builder: Any = LegacyRecordBatchBuilder(magic, codec, 1 << 20)
    for number, value in enumerate(values):
        assert builder.append(number + (0 if magic else base), 1_780_000_000_000, b"k", value) is not None
    raw = bytearray(builder.build())
    if codec:
        struct.pack_into(">q", raw, 0, base + len(values) - 1)  # wrapper: the last offset, as on a broker
    else:
        at = 0
        for number in range(len(values)):
            struct.pack_into(">q", raw, at, base + number)
            at += 12 + struct.unpack_from(">i", raw, at + 8)[0]
    return bytes(raw)
