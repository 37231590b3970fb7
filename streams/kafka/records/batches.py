"""Parses the bytes that a fetch returned for a partition; malformed bytes raise no exception (decision 0044).

`Partition` replaces aiokafka's `PartitionRecords`. aiokafka raises on the first batch that it cannot parse and then
fetches the same batch again forever; and it decompresses without a limit. In `Partition` each offset becomes a record,
or a part of an `Unreadable`, or it is skipped (control batches, aborted transactions, offsets removed by compaction).
The iteration raises nothing but StopIteration. aiokafka's own parser (Cython) parses every valid batch. No I/O.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Generator, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.legacy_records import LegacyRecordBatch

from streams.kafka.records.codecs import Broken, TooLarge, decompress
from streams.kafka.records.varints import Malformed, Parsed, parse

__all__ = ["KEPT_BYTES", "MAX_BODY", "MAX_HEADERS", "Buffer", "Partition", "Record", "Unreadable"]

MAX_BODY = 64 << 20  # bytes of a decompressed batch: four times the largest source record
MAX_HEADERS = 10_000  # per record; a header costs about 150 bytes of memory, and 2 bytes in the batch
KEPT_BYTES = 1 << 20  # of unreadable bytes
# aiokafka's parser creates all headers of a record before their number can be checked, so it gets only small bodies.
_MAX_FAST_BODY = 1 << 20

_HEADER = struct.Struct(">qiibIhiqqqhii")  # of a batch of format 2 (KIP-98)
_LENGTH = struct.Struct(">qi")
_MAGIC_AT = 16
_LEGACY = {0: 26, 1: 34}  # minimum bytes of a message of formats 0 and 1
_CODEC, _LOG_APPEND, _TRANSACTIONAL, _CONTROL = 0x07, 0x08, 0x10, 0x20

Record: TypeAlias = ConsumerRecord[bytes, bytes]


@dataclass
class Unreadable(ConsumerRecord[bytes, bytes]):  # type: ignore[misc]
    """Offsets `first` to `offset` (both included) that cannot be parsed.

    `value`: the first KEPT_BYTES of their raw bytes. `size`: number of raw bytes. `reason`: why they cannot be parsed.
    """

    reason: str = ""
    first: int = 0
    size: int = 0


class _Header(NamedTuple):
    base: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_delta: int
    first_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    sequence: int
    number: int  # of records


class Buffer:
    """The bytes of a fetched partition. Replaces aiokafka's `MemoryRecords`, whose parser raises during the fetch."""

    def __init__(self, raw: bytes | None) -> None:
        self.raw = memoryview(raw or b"")

    def has_next(self) -> bool:
        return bool(self.raw)

    def size_in_bytes(self) -> int:
        return len(self.raw)

    def batches(self) -> Iterator[memoryview]:
        """Yields the complete batches in order. The broker truncates the last batch at the size limit of the fetch."""
        at = 0
        while len(self.raw) - at >= _LENGTH.size:
            _, length = _LENGTH.unpack_from(self.raw, at)
            end = at + _LENGTH.size + length
            if length <= _MAGIC_AT - _LENGTH.size or end > len(self.raw):
                return
            yield self.raw[at:end]
            at = end


