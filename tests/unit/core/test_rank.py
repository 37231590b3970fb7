"""Rank of items (CONTRACT §3, §7): order of keys and of texts, and the reasons."""

from __future__ import annotations

from itertools import product

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.asking.question import Question, Returned
from schemas.views import ItemRow
from streams.core.domain.rank import (
    BANDS,
    ID_OFFSET,
    pinned_sort_key,
    rank_key,
    rank_reasons,
    rank_text,
    sort_key,
)

RETURNED: tuple[Returned | None, ...] = (None, "refused", "undeliverable", "unconfirmed")


def row(
    band: int = 2, blocking: bool = False, returned: Returned | None = None, due_at: int = 5, created_at: int = 1,
    name: str = "ibx_1", overdue: bool = False,
) -> ItemRow:
    return ItemRow(
        id=name, ws="w", kind="waitpoint", source_id="s", band=band, blocking=blocking, due_at=due_at, overdue=overdue,
        created_at=created_at, state="unread", question=Question("d", returned=returned) if returned else None)


ROWS = st.builds(
    row, st.integers(0, 3), st.booleans(), st.sampled_from(RETURNED), st.integers(0, 2**62), st.integers(0, 2**62),
    st.text("abc", min_size=1, max_size=3))


@given(st.lists(st.tuples(ROWS, st.booleans()), max_size=12))
def test_keys_bytes_and_texts_have_one_order(pairs: list[tuple[ItemRow, bool]]) -> None:
    by_key = sorted(pairs, key=lambda pair: rank_key(*pair))
    assert [rank_key(*pair) for pair in sorted(pairs, key=lambda pair: sort_key(*pair))] == [
        rank_key(*pair) for pair in by_key]
    assert [rank_key(*pair) for pair in sorted(
        pairs, key=lambda pair: (rank_text(sort_key(*pair)), pair[0].id))] == [rank_key(*pair) for pair in by_key]
    for item, pinned in pairs:
        assert sort_key(item, True) == pinned_sort_key(sort_key(item, pinned))
        assert sort_key(item)[ID_OFFSET:].decode() == item.id


def test_a_returned_decision_is_first_in_its_band_and_after_the_band_above() -> None:
    ranked = sorted(
        (row(band, blocking, returned, due_at=9 if returned else 1)
         for band, blocking, returned in product(range(4), (True, False), (None, "refused"))),
        key=lambda item: rank_text(sort_key(item)))
    assert [(item.band, item.question is not None, item.blocking) for item in ranked if item.blocking] == [
        (band, returned, True) for band in range(4) for returned in (True, False)]
    assert [item.band for item in ranked] == sorted(item.band for item in ranked)


@pytest.mark.parametrize("blocking", [True, False])
def test_texts_of_other_items_are_those_of_view_version_1(blocking: bool) -> None:
    """A client that stayed connected during the upgrade has these texts in its copy."""
    for band in range(4):
        item = row(band, blocking, due_at=0x0102, created_at=0x03)
        assert rank_text(sort_key(item)) == f"{band:02x}{not blocking:02x}01" + f"{0x0102:016x}" + f"{3:016x}"


@pytest.mark.parametrize("returned", RETURNED[1:])
def test_the_reason_follows_the_band(returned: Returned) -> None:
    assert rank_reasons(row(1, True, returned, overdue=True), True) == [
        BANDS[1], returned, "overdue", "blocking", "pinned"]
    undecided = row(1, True)
    undecided.question = msgspec.structs.replace(Question("d"), attempts=2)
    assert rank_reasons(undecided) == [BANDS[1], "blocking"]
