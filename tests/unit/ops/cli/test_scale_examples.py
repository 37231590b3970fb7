"""The commands of docs/scale.md print what the page shows, and its table has the unit costs of the data file.

`python tests/unit/ops/cli/test_scale_examples.py` writes both into the page again.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ops.cli.capacity.unit_costs import load_costs, load_sources
from ops.cli.main import build

PAGE = Path(__file__).parents[4] / "docs" / "scale.md"
EXAMPLE = re.compile(r"```sh\n(attn capacity [^\n]+)\n```\n\n```text\n(.*?)```", re.DOTALL)
HEAD = "| cost | value | | source |\n| --- | --- | --- | --- |\n"
TABLE = re.compile(re.escape(HEAD) + r"(?:\|[^\n]*\n)+")


def examples() -> list[tuple[str, str]]:
    found = EXAMPLE.findall(PAGE.read_text())
    assert len(found) >= 4
    return found


def output(command: str) -> str:
    result = CliRunner().invoke(build("capacity"), shlex.split(command)[1:], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return "".join(f"{line.rstrip()}\n" for line in result.output.splitlines()).strip("\n") + "\n"


def unit_costs() -> str:
    costs, lines = load_costs(), []
    for name, source in load_sources().items():
        lines.append(f"| `{name}` | {getattr(costs, name):,g} {source.unit} | {source.kind} | {source.bench} |\n")
    return HEAD + "".join(lines)


@pytest.mark.parametrize("number", range(5))
def test_an_example_prints_what_the_page_shows(number: int) -> None:
    command, shown = examples()[number]
    assert output(command) == shown


def test_every_example_is_tested() -> None:
    assert len(examples()) == 5


def test_the_page_has_the_unit_costs_of_the_data_file() -> None:
    assert TABLE.findall(PAGE.read_text()) == [unit_costs()]


def write() -> None:
    def show(found: re.Match[str]) -> str:
        return f"```sh\n{found[1]}\n```\n\n```text\n{output(found[1])}```"

    PAGE.write_text(TABLE.sub(lambda _: unit_costs(), EXAMPLE.sub(show, PAGE.read_text())))


if __name__ == "__main__":
    write()
