"""Lines of the audit export: exact JSON, and CSV without formulas. The trail has every fact of access and decisions."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

import streams.core.fold.access as access
from ops.cli.data.audit_lines import csv_line, json_line
from schemas.asking.question import DecisionState
from streams.history.clickhouse.audit import ACCESS_TYPES, AUDIT_TYPES, DECISION_TYPES

TEXT = st.text(st.one_of(
    st.sampled_from("=+-@＝＋－＠;,|\"' \t\r\n\u2028a1"), st.characters(exclude_categories=["Cs"])), max_size=12)


@given(st.lists(TEXT, min_size=1, max_size=5), st.sampled_from(",;|\t"))
def test_no_cell_is_a_formula_with_any_separator(values: list[str], separator: str) -> None:
    line = csv_line(values)
    assert line.count("\n") == 1
    for cell in next(csv.reader([line], delimiter=separator)):
        assert not cell.strip(' \n"')[:1] or cell.strip(' \n"')[0] not in "=+-@＝＋－＠"


@given(st.lists(st.text(st.characters(categories=["L", "N"]), max_size=9), max_size=5))
def test_other_text_is_unchanged(values: list[str]) -> None:
    assert next(csv.reader([csv_line(values)]), []) == values or not values


@given(TEXT)
def test_json_is_exact_and_one_line_without_control_characters(text: str) -> None:
    line = json_line({"title": text})
    assert json.loads(line) == {"title": text}
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", line[:-1])


@pytest.mark.parametrize(("value", "cell"), [(None, ""), (True, "true"), (False, "false"), (1.5, "1.5")])
def test_values_of_other_types_than_text(value: object, cell: str) -> None:
    assert csv_line([value]) == f'"{cell}"\n'


def test_the_trail_has_every_fact_of_access_and_of_decisions() -> None:
    modules = Path(access.__file__).parent.glob("*.py")
    named = re.findall(r'"((?:session|role|tokens?|link|key)\.[a-z_]+)"', "".join(path.read_text() for path in modules))
    assert set(named) == set(ACCESS_TYPES)
    assert set(DECISION_TYPES) >= {f"decision.{state}" for state in get_args(DecisionState)}
    assert len(set(AUDIT_TYPES)) == len(AUDIT_TYPES)
