"""Stamps and closes of rows have the bytes of the plain tuples that version 1 wrote."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from schemas.views import Close, DraftRow, ItemRow, Stamp, decode_row, encode_row

TIMES = st.integers(0, 2**53)
DIGESTS = st.text(max_size=32)
STAMPS = st.tuples(TIMES, DIGESTS)
CLOSES = st.tuples(TIMES, DIGESTS, st.text(max_size=16), st.none() | st.text(max_size=16))


def item(base: object, over: object, closed: object) -> ItemRow:
    return ItemRow(id="i", ws="w", kind="message", source_id="s", base=base, over=over, closed=closed)  # type: ignore[arg-type]


@given(STAMPS, st.dictionaries(st.text(max_size=8), STAMPS, max_size=3), CLOSES)
def test_an_item_has_the_bytes_of_plain_tuples(
    base: tuple[int, str], over: dict[str, tuple[int, str]], closed: tuple[int, str, str, str | None],
) -> None:
    named = item(Stamp(*base), {name: Stamp(*stamp) for name, stamp in over.items()}, Close(*closed))
    assert encode_row(named) == encode_row(item(base, over, closed))
    decoded = decode_row(b"i:", encode_row(named))
    assert decoded == named
    assert isinstance(decoded, ItemRow)
    assert isinstance(decoded.base, Stamp)
    assert isinstance(decoded.closed, Close)
    assert decoded.closed.stamp == Stamp(*closed[:2])


@given(st.dictionaries(st.text(max_size=8), STAMPS, max_size=3))
def test_a_draft_has_the_bytes_of_plain_tuples(stamps: dict[str, tuple[int, str]]) -> None:
    named = DraftRow(ws="w", draft_id="d", stamps={name: Stamp(*stamp) for name, stamp in stamps.items()})
    assert encode_row(named) == encode_row(DraftRow(ws="w", draft_id="d", stamps=stamps))  # type: ignore[arg-type]
    assert decode_row(b"d:", encode_row(named)) == named


def test_a_close_is_a_json_array() -> None:
    assert msgspec.json.encode(Close(1, "ab", "approved", None)) == b'[1,"ab","approved",null]'
