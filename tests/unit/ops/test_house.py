"""Structure of the code: size of folders and modules, import levels, no import circles, no old names.

import-linter (pyproject.toml) checks which folder may import which. These tests limit the size of folders and
modules.
"""

from __future__ import annotations

import ast
import itertools
import subprocess
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = next(path for path in Path(__file__).parents if (path / "pyproject.toml").exists())
PACKAGES = ("schemas", "streams", "api", "ops")

# A reader remembers about ten names of a folder; twelve allow a module and its counterpart more.
MAX_ENTRIES = 12
LARGER_FOLDERS = {
    "api/static/attn": "modules of the dashboard; the addresses in docs/client.md stay",
    "api/static/vendor": "copies of libraries and their types",
    "ops/decisions": "records by number; their addresses stay",
    "ops/runbooks": "one runbook per alert; alerts link to them",
    "schemas/examples": "one example per event type",
    "schemas/json/sources": "generated: one schema per event type",
    "schemas/json/views": "generated: one schema per kind of row",
}

# A deeper layout needs a subfolder, named after the common task of its modules.
MAX_LEVELS = 6

# About 300 lines, plus room for a small change before the module must be split.
MAX_LINES = 340
LONGER_MODULES = {
    "api/readmodel/workspace.py": "the rows of a workspace and their indexes change together",
    "schemas/views.py": "one struct per kind of row, each with its fields",
    "schemas/settings.py": "one field per setting, each with its description",
    "streams/kafka/records/batches.py": "one parser for both formats of record batches",
}

OLD_NAMES = ROOT / "tests" / "data" / "house" / "old_names.toml"