class Partition:
    """Iterates over the records of one fetched partition.

    `limit`: the high watermark. Kafka reads it before the records, so a complete batch may end after it. Otherwise the
    buffer has no offset at or after it. `next_fetch_offset`: the offset that the consumer fetches next, given the
    records iterated so far.
    """

    def __init__(
        self, tp: TopicPartition, records: Buffer, aborted_transactions: Sequence[tuple[int, int]] | None,
        fetch_offset: int, key_deserializer: object, value_deserializer: object, check_crcs: bool,
        isolation_level: int,
    ) -> None:
        self.next_fetch_offset = fetch_offset
        self.limit: int | None = None
        self._tp = tp
        self._buffer = records
        self._committed = isolation_level == READ_COMMITTED
        self._aborted = sorted(aborted_transactions or (), key=lambda pair: pair[1])
        self._aborted_producers: set[int] = set()
        self._check_crcs = check_crcs
        self._next_start_unknown = False  # whether the start of the next batch is unknown, after an unreadable batch
        self._records = self._parse_buffer()

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        return next(self._records)

    def _parse_buffer(self) -> Iterator[Record]:
        began = self.next_fetch_offset
        batches = list(self._buffer.batches())
        for number, raw in enumerate(batches):
            behind = batches[number + 1] if number + 1 < len(batches) else None
            # A batch header has the first offset in format 2, and the last offset in formats 0 and 1.
            after = _LENGTH.unpack_from(behind)[0] if behind is not None and behind[_MAGIC_AT] == 2 else None
            try:
                yield from self._parse_batch(raw, after)
            except Exception as error:  # a bug in a parser must not cause the same batch to be fetched forever
                end = self._plausible_end(_last_of(raw), after)
                yield self._unreadable(raw, end, f"{type(error).__name__}: {error}")
            if self._next_start_unknown or behind is None or not self._follows(raw, behind):
                break  # the next fetch starts with the next batch, whose start only the broker knows
        if self.next_fetch_offset == began:
            # The response did not move the position, so the broker would send the same response forever.
            yield self._unreadable(self._buffer.raw, began, "no complete record batch at this offset")

    def _plausible_end(self, last: int, after: int | None) -> int:
        """Returns the last offset of a batch: `last` from its header if that is plausible, else the offset before the
        next batch of the response, else the current position, so that only one offset is skipped."""
        known = after is not None and self._within(after - 1)
        if self._within(last) and (after is None or last < after or not known):
            return last
        return after - 1 if after is not None and known else self.next_fetch_offset

    def _follows(self, raw: memoryview, behind: memoryview) -> bool:
        first, second = _LENGTH.unpack_from(raw)[0], _LENGTH.unpack_from(behind)[0]
        return bool(first < second and (self.limit is None or second < self.limit))

    def _within(self, offset: int) -> bool:
        return self.next_fetch_offset <= offset and (self.limit is None or offset < self.limit)

    def _parse_batch(self, raw: memoryview, after: int | None) -> Iterator[Record]:
        base, magic = _LENGTH.unpack_from(raw)[0], raw[_MAGIC_AT]
        if magic in _LEGACY:
            yield from self._parse_legacy(raw, magic, base, after)
            return
        if magic != 2 or len(raw) < _HEADER.size:
            reason = f"unknown format {magic}" if magic != 2 else f"{len(raw)} bytes are too few for a batch"
            yield self._unreadable(raw, self._plausible_end(-1, after), reason)  # its last offset is unknown
            return
        header = _Header(*_HEADER.unpack_from(raw))
        last = base + header.last_delta
        if last < self.next_fetch_offset and header.last_delta >= 0:
            return  # the whole batch was read before
        if after is not None and base < after <= self.next_fetch_offset <= last:
            return  # the next batch starts before the end that the header claims, and the offsets before it were read
        batch = DefaultRecordBatch(bytes(raw))
        end = self._plausible_end(last, after)
        if self._check_crcs and not batch.validate_crc():
            # The header itself may be corrupt: its last offset is trusted only if two of its fields agree.
            end = end if header.number == header.last_delta + 1 else self._plausible_end(-1, after)
            yield self._unreadable(raw, end, "the CRC does not match")
        elif self._skips(batch, header):
            self.next_fetch_offset = end + 1
        elif end != last and not self._is_complete(raw, header, last):
            yield self._unreadable(raw, end, f"the batch says it ends at offset {last}")
        else:
            began = self.next_fetch_offset
            yield from self._parse_records(raw, batch, header, last)
            known = after is not None and self._within(after - 1)
            complete = header.number == header.last_delta + 1 or known
            if complete or self._next_start_unknown or self.next_fetch_offset == began:
                self.next_fetch_offset = max(self.next_fetch_offset, last + 1)
            # Otherwise compaction removed the last records, or the header is wrong: the next fetch shows which.

    def _is_complete(self, raw: memoryview, header: _Header, last: int) -> bool:
        """Whether the batch has a readable record for each offset from the current position to the end it claims."""
        if header.number != header.last_delta + 1 or header.base > self.next_fetch_offset:
            return False
        records = list(copy(self)._parse_records(raw, DefaultRecordBatch(bytes(raw)), header, last))
        expected = last + 1 - self.next_fetch_offset  # offsets of records increase
        return len(records) == expected and not any(isinstance(record, Unreadable) for record in records)

    def _skips(self, batch: DefaultRecordBatch, header: _Header) -> bool:
        """Whether the batch is a control batch or belongs to an aborted transaction."""
        control = bool(header.attributes & _CONTROL)
        if not self._committed:
            return control
        while self._aborted and self._aborted[0][1] <= header.base:
            self._aborted_producers.add(self._aborted.pop(0)[0])
        if control:
            if _aborts(batch):
                self._aborted_producers.discard(header.producer_id)
            return True
        return bool(header.attributes & _TRANSACTIONAL) and header.producer_id in self._aborted_producers

    def _parse_records(
        self, raw: memoryview, batch: DefaultRecordBatch, header: _Header, last: int
    ) -> Iterator[Record]:
        body: memoryview = raw[_HEADER.size:]
        if codec := header.attributes & _CODEC:
            try:
                body = memoryview(decompress(codec, body, MAX_BODY))
            except (Broken, TooLarge) as error:
                yield self._unreadable(raw, last, str(error))
                return
            if len(body) <= _MAX_FAST_BODY:
                plain = header._replace(attributes=header.attributes & ~_CODEC, length=len(body) + _HEADER.size - 12)
                batch = DefaultRecordBatch(_HEADER.pack(*plain) + body)
        if len(body) > _MAX_FAST_BODY or not (yield from self._parse_fast(batch, header.base, last)):
            yield from self._parse_slowly(body, header, last)

    def _parse_fast(self, batch: DefaultRecordBatch, base: int, last: int) -> Generator[Record, None, bool]:
        """Yields records parsed by aiokafka, up to the first that it cannot parse. Returns True if it parsed all."""
        before, records = base - 1, iter(batch)
        while True:
            try:
                record = next(records, None)
            except Exception:  # `_parse_slowly` determines the reason
                return False
            if record is None:
                return True
            offset = record.offset
            if not before < offset <= last or len(record.headers) > MAX_HEADERS:
                return False
            before = offset
            if offset >= self.next_fetch_offset:
                self.next_fetch_offset = offset + 1
                yield self._record(
                    offset, record.timestamp, record.timestamp_type, record.key, record.value, record.headers)

    def _parse_slowly(self, body: memoryview, header: _Header, last: int) -> Iterator[Record]:
        """Yields records parsed one by one. A malformed record ends at its length field if that is inside the batch."""
        at, count, before, first = 0, 0, header.base - 1, self.next_fetch_offset
        while at < len(body) and count < header.number:
            count += 1
            parsed, end, reason = _parsed(body, at)
            offset = before + 1 if parsed is None else header.base + parsed.delta
            if not before < offset <= last:
                offset, parsed, reason = min(before + 1, last), None, "its offset is not after the previous one"
            ends = offset if reason is None or end < len(body) else last
            if ends >= first:
                self.next_fetch_offset = max(self.next_fetch_offset, ends + 1)
                if parsed is None:
                    yield self._unreadable_part(body[at:end], max(offset, first), ends, str(reason))
                else:
                    yield self._from_parsed(parsed, header, offset)
            at, before = end, max(before, ends)
        if at < len(body) or (count < header.number and before < last):
            reason = f"the header has {header.number} records, the batch has {count} and {len(body) - at} bytes more"
            yield self._unreadable_part(body[at:], min(max(before + 1, first), last), last, reason)

    def _parse_legacy(self, raw: memoryview, magic: int, last: int, after: int | None) -> Iterator[Record]:
        """Yields the records of a message of format 0 or 1, which may remain from brokers before Kafka 3.0. The offset
        of a compressed message is that of its last record."""
        end = self._plausible_end(last, after)
        if last < self.next_fetch_offset:
            return
        try:
            if len(raw) < _LEGACY[magic]:
                raise ValueError(f"{len(raw)} bytes are too few for a message")
            batch = LegacyRecordBatch(bytes(raw), magic)
            if self._check_crcs and not batch.validate_crc():
                raise ValueError("the CRC does not match")
            _refuse_bomb(raw, magic)
            records = list(batch)
        except Exception as error:  # the parser raises errors of many classes
            yield self._unreadable(raw, end, f"format {magic}: {error}")
            return
        for record in records:
            if self.next_fetch_offset <= record.offset <= last:
                self.next_fetch_offset = record.offset + 1
                yield self._record(
                    record.offset, record.timestamp or -1, record.timestamp_type or 0, record.key, record.value, ())
        self.next_fetch_offset = max(self.next_fetch_offset, last + 1)

    # --- results ---

    def _record(
        self, offset: int, timestamp: int, kind: int, key: bytes | None, value: bytes | None, headers: Sequence[Any]
    ) -> Record:
        return ConsumerRecord(
            self._tp.topic, self._tp.partition, offset, timestamp, kind, key, value, None,
            -1 if key is None else len(key), -1 if value is None else len(value), tuple(headers))

    def _from_parsed(self, parsed: Parsed, header: _Header, offset: int) -> Record:
        append = bool(header.attributes & _LOG_APPEND)
        timestamp = header.max_timestamp if append else header.first_timestamp + parsed.timestamp
        return self._record(offset, timestamp, int(append), parsed.key, parsed.value, parsed.headers)

    def _unreadable(self, raw: memoryview, last: int, reason: str) -> Unreadable:
        """Returns an `Unreadable` for a whole batch; the consumer continues after `last`."""
        first, self.next_fetch_offset = self.next_fetch_offset, last + 1
        self._next_start_unknown = True
        return self._unreadable_part(raw, first, last, reason)

    def _unreadable_part(self, raw: memoryview, first: int, last: int, reason: str) -> Unreadable:
        kept_bytes = bytes(raw[:KEPT_BYTES])
        return Unreadable(
            self._tp.topic, self._tp.partition, last, time.time_ns() // 1_000_000, 0, None, kept_bytes, None, -1,
            len(kept_bytes), (), reason=reason, first=first, size=len(raw))


