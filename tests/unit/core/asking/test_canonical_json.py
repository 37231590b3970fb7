"""Canonical JSON equals an independent implementation of RFC 8785, and keeps the digits that RFC 8785 cannot
represent."""

from __future__ import annotations

import json
import math

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from streams.core.canonical_json import canonical_json, exact_json, read_exact

TEXT = st.text(st.characters(exclude_categories=("Cs",)))
INTEGERS = st.integers(-(2**53) + 1, 2**53 - 1)
DOUBLES = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | TEXT | INTEGERS | DOUBLES,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(TEXT, children, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_values_have_the_text_of_another_implementation(value: object) -> None:
    expected = rfc8785.dumps(value)  # type: ignore[arg-type]
    assert canonical_json(value) == expected
    assert canonical_json(read_exact(json.dumps(value).encode())) == expected


@given(VALUES)
def test_canonical_text_is_a_fixed_point(value: object) -> None:
    text = canonical_json(value)
    assert canonical_json(read_exact(text)) == text


@pytest.mark.parametrize(("source", "canonical"), [
    # RFC 8785, appendix B, and the example of section 3.2.4.
    ("333333333.33333329", "333333333.3333333"),
    ("1E30", "1e+30"),
    ("4.50", "4.5"),
    ("2e-3", "0.002"),
    ("0.000000000000000000000000001", "1e-27"),
    ("-0.0", "0"),
    ("9.999999999999997e22", "9.999999999999997e+22"),
])
def test_doubles_are_written_as_ecmascript_writes_them(source: str, canonical: str) -> None:
    assert canonical_json(read_exact(source.encode())) == canonical.encode()


@pytest.mark.parametrize("digits", ["9007199254740993", "-9007199254740993", "1e400", "-1e400"])
def test_a_number_that_no_double_holds_keeps_its_digits(digits: str) -> None:
    assert canonical_json(read_exact(digits.encode())) == digits.encode()


@given(st.integers(2**53, 2**70))
def test_large_integers_never_share_a_text(number: int) -> None:
    assert canonical_json(read_exact(b"%d" % number)) != canonical_json(read_exact(b"%d" % (number + 1)))


@given(DOUBLES)
def test_the_text_of_a_double_reads_as_the_same_double(double: float) -> None:
    assert float(canonical_json(double)) == double or math.isclose(double, 0)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4), max_leaves=12))
def test_exact_json_is_the_same_value_with_sorted_members(value: object) -> None:
    text = exact_json(read_exact(json.dumps(value).encode()))
    assert json.loads(text) == value
    assert exact_json(read_exact(text)) == text
    assert canonical_json(read_exact(text)) == canonical_json(read_exact(json.dumps(value).encode()))


@pytest.mark.parametrize("number", ["12.50", "1.0", "1E5", "-0", "0.10000000000000000001", "1e400", "9" * 40])
def test_exact_json_writes_numbers_as_their_source_did(number: str) -> None:
    assert exact_json(read_exact(f'{{"b": {number}, "a": [ {number}]}}'.encode())) == (
        f'{{"a":[{number}],"b":{number}}}'.encode())
