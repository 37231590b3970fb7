"""Dead letters are truncated to the limit of their topic, marked as truncated, and then not sent again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.cli.data.dead_letters import can_retry, why_not
from schemas.dead_letters import DeadLetter
from schemas.topics import record_size

names = st.one_of(st.text(max_size=9), st.binary(max_size=9).map(lambda raw: raw.decode(errors="surrogateescape")))


def letter(**given: Any) -> DeadLetter:
    return DeadLetter("plans", 0, 7, **{"reason": "not JSON", "at": 1, "value": b"x", **given})


@given(
    key=st.one_of(st.none(), st.integers(0, 9000).map(bytes)),
    value=st.one_of(st.none(), st.integers(0, 40_000).map(bytes)),
    headers=st.lists(st.tuples(names, st.integers(0, 9000).map(bytes)), max_size=8), limit=st.integers(6000, 30_000),
    reason=st.text(st.characters(exclude_categories=["Cs"]), max_size=200),
)
def test_any_record_fits_and_is_read_again_as_it_was_cut(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]], limit: int, reason: str
) -> None:
    whole = letter(key=key, value=value, headers=headers, reason=reason)
    fitted = whole.fit(limit)
    assert record_size(fitted.key, fitted.value, fitted.record_headers()) <= limit
    again = DeadLetter.from_record(fitted.key, fitted.value, fitted.record_headers())
    same = (fitted.key, fitted.value, fitted.headers) == (key, value, headers)
    assert again.truncated is not same
    assert fitted.fit(limit) == fitted
    if not same:
        assert (again.size, again.header_count) == (len(value or b""), len(headers) if again.cut else 0)


@pytest.mark.parametrize(("given", "why"), [
    ({}, None),
    ({"value": bytes(9000)}, "cut: value (it had 9000 bytes of value, 0 of key, 0 of headers)"),
    ({"headers": [("a" * 10, bytes(9980))]}, "cut: headers (it had 1 bytes of value, 0 of key, 10000 of headers)"),
    ({"headers": [("n\udcff", b"v")]}, "cut: names of headers (it had 1 bytes of value, 0 of key, 16 of headers)"),
    ({"cause": "unreadable"}, "its value is the raw bytes of a record batch that could not be parsed"),
    ({"topic": "nowhere"}, "topic nowhere does not take records again"),
])
def test_a_dead_letter_that_cannot_be_retried_has_a_reason(given: dict[str, Any], why: str | None) -> None:
    whole = {"topic": "plans", "partition": 0, "offset": 7, "reason": "r", "at": 1, "value": b"x", **given}
    fitted = DeadLetter(**whole).fit(8192)
    assert why_not(DeadLetter.from_record(fitted.key, fitted.value, fitted.record_headers())) == why
    assert can_retry(fitted) is (why is None)
