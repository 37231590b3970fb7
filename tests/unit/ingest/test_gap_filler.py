"""The gap filler returns each record once and in order, for any delivery by Faust. Also packs and chunks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st
from support import events
from support.fold.pipeline_driver import event_of

from schemas.log import decode_pack
from schemas.topics import partition_of
from streams.consumer.chunks import ChunkScheduler, RecordChunk
from streams.consumer.gap_filler import GapFiller
from streams.core.packs import MAX_PACK_BYTES, MAX_PACK_ENTRIES, Packer
from streams.runtime.lag import LogTruncated

TP0 = TP("t", 0)


@dataclass
class Record:
    offset: int
    key: bytes | None = None
    value: bytes = b"x"
    headers: tuple[tuple[str, bytes], ...] = ()


class Log:
    """A partition with records at the offsets `held`; other offsets are missing (compaction, transaction markers)."""

    def __init__(self, held: list[int]) -> None:
        self.held = held

    def between(self, start: int, end: int) -> list[Record]:
        return [Record(offset) for offset in self.held if start <= offset < end]

    async def read(self, tp: TP, start: int, end: int) -> AsyncIterator[list[Record]]:
        records = self.between(start, end)
        for at in range(0, len(records), 3):
            yield records[at:at + 3]


async def followed(gaps: GapFiller, chunk: RecordChunk) -> list[int]:
    return [record.offset async for run in gaps.deliver(chunk) for record in run]


@given(
    st.lists(st.integers(0, 60), unique=True, min_size=1).map(sorted),
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12), st.booleans()), max_size=20),
    st.integers(0, 20),
)
async def test_every_record_once_in_order(held: list[int], deliveries: list[tuple[int, int, bool]], start: int) -> None:
    """Chunks are repeated, overlapping, out of order or left out; at the end the watchdog has the rest read again."""
    log = Log(held)
    gaps = GapFiller(log.read)  # type: ignore[arg-type]
    gaps.start_at(TP0, start)
    received: list[int] = []
    for at, length, again in deliveries:
        records = log.between(at, at + length)
        if again or not records:
            chunk = RecordChunk(TP0, [], min(at + length, held[-1] + 1), 0)
        else:
            chunk = RecordChunk.from_records(TP0, records)  # type: ignore[arg-type]
        received += await followed(gaps, chunk)
    received += await followed(gaps, RecordChunk(TP0, [], held[-1] + 1, 0))
    assert received == [offset for offset in held if offset >= start]


async def test_a_missing_tail_is_detected_at_the_second_check() -> None:
    gaps = GapFiller(Log([]).read)  # type: ignore[arg-type]
    gaps.start_at(TP0, 5)
    assert gaps.find_stalled({TP0: 5}, {TP0: 5}) == {}
    assert gaps.find_stalled({TP0: 5}, {TP0: 9}) == {}  # the records may still be delivered
    assert gaps.find_stalled({TP0: 5}, {TP0: 12}) == {TP0: 12}
    gaps.next_offsets[TP0] = 8
    assert gaps.find_stalled({TP0: 8}, {TP0: 12}) == {}  # the position moves


async def test_a_log_that_ends_before_the_position() -> None:
    gaps = GapFiller(Log([]).read)  # type: ignore[arg-type]
    gaps.start_at(TP0, 5)
    gaps.find_stalled({TP0: 5}, {TP0: 4})
    with pytest.raises(LogTruncated, match="ends at 4, but 5 was read"):
        gaps.find_stalled({TP0: 5}, {TP0: 4})


async def test_a_topic_that_was_created_again_and_a_chunk_that_was_late() -> None:
    """Offset 0 after later offsets means that the topic was created again. A late chunk is a repeat."""
    log = Log(list(range(40)))

    async def begin(tp: TP) -> int:
        return 0

    gaps = GapFiller(log.read, begin)  # type: ignore[arg-type]
    gaps.start_at(TP0, 0)
    chunk = lambda start, end: RecordChunk.from_records(TP0, log.between(start, end))  # type: ignore[arg-type]  # noqa: E731
    assert await followed(gaps, chunk(0, 5)) == list(range(5))
    assert await followed(gaps, RecordChunk(TP0, [], 40, 0)) == list(range(5, 40))  # read from the log
    gaps.set_committed({TP0: 40})
    assert await followed(gaps, chunk(5, 20)) == []  # a late chunk
    log.held = list(range(50))
    assert await followed(gaps, chunk(1, 3)) == [0, 1, 2]  # the new topic, whose first record was not delivered
    gaps.set_committed({TP0: 40})  # a committed offset of the old topic
    assert await followed(gaps, chunk(3, 50)) == list(range(3, 50))
    assert gaps.find_stalled({TP0: 50}, {TP0: 2}) == {}
    assert gaps.find_stalled({TP0: 50}, {TP0: 2}) == {TP0: 2}
    assert gaps.next_offsets[TP0] == 0


def test_a_chunk_has_the_records_of_one_fetch() -> None:
    runs = {TP0: [Record(3), Record(4)], TP("t", 1): [], TP("u", 0): [Record(0)]}
    chunks = list(ChunkScheduler().iterate(runs))  # type: ignore[arg-type]
    assert [(tp, chunk.offset, chunk.value) for tp, chunk in chunks] == [
        (TP0, 4, runs[TP0]), (TP("u", 0), 0, runs[TP("u", 0)])
    ]


def test_packs_hold_all_events_in_order_by_partition_within_limits() -> None:
    packer = Packer(4)
    made = [event_of(line) for line in events.generate(3, 4000, workspaces=tuple(f"w{n}" for n in range(9)))]
    for event in made:
        packer.add(event)
    assert packer.events == len(made)
    packs = packer.drain(77)
    assert packer.drain(78) == []
    for partition in range(4):
        packs_of_partition = [decode_pack(pack.value) for pack in packs if pack.partition == partition]
        assert [event for pack in packs_of_partition for event in pack.entries] == [
            event for event in made if partition_of(event.ws, 4) == partition
        ]
    assert all(decode_pack(value).at == 77 and len(decode_pack(value).entries) == count for _, count, value, _ in packs)
    assert all(count <= MAX_PACK_ENTRIES and len(value) <= MAX_PACK_BYTES + 100 for _, count, value, _ in packs)


def test_an_event_larger_than_a_pack_has_a_pack_of_its_own() -> None:
    packer = Packer(1)
    small, large = (event_of(line) for line in events.generate(1, 50)[:2])
    large.data.body_md = "x" * (MAX_PACK_BYTES + 1)
    for event in (small, large, small, small):
        packer.add(event)
    assert [pack.entries for pack in packer.drain(0)] == [1, 1, 2]
