"""An edge loads a correct view after any compaction, and resumes from each batch that was not compacted."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.edge.feeds import Edge
from support.edge.random_rows import World
from support.examples import law
from support.kafka.compaction import Record, compact

from api.edge.bootstrap import parse_fact
from api.edge.initial_state import BatchAssembler, InitialState, ViewBatch
from api.readmodel.replica import Replica
from schemas.views import ItemRow, MarkRow, cursor_of, encode_row, position_key, workspace_of


def topic(world: World, batches: int) -> list[Record]:
    """Returns the records of these batches, one batch per millisecond."""
    records: list[Record] = []
    for at in range(batches):
        rows, position = world.batch()
        records += [(key, raw, at) for key, raw in rows]
        records.append((position_key(0), encode_row(position), at))
    return records


def load(records: list[Record], room: int, horizon: int, later: int | None = None) -> Replica:
    assembler, loading = BatchAssembler(0), InitialState(room, horizon)
    for record in records:
        batch = assembler.add(*record)
        if batch is not None:
            loading.add(batch)
    assert not loading.advance_horizon(horizon if later is None else later)
    state, batches = loading.finish()
    replica = Replica(1)
    for partition, (rows, position) in state.items():
        replica.load(partition, rows, position)
    for batch in batches:
        replica.apply(batch.partition, batch.rows, batch.position)
    return replica


@law(60)
@given(st.integers(0, 2**32), st.integers(0, 20), st.integers(0, 4), st.sampled_from([0, 3_000, 10**9]))
def test_the_state_is_correct_and_earlier_feeds_resume(seed: int, compacted: int, later: int, room: int) -> None:
    world = World(seed)
    live = Edge(limits=(3,))
    source = World(seed)
    records = topic(source, 20)
    for batch in world.batches(20):
        live.apply(*batch)
    replica = load(compact(records, compacted, random.Random(seed)), room, max(0, compacted - later), compacted)
    rows = live.replica._partitions[0].rows
    assert replica._partitions[0].rows == rows
    assert replica.cursor("w1") == live.replica.cursor("w1")
    for (reader, limit), (_, sent, _) in live.feeds.items():
        for number, frame in enumerate(sent):
            cursor = int(frame.split(b"\n", 1)[0].removeprefix(b"id: "))
            missed = replica.missed_since(reader.workspace_id, cursor)
            if missed is None:
                assert room < 10**9 or cursor < cursor_of(replica.position_of(0)), (
                    "a cursor of a kept batch can be resumed")
                continue
            assert live.frames.encode_missed(missed, reader, limit, 1 << 30) == (sent[number + 1:], None)


def test_batches_within_the_horizon_are_kept() -> None:
    world = World(4)
    replica = load(topic(world, 20), 10**9, 12)
    assert len(replica._batches) == 8
    assert len(load(topic(World(4), 20), 10**9, 0, 15)._batches) == 5, (
        "batches that became too old during the load are dropped")


def test_partitions_are_put_together_by_time() -> None:
    loading = InitialState(10**9, 0)
    world = World(1)
    for at, partition in ((1, 0), (2, 1), (3, 0), (3, 1)):
        rows, position = world.batch()
        loading.add(ViewBatch(at, partition, rows, position, 10))
    loading.advance_horizon(0)
    _, batches = loading.finish()
    assert [batch.timestamp for batch in batches] == [1, 2, 3, 3]


def test_a_batch_without_its_end_record_is_not_applied() -> None:
    assembler = BatchAssembler(0)
    world = World(2)
    rows, position = world.batch()
    for key, raw in rows:
        assert assembler.add(key, raw, 0) is None
    assert assembler.add(b"g:of the fold", b"{}", 0) is None
    batch = assembler.add(position_key(0), encode_row(position), 0)
    assert batch is not None
    assert (batch.rows, batch.position) == (rows, position)


@pytest.mark.parametrize("value", [b"", b"{", b"null", b"\xff", b"[" * 200_000, b'{"type":"fact"}', None])
def test_an_unreadable_fact_is_skipped(value: bytes | None) -> None:
    record = cast("Any", SimpleNamespace(topic="attn.facts", partition=0, offset=7, value=value))
    assert parse_fact(record) is None


@law(200)
@given(st.text(), st.text(), st.booleans())
def test_the_workspace_of_an_encoded_row_is_its_field(ws: str, item: str, has_id: bool) -> None:
    """The fast match and the decoder agree, also with quotes, backslashes and `"ws":"` in the names."""
    row = (ItemRow(id=item, ws=ws, kind="message", source_id='"ws":"other"') if has_id
           else MarkRow(ws, item, "ann", 0))
    assert workspace_of(encode_row(row)) == ws
