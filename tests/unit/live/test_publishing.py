"""`Edge.publishing` sends the frames of all batches that its block applied."""

from __future__ import annotations

import pytest
from support.edge.edges import Fed
from support.edge.random_rows import item
from support.edge.sinks import Kept

from api.readmodel.readers import Reader
from schemas.views import PositionRow, encode_row

ANN = Reader("w1", "ann", frozenset({"MEMBER"}))


def apply(fed: Fed, position: int) -> None:
    key, row = item(source_id=f"s{position}")
    fed.edge.apply_batch(0, [(key, encode_row(row))], PositionRow(next=position))


async def test_frames_are_sent_when_the_block_ends() -> None:
    fed, sink = Fed(), Kept()
    fed.edge.feed_hub.open(ANN, 100, None, sink)
    before = sink.raw
    with fed.edge.publishing():
        apply(fed, 10)
        apply(fed, 11)
        assert sink.raw == before
    assert sink.raw[len(before):].count(b"event: added") == 2


async def test_a_block_that_fails_sends_nothing() -> None:
    fed, sink = Fed(), Kept()
    fed.edge.feed_hub.open(ANN, 100, None, sink)
    before = sink.raw
    block = fed.edge.publishing()
    block.__enter__()
    apply(fed, 10)
    assert not block.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert sink.raw == before


async def test_a_feed_does_not_open_between_a_batch_and_its_frames() -> None:
    fed = Fed()
    fed.edge.feed_hub.open(ANN, 100, None, Kept())
    apply(fed, 10)
    with pytest.raises(AssertionError, match="frames of the last batch"):
        fed.edge.feed_hub.open(ANN, 100, None, Kept())
