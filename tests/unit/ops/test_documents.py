"""Files, headings, settings, commands, flags and make targets that documents name exist."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest
import typer

from bench.__main__ import BENCHES
from ops.cli.main import build
from ops.cli.settings_docs import page
from schemas.settings import RENAMED, Settings

ROOT = Path(__file__).parents[3]
# Variables of tests, of compose and of a shell example, and prefixes that stand for several settings.
OTHERS = {"ATTN_TEST_KAFKA", "ATTN_TEST_TIMES", "ATTN_PUBLIC_ADDRESS", "ATTN_PUBLIC_PORT"}
SETTINGS = {f"ATTN_{name.upper()}" for name in Settings.model_fields}
ROOMS = ("api", "docs", "ops", "requirements", "schemas", "streams", "tests")


def documents() -> list[Path]:
    """Returns the Markdown files of the repository, without folders that git ignores."""
    paths = [path for path in ROOT.rglob("*.md") if not {"node_modules", "vendor"} & set(path.parts)]
    return sorted(path for path in paths if not any(part.startswith(".") for part in path.relative_to(ROOT).parts))


DOCUMENTS = documents()
each = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


@cache
def anchors(path: Path) -> set[str]:
    """Returns the anchors that GitHub derives from the headings."""
    result: set[str] = set()
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        anchor = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        number = 0
        while (name := f"{anchor}-{number}" if number else anchor) in result:
            number += 1
        result.add(name)
    return result


@each
def test_links_lead_to_existing_files_and_headings(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if re.match(r"[a-z]+:", target):
            assert target.startswith("https://"), target
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        assert path.exists(), f"{target} does not exist"
        if anchor:
            assert anchor in anchors(path), f"{target}: no such heading; the file has {sorted(anchors(path))}"


def long_lines(text: str) -> list[str]:
    """Returns the lines of prose over 100 characters. Targets of links do not count; tables and code are
    exempt."""
    prose = re.sub(r"^( *)```.*?^\1```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = [re.sub(r"\]\([^)]*\)", "]", line) for line in prose.splitlines() if not line.startswith("|")]
    return [line for line in lines if len(line) > 100 and not re.fullmatch(r" *`[^`]+`", line)]


@each
def test_lines_are_at_most_100_characters_long(document: Path) -> None:
    assert long_lines(document.read_text()) == []


@each
def test_files_that_are_named_exist(document: Path) -> None:
    if document.name in ("CHANGELOG.md", "settings.md") or "decisions" in document.parts:
        return  # decisions and the changelog name files that were removed
    for name in re.findall(rf"`((?:{'|'.join(ROOMS)})/[\w./*-]+)`", document.read_text()):
        assert list(ROOT.glob(name.rstrip("/"))), f"{name} does not exist"


def functions(path: Path) -> set[str]:
    """Returns the functions, classes and `Class.method`s that a Python file or a module of the dashboard defines."""
    if path.suffix == ".js":
        return set(re.findall(r"^export (?:async )?(?:function|const)\*? (\w+)", path.read_text(), re.MULTILINE))
    result = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            result.add(node.name)
        if isinstance(node, ast.ClassDef):
            result |= {f"{node.name}.{child.name}" for child in node.body
                       if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)}
    return result


@each
def test_functions_that_links_name_are_defined_there(document: Path) -> None:
    for name, target in re.findall(r"\[`([\w.]+)`\]\(([^)#]+\.(?:py|js))\)", document.read_text()):
        if not target.endswith(name):  # a link whose text is the file's own name points to the file
            path = (document.parent / target).resolve()
            assert name in functions(path), f"{target} defines no {name}"


def named_settings(text: str) -> set[str]:
    """Returns the settings that a text names; `ATTN_TARGET_*` names several."""
    result: set[str] = set()
    for name, star in re.findall(r"\b(ATTN_[A-Z_]*[A-Z])(_\*)?", text):
        matching = {setting for setting in SETTINGS if setting.startswith(f"{name}_")}
        result |= matching or {name} if star else {name}
    return result - OTHERS


@each
def test_settings_that_are_named_are_settings(document: Path) -> None:
    """Decisions and the changelog may name settings that were removed."""
    if document.name in ("CHANGELOG.md", "settings.md") or "decisions" in document.parts:
        return
    assert named_settings(document.read_text()) <= SETTINGS


@pytest.mark.parametrize("name", [".env.example", "docker-compose.yml", "Makefile", "ops/deploy/prometheus/alerts.yml",
                                  "ops/deploy/prometheus/prometheus.yml"])
def test_settings_in_other_files_are_settings(name: str) -> None:
    assert named_settings((ROOT / name).read_text()) <= SETTINGS


def test_the_document_of_settings_is_current() -> None:
    text = (ROOT / "docs" / "settings.md").read_text()
    assert text == page(), "run `make schemas`"
    settings, _, renamed = text.partition("## Renamed settings")
    assert named_settings(settings) == SETTINGS
    assert named_settings(renamed) == {f"ATTN_{name.upper()}" for pair in RENAMED.items() for name in pair}


def test_the_example_shows_the_defaults() -> None:
    """A commented line in `.env.example` shows the default if it has the form NAME=value."""
    shown = dict(re.findall(r"^#(ATTN_\w+)=(\S+)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    for name in ("DATA_DIR", "HOST", "PORT", "LOG_LEVEL", "HISTORY_QUERY_SECONDS", "HISTORY_QUERY_CONCURRENCY"):
        default = Settings.model_fields[name.lower()].default
        assert type(default)(shown[f"ATTN_{name}"]) == default, name


@cache
def commands() -> dict[tuple[str, ...], set[str]]:
    """Returns command, or command and sub-command -> flags."""
    result: dict[tuple[str, ...], set[str]] = {}

    def collect(command: object, path: tuple[str, ...]) -> None:
        result[path] = {flag for param in getattr(command, "params", ()) for flag in param.opts} | {"--help", "-h"}
        for name, inner in getattr(command, "commands", {}).items():
            collect(inner, (*path, name))

    collect(typer.main.get_command(build()), ())
    return result


def code(text: str) -> list[str]:
    """Returns the lines of code blocks and code spans."""
    blocks = re.findall(r"^```(?:sh|)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return [line.partition("  #")[0] for line in lines] + re.findall(r"`([^`\n]+)`", prose)


def unknown(text: str) -> list[str]:
    """Returns commands of attn, flags and targets of make that a document names and that do not exist."""
    result = []
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    targets |= {f"bench-{name}" for name in BENCHES}
    for line in code(text):
        result += [f"make {name}" for name in re.findall(r"^make ([a-z-]+)", line) if name not in targets]
        for words in re.findall(r"(?:^|[|(;]\s*)attn((?: [^|;()`]+)?)", line):
            path: tuple[str, ...] = ()
            for word in (rest := words.split()):
                if (*path, word) not in commands():
                    break
                path = (*path, word)
            if rest and not path and not rest[0].startswith("-"):
                result.append(f"attn {rest[0]}")
            flags = re.findall(r"(?:^|[\s\[])(--[a-z][\w-]*)", words)
            result += [f"{' '.join(path)} {flag}" for flag in flags if flag not in commands()[path]]
    return result


@each
def test_commands_that_are_named_exist_with_their_flags(document: Path) -> None:
    assert unknown(document.read_text()) == []


def test_unknown_names_and_long_lines_are_reported() -> None:
    line = "word " * 20
    assert long_lines(f"{line}\n{line}a\n| {line}a |\n[{line}](https://example.com)\n```\n{line}a\n```\n") == [
        f"{line}a", f"[{line}]"]
    text = "`attn histroy` `attn history --rebuilt`\n```sh\ncat x | attn emitt -  # attn no\nmake cheque\n```\n"
    assert unknown(text) == ["attn emitt", "make cheque", "attn histroy", "history --rebuilt"]
    targets = {f"ATTN_TARGET_{name}" for name in ("URGENT", "HIGH", "NORMAL", "LOW", "MESSAGE")}
    assert named_settings("ATTN_PORT and ATTN_PORTS, ATTN_TARGET_*, ATTN_NONE_*") == {
        "ATTN_PORT", "ATTN_PORTS", "ATTN_NONE", *targets}
    assert {"functions", "anchors"} <= functions(Path(__file__))
    assert "attn-dead-letters" in anchors(ROOT / "docs" / "command-line.md")


def test_links_lead_to_committed_files() -> None:
    """Link targets exist in this checkout; they must also be committed, so that a clone has them."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tracked = {ROOT / name for name in listed.splitlines()}
    for document in DOCUMENTS:
        if document not in tracked:
            continue
        for target in re.findall(r"\]\(([^)\s:#]+)(?:#[^)]*)?\)", document.read_text()):
            path = (document.parent / target).resolve()
            assert path in tracked or path.is_dir(), f"{document.name}: {target} is not committed"


def test_the_list_of_decisions_has_the_titles_of_the_records() -> None:
    folder = ROOT / "ops" / "decisions"
    records = {path.name: path.read_text().partition("\n")[0] for path in folder.glob("0*.md")}
    rows = re.findall(r"^\| \[(\d{4})\]\(([^)]+)\) \| (.+?) \| (.+?) \| (.+?) \|$", (folder / "README.md").read_text(),
                      re.MULTILINE)
    assert {name: f"# {number} {title}" for number, name, title, _, _ in rows} == records
    assert [number for number, *_ in rows] == sorted(number for number, *_ in rows)
    assert {status.partition(",")[0] for *_, status, _ in rows} <= {"accepted", "superseded"}
