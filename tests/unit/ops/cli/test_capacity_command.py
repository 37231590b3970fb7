"""`attn capacity` on the command line: table, JSON, errors."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from ops.cli.main import build
from ops.errors import UserError

LOAD = ("--events-per-s", "35", "--workspaces", "2000", "--streams", "20000", "--items", "500000")


def run(*args: str) -> str:
    result = CliRunner().invoke(build("capacity"), ["capacity", *args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_table_and_the_json_have_the_same_numbers() -> None:
    plan = json.loads(run(*LOAD, "--json"))
    text = run(*LOAD)
    for component in plan["components"]:
        row = next(line for line in text.splitlines() if line.strip().startswith(component["name"]))
        assert f"{component['count']:,}" in row
        assert component["limited_by"] in row
    assert f"{plan['partitions']} partitions" in text
    assert f"{plan['load']['rows']:,.0f} rows" in text


def test_users_and_writes_follow_from_streams_and_items_unless_given() -> None:
    load = json.loads(run(*LOAD, "--json"))["load"]
    assert load["sessions"] == 20000
    assert load["writes"] == pytest.approx(35 * 0.33 * 3)
    load = json.loads(run(*LOAD, "--users", "7", "--writes-per-s", "0", "--json"))["load"]
    assert (load["sessions"], load["writes"]) == (7, 0)


def test_an_input_outside_its_limits_is_an_error_of_one_line() -> None:
    with pytest.raises(UserError, match=r"^--skew is 3.0, allowed are 0 to 2$"):
        run(*LOAD, "--skew", "3")