@cache
def files() -> list[Path]:
    """Returns the files of the packages that git tracks or would track, relative to the root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return sorted(path for name in listed if (ROOT / (path := Path(name))).exists())


@pytest.fixture(autouse=True)
def checkout() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("needs a checkout: git knows which files belong to the project")


def python_files() -> list[Path]:
    return [path for path in files() if path.suffix == ".py"]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text())


def module_name(path: Path) -> str:
    return ".".join((path.parent if path.name == "__init__.py" else path.with_suffix("")).parts)


def imported(path: Path, modules: dict[str, Path]) -> Iterator[str]:
    """Yields the modules of attn that a file imports, in functions and under TYPE_CHECKING too."""
    package = module_name(path).split(".") if path.name == "__init__.py" else module_name(path).split(".")[:-1]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:
                for name in (f"{source}.{alias.name}", source):
                    if name in modules:
                        yield name
                        break


@cache
def graph() -> dict[str, set[str]]:
    """Returns module -> the modules of attn that it imports."""
    modules = {module_name(path): path for path in python_files()}
    return {name: set(imported(path, modules)) - {name} for name, path in modules.items()}


@cache
def folders() -> dict[str, dict[str, set[str]]]:
    """Returns folder -> entry -> the entries of the same folder that it imports; "" is the root."""
    result: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    packages = {module_name(path) for path in python_files() if path.name == "__init__.py"}
    for module, targets in graph().items():
        for target in targets:
            source_parts, target_parts = module.split("."), target.split(".")
            depth = 0
            while depth < min(len(source_parts), len(target_parts)) and source_parts[depth] == target_parts[depth]:
                depth += 1
            folder = ".".join(source_parts[:depth])
            if folder and folder not in packages:
                continue
            source = source_parts[depth] if depth < len(source_parts) else "__init__"
            entry = target_parts[depth] if depth < len(target_parts) else "__init__"
            result[folder][source].add(entry)
    return {folder: dict(entries) for folder, entries in result.items()}


def levels(entries: dict[str, set[str]]) -> list[tuple[str, ...]]:
    """Returns the entries by import level, the lowest first. Raises CycleError if there is an import circle."""
    sorter = TopologicalSorter(entries)
    sorter.prepare()
    result = []
    while sorter.is_active():
        ready = sorter.get_ready()
        result.append(tuple(sorted(ready)))
        sorter.done(*ready)
    return result


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    try:
        levels(graph())
    except CycleError as error:
        pytest.fail(f"import circle: {' -> '.join(reversed(error.args[1]))}")


# `folders()` parses all modules, 2.5 s of CPU in each process that collects the tests. A folder without imports passes.
@pytest.mark.parametrize("folder", ["", *sorted({
    ".".join(path.parent.relative_to(ROOT).parts) for package in PACKAGES for path in (ROOT / package).rglob("*.py")})])
def test_entries_of_a_folder_have_few_import_levels_and_no_circle(folder: str) -> None:
    try:
        result = levels(folders().get(folder, {}))
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        pytest.fail(f"import circle between entries of {folder or 'the root'}: {circle}")
    assert len(result) <= MAX_LEVELS, f"{folder} has {len(result)} import levels, at most {MAX_LEVELS}: {result}"


def test_the_picture_of_the_folders_shows_imports_that_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    picture = text.partition("flowchart TB")[2].partition("```")[0]
    arrows = set()
    for line in picture.splitlines():
        nodes = [node.partition("[")[0].strip() for node in line.split("-->")]
        arrows |= set(itertools.pairwise(nodes))
    assert len(arrows) > 20
    for source, target in arrows:
        folder = source.rpartition("_")[0]
        assert target.rpartition("_")[2] in folders()[folder][source.rpartition("_")[2]], f"{source} -> {target}"


def test_folders_have_few_entries() -> None:
    entries: dict[str, set[str]] = defaultdict(set)
    for path in files():
        for parent in path.parents[:-1]:
            entry = path.relative_to(parent).parts[0]
            if entry != "__init__.py":
                entries[str(parent)].add(entry)
    large = {folder for folder, names in entries.items() if len(names) > MAX_ENTRIES}
    assert large <= set(LARGER_FOLDERS), f"more than {MAX_ENTRIES} entries: {sorted(large - set(LARGER_FOLDERS))}"
    assert set(LARGER_FOLDERS) <= large, f"no longer an exception: {sorted(set(LARGER_FOLDERS) - large)}"


def test_modules_have_few_lines() -> None:
    lengths = {str(path): len((ROOT / path).read_text().splitlines()) for path in python_files()}
    long = {name: lines for name, lines in lengths.items() if lines > MAX_LINES}
    assert {name: lines for name, lines in long.items() if name not in LONGER_MODULES} == {}
    assert set(LONGER_MODULES) <= set(long), "no longer an exception"


def definitions(module: ast.Module) -> Iterator[tuple[str, int]]:
    """Yields names that a module defines, with their lines: classes, functions, parameters, attributes, constants.

    A member of a class is yielded alone and as `Class.member`.
    """

    def targets(node: ast.AST) -> Iterator[ast.expr]:
        if isinstance(node, ast.Assign):
            yield from node.targets
        elif isinstance(node, ast.AnnAssign):
            yield node.target

    def visit(node: ast.AST, owner: str, in_function: bool) -> Iterator[tuple[str, int]]:
        for child in ast.iter_child_nodes(node):
            names = []
            inner, function = owner, in_function
            if isinstance(child, ast.ClassDef):
                names, inner, function = [child.name], child.name, False
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                names, function = [child.name], True
            elif isinstance(child, ast.arg):
                names = [child.arg]
            else:
                for target in targets(child):
                    for part in ast.walk(target):
                        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
                            names += [part.attr] if part.value.id == "self" else []
                        elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store) and not in_function:
                            names.append(part.id)
            for name in names:
                yield name, child.lineno
                if owner and not isinstance(child, ast.ClassDef | ast.arg):
                    yield f"{owner}.{name}", child.lineno
            yield from visit(child, inner, function)

    return visit(module, "", False)


def old_names(path: Path, module: ast.Module, table: dict[str, dict[str, str]]) -> list[str]:
    """Returns a line per definition whose name is in a section of the table that the path belongs to."""
    banned: dict[str, str] = {}
    for folder, names in table.items():
        if folder == "*" or path.is_relative_to(folder):
            banned |= names
    return [f"{path}:{line}: {name} is an old name, use {banned[name]}"
            for name, line in definitions(module) if name in banned]


@cache
def renamed() -> dict[str, dict[str, str]]:
    return tomllib.loads(OLD_NAMES.read_text())


def test_old_names_do_not_return() -> None:
    assert [line for path in python_files() for line in old_names(path, tree(path), renamed())] == []


def test_an_old_name_is_reported_in_every_kind_of_definition() -> None:
    source = ast.parse(
        "LIMIT = 1\n"
        "class Alarm:\n"
        "    why: str\n"
        "    async def ring(self, told: int) -> None:\n"
        "        self.at, local = told, 1\n"
    )
    assert {name for name, _ in definitions(source)} == {
        "LIMIT", "Alarm", "why", "Alarm.why", "ring", "Alarm.ring", "self", "told", "at", "Alarm.at"}
    table = {"*": {"Alarm": "TaskSupervisor"}, "streams/kafka": {"Alarm.ring": "fail"}, "api": {"told": "informed"}}
    path = Path("streams/kafka/x.py")
    assert old_names(path, source, table) == [
        "streams/kafka/x.py:2: Alarm is an old name, use TaskSupervisor",
        "streams/kafka/x.py:4: Alarm.ring is an old name, use fail",
    ]


def test_sections_of_the_old_names_are_folders_or_modules() -> None:
    assert [name for name in renamed() if name != "*" and not (ROOT / name).exists()] == []


def test_a_circle_and_its_levels_are_reported() -> None:
    assert levels({"a": {"b", "c"}, "b": {"c"}}) == [("c",), ("b",), ("a",)]
    with pytest.raises(CycleError):
        levels({"a": {"b"}, "b": {"a"}})