def _parsed(body: memoryview, at: int) -> tuple[Parsed | None, int, str | None]:
    """Returns the record at `at` or None, the start of the next record, and the reason if there is no record."""
    try:
        return *parse(body, at, MAX_HEADERS), None
    except Malformed as error:
        return None, len(body) if error.end is None else error.end, str(error)


def _last_of(raw: memoryview) -> int:
    """Returns the last offset of a batch according to its header."""
    base = int(_LENGTH.unpack_from(raw)[0])
    whole = raw[_MAGIC_AT] == 2 and len(raw) >= _HEADER.size
    return base + int(_Header(*_HEADER.unpack_from(raw)).last_delta) if whole else base


def _aborts(batch: DefaultRecordBatch) -> bool:
    """Whether a control batch is an abort marker. An unknown or malformed type is not."""
    try:
        record = next(iter(batch))
        return bool(ControlRecord.parse(record.key) == ABORT_MARKER)
    except Exception:
        return False


def _refuse_bomb(raw: memoryview, magic: int) -> None:
    """Raises TooLarge if the message set inside a compressed message exceeds MAX_BODY."""
    codec = raw[_MAGIC_AT + 1] & _CODEC
    if not codec:
        return
    at = _LEGACY[magic] - 8
    (key,) = struct.unpack_from(">i", raw, at)
    at += 4 + max(key, 0)
    (size,) = struct.unpack_from(">i", raw, at)
    try:
        decompress(codec, raw[at + 4:at + 4 + max(size, 0)], MAX_BODY)
    except Broken:
        if magic == 1:  # format 0 has lz4 frames with an outdated checksum, which aiokafka accepts
            raise
