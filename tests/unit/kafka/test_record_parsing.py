"""Fetched bytes are parsed record by record; bytes that cannot be parsed become an `Unreadable`."""

from __future__ import annotations

import gzip
import inspect
import struct
import tracemalloc
from collections.abc import Iterable
from typing import Any

import cramjam
import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from support.kafka.record_batches import CODECS, HEADER, Batch, Rec, control, legacy, varint

from streams.kafka.records import fetcher_patch
from streams.kafka.records.batches import KEPT_BYTES, MAX_BODY, MAX_HEADERS, Buffer, Partition, Unreadable

TP = TopicPartition("plans", 0)


def read(
    *batches: Batch | bytes, at: int = 0, aborted: Iterable[tuple[int, int]] = (), committed: bool = True,
    limit: int | None = None,
) -> tuple[list[Any], int]:
    """Fetches from a broker that has these batches, up to `limit`. Without a limit: the first response, or all up to
    the end of the last batch.
    Returns the records and the position after them."""
    raws, records = [batch if isinstance(batch, bytes) else batch.encode() for batch in batches], []
    last = batches[-1]
    end = limit if limit is not None else last.last + 1 if isinstance(last, Batch) else 0
    while True:
        partition = Partition(TP, Buffer(b"".join(raws)), list(aborted), at, None, None, True, int(committed))
        partition.limit = limit
        records += list(partition)
        assert partition.next_fetch_offset > at
        at = partition.next_fetch_offset
        if at >= end:
            return records, at
        while len(raws) > 1 and struct.unpack_from(">q", raws[1])[0] <= at:
            del raws[0]


def shape(records: list[Any]) -> list[Any]:
    """Returns the values of records, and (first, last) offset of unreadable ones."""
    return [(record.first, record.offset) if isinstance(record, Unreadable) else record.value for record in records]


def values(*texts: bytes) -> list[Rec]:
    return [Rec(value=text) for text in texts]


@pytest.mark.parametrize("codec", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("size", [3, 900_000])  # the small size is parsed by aiokafka, the large one by attn
def test_all_codecs_and_everything_a_record_can_have(codec: int, size: int) -> None:
    big = bytes(range(256)) * (size // 256 + 1)
    sent = [
        Rec(b"\xff\x00", big, [(b"a", b"\xfe"), (b"a", None), ("ключ".encode(), b"")], timestamp=7),
        Rec(None, None), Rec(b"", b""), Rec(b"k", big),
    ]
    records, after = read(Batch(sent, 40, codec), at=41)
    assert after == 44
    assert [(record.offset, record.key, record.value) for record in records] == [
        (41, None, None), (42, b"", b""), (43, b"k", big)]
    first = read(Batch(sent, 40, codec), at=40)[0][0]
    assert list(first.headers) == [("a", b"\xfe"), ("a", None), ("ключ", b"")]
    assert (first.timestamp, first.timestamp_type) == (1_780_000_000_007, 0)


def test_snappy_batches_of_other_clients_are_read() -> None:
    """Raw blocks (librdkafka) are read. Snappy's framing format is unreadable: Kafka does not use it."""
    body = b"".join(record.encode(number) for number, record in enumerate(values(b"a", b"b")))
    records, _ = read(Batch(values(b"a", b"b"), codec=2, packed=bytes(cramjam.snappy.compress_raw(body))))
    assert shape(records) == [b"a", b"b"]
    assert shape(read(Batch(values(b"a"), codec=2, packed=bytes(cramjam.snappy.compress(b"x"))))[0]) == [(0, 0)]


def test_a_header_name_of_any_bytes() -> None:
    records, after = read(Batch([Rec(value=b"a"), Rec(value=b"b", headers=[(b"x\xff", b"1")]), Rec(value=b"c")]))
    assert (shape(records), after) == ([b"a", b"b", b"c"], 3)
    assert records[1].headers == (("x\udcff", b"1"),)


BROKEN = {
    "the CRC": Batch(values(b"x", b"y"), crc=1),
    "no codec": Batch(values(b"x", b"y"), codec=5),
    "gzip that is none": Batch(values(b"x", b"y"), codec=1, packed=b"not gzip"),
    "gzip cut off": Batch(values(b"x", b"y"), codec=1, packed=gzip.compress(b"x" * 100)[:-9]),
    "zstd that is none": Batch(values(b"x", b"y"), codec=4, packed=b"not zstd"),
    "lz4 cut off": Batch(values(b"x", b"y"), codec=3, packed=CODECS[3](b"x" * 100)[:-9]),
    "snappy block of -5": Batch(
        values(b"x", b"y"), codec=2, packed=b"\x82SNAPPY\x00" + struct.pack(">iii", 1, 1, -5) + b"abc"),
    "empty gzip": Batch(values(b"x", b"y"), codec=1, packed=b""),
    "no varint": Batch(values(b"x", b"y"), body=b"\xff" * 30),
    "format 3": Batch(values(b"x", b"y"), magic=3),
    "format -1": Batch(values(b"x", b"y"), magic=-1),
    "no records at all": Batch(values(b"x", b"y"), body=b""),
    "more records than it says": Batch(values(b"x", b"y"), count=0),
    "fewer than none": Batch(values(b"x", b"y"), count=-7),
    "offsets to the end of time": Batch(values(b"x", b"y"), last_delta=2**31 - 1),
    "offsets backwards": Batch(values(b"x", b"y"), last_delta=-2),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_batch_is_unreadable_and_the_batches_around_it_are_read(broken: Batch) -> None:
    good, more = Batch(values(b"a", b"b"), 10), Batch(values(b"c"), 14)
    records, after = read(good, broken.at(12), more, at=10, limit=15)
    assert (shape(records), after) == ([b"a", b"b", (12, 13), b"c"], 15)
    assert records[2].reason
    # A broken batch alone and at the end: the position still moves.
    records, after = read(broken.at(12), at=12, limit=14)
    assert {type(record) for record in records} == {Unreadable}
    assert after == 14


@pytest.mark.parametrize("codec", [0, 1])
@pytest.mark.parametrize("at", [12, 13])
def test_a_complete_batch_that_ends_after_the_high_watermark_is_read(codec: int, at: int) -> None:
    """Kafka reads the high watermark before the records. A record that is written in between is in the response."""
    for limit in (12, 13, 14):
        found = Partition(TP, Buffer(Batch(values(b"x", b"y", b"z"), 12, codec).encode()), (), at, None, None, True, 1)
        found.limit = limit
        assert shape(list(found)) == [b"x", b"y", b"z"][at - 12:]
        assert found.next_fetch_offset == 15


def test_the_next_batch_is_read_after_a_batch_whose_offsets_overlap_it() -> None:
    """The embedded broker writes such a batch for a negative offset delta. The next batch is read, also if both are
    fetched again."""
    log = Batch(values(b"x", b"y"), 0, last_delta=4), Batch(values(b"a"), 1), Batch(values(b"b"), 2)
    assert shape(read(*log)[0]) == [(0, 0), b"a", b"b"]
    assert shape(list(Partition(TP, Buffer(b"".join(each.encode() for each in log)), (), 1, None, None, True, 1))) == [
        b"a", b"b"]


def test_a_broken_record_is_unreadable_and_the_records_around_it_are_read() -> None:
    broken = [
        Rec(raw=b"\0\0"), Rec(value=b"ok", header_count=-1), Rec(value=b"ok", header_count=5),
        Rec(raw=b"\0\0" + varint(3) + varint(-1) + varint(1 << 30)), Rec(delta=99), Rec(delta=-4),
        Rec(value=b"x", headers=[(b"n", b"v")], header_count=0),
    ]
    for fault in broken:
        records, after = read(Batch([Rec(value=b"a"), fault, Rec(value=b"c")]))
        assert (shape(records), after) == ([b"a", (1, 1), b"c"], 3), fault


def test_a_record_with_a_wrong_length_makes_the_rest_of_its_batch_unreadable() -> None:
    for length in (-1, 1 << 40, 500):
        records, after = read(Batch([Rec(value=b"a"), Rec(value=b"b", length=length), Rec(value=b"c")]), Batch(
            values(b"d"), 3))
        assert (shape(records), after) == ([b"a", (1, 2), b"d"], 4)


@pytest.mark.parametrize("length", [-1, 0, 4, 2**31 - 1])
def test_a_batch_with_a_wrong_length_is_skipped_offset_by_offset(length: int) -> None:
    """The start of the next batch is unknown: the position moves by one, and the next fetch finds it."""
    broken = Batch(values(b"x"), 7, length=length)
    records, after = read(broken, at=7, limit=9)
    assert (shape(records), after) == ([(7, 7), (8, 8)], 9)
    records, _ = read(Batch(values(b"a"), 6), broken, at=6)  # the broken batch is the first of the next response
    assert shape(records) == [b"a", (7, 7)]


@pytest.mark.parametrize("codec", [1, 2, 3, 4])
def test_a_batch_that_decompresses_beyond_the_limit_is_refused_in_bounded_memory(codec: int) -> None:
    bomb = Batch(values(b"x"), codec=codec, packed=CODECS[codec](bytes(MAX_BODY + 1))).encode()
    assert len(bomb) < 16 << 20
    tracemalloc.start()
    records, after = read(bomb, Batch(values(b"b"), 1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (shape(records), after) == ([(0, 0), b"b"], 2)
    assert records[0].reason == f"decompresses to more than {MAX_BODY} bytes"
    assert len(records[0].value) <= KEPT_BYTES
    assert peak < 4 * MAX_BODY


@pytest.mark.parametrize("count", [MAX_HEADERS + 1, 600_000])
def test_millions_of_headers_are_refused_before_they_are_made(count: int) -> None:
    records, _ = read(Batch([Rec(value=b"a"), Rec(headers=[(b"", None)] * count), Rec(value=b"c")], codec=1))
    assert shape(records) == [b"a", (1, 1), b"c"]
    assert f"{count} headers" in records[1].reason


def test_aborted_transactions_and_markers_are_skipped() -> None:
    log = [
        Batch(values(b"aborted"), 0, attributes=0x10, producer=(7, 0, 0)),
        Batch(values(b"kept"), 1, attributes=0x10, producer=(8, 0, 0)),
        Batch(values(b"plain"), 2), control(0, 7, 3), control(1, 8, 4),
        Batch(values(b"second"), 5, attributes=0x10, producer=(7, 0, 1)), control(1, 7, 6),
        control(9, 7, 7), control(0, 7, 8, key=b""),  # control types that do not exist
    ]
    records, after = read(*log, aborted=[(7, 0)])
    assert (shape(records), after) == ([b"kept", b"plain", b"second"], 9)
    assert shape(read(*log, committed=False)[0]) == [b"aborted", b"kept", b"plain", b"second"]


@pytest.mark.parametrize("magic", [0, 1])
@pytest.mark.parametrize("codec", [0, 1, 2])
def test_formats_0_and_1(magic: int, codec: int) -> None:
    raw = legacy([b"a", None, b"c"], magic, codec, base=5)
    records, after = read(raw, at=5)
    assert ([record.value for record in records], after) == ([b"a", None, b"c"], 8)
    broken = bytearray(raw)
    broken[-1] ^= 1
    records, after = read(bytes(broken), Batch(values(b"d"), 8), at=5)
    read_all_the_same = [b"d"] if codec else [b"a", None, b"d"]
    assert [record.value for record in records if not isinstance(record, Unreadable)] == read_all_the_same
    assert after == 9


def test_a_bomb_in_format_1() -> None:
    raw = bytearray(legacy([b"a"], 1, 1, base=5))
    bomb = gzip.compress(bytes(MAX_BODY + 1))
    head = bytes(raw[:26]) + struct.pack(">ii", -1, len(bomb)) + bomb
    message = bytearray(head)
    struct.pack_into(">i", message, 8, len(message) - 12)
    import zlib
    struct.pack_into(">I", message, 12, zlib.crc32(bytes(message[16:])))
    records, after = read(bytes(message), at=5)
    assert ([type(record) for record in records], after) == ([Unreadable], 6)
    assert "decompresses to more than" in records[0].reason


def test_every_cut_and_every_byte_of_a_batch() -> None:
    """A batch is cut at each byte, or has one byte changed: the position moves, and later batches are read."""
    raw, behind = Batch([Rec(b"k", b"v", [(b"h", b"x")]), Rec(b"l", b"w")], codec=1).encode(), Batch(values(b"z"), 2)
    for cut in range(1, len(raw)):
        records, after = read(raw[:cut], limit=2)
        assert (shape(records), after) == ([(0, 0), (1, 1)], 2)
    for at in range(len(raw)):
        if 8 <= at < 12:
            continue  # the length field: see the test of wrong lengths
        changed = bytearray(raw)
        changed[at] ^= 0x81
        records, after = read(bytes(changed), behind, limit=3)
        assert (records[-1].value, after) == (b"z", 3), at


def test_the_patch_replaces_classes_that_aiokafka_uses() -> None:
    fetcher_patch.install()
    assert fetcher.MemoryRecords is Buffer
    assert issubclass(fetcher.PartitionRecords, Partition)
    # idle_fetch may have wrapped the method in this process
    fetch = inspect.unwrap(fetcher.Fetcher._proc_fetch_request)
    assert {"MemoryRecords", "PartitionRecords", "FetchResult"} <= {*fetch.__globals__}
    assert HEADER.size == 61
