"""Installs the wheel from the package index into empty environments, and runs every command and every role there.

The environments share nothing with that of the tests: no dependency, no import path, no settings.
"""

from __future__ import annotations

import os
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.clickhouse.clickhouse_http import ClickHouse
from support.kafka import brokers
from support.processes.installation import (
    UV,
    Installed,
    empty_environment,
    event,
    event_goes_through,
    install,
    wait_for_item,
    wait_ready,
)

from ops.cli.main import COMMANDS
from ops.process.ports import free_port

ROOT = Path(__file__).parents[3]
PACKAGES = ("schemas", "streams", "api", "ops")
# All commands run in one process: an import that is missing in the environment fails in any of them.
HELP = """
import sys
from ops.cli import main
for name in ["", *main.COMMANDS]:
    sys.argv = ["attn", *name.split(), "--help"]
    try:
        main.main()
    except SystemExit as ended:
        assert not ended.code, (name, ended.code)
    print("shown", name)
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution as installers build it when an index has no wheel."""
    out = tmp_path_factory.mktemp("dist")
    install(UV, "build", "--quiet", "--no-config", "--out-dir", out, ROOT)
    assert len(list(out.glob("attn-*.tar.gz"))) == 1
    return next(out.glob("attn-*.whl"))


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """An environment with the wheel, without extras."""
    return Installed(empty_environment(tmp_path_factory.mktemp("bare") / "env", str(wheel)),
                     tmp_path_factory.mktemp("elsewhere"))


@pytest.fixture
def clickhouse(tmp_path: Path) -> Iterator[ClickHouse]:
    server = ClickHouse(tmp_path / "clickhouse", free_port())
    server.start()
    yield server
    server.kill()


def test_the_wheel_has_every_file_of_the_packages(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True)
    wanted = set(tracked.stdout.split()) if tracked.returncode == 0 else {
        str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in wanted if (ROOT / name).exists()} <= names, sorted(wanted - names)
    assert any(name.endswith(".sql") for name in names)
    assert any(name.startswith("schemas/json/sources/") for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == set(PACKAGES)
    assert not [name for name in names if name.startswith(("ops/bench", "ops/chaos"))], "the test harness"


def test_nothing_of_the_checkout_is_importable(bare: Installed) -> None:
    code = f"import importlib, os; [print(os.path.realpath(importlib.import_module(p).__file__)) for p in {PACKAGES!r}]"
    paths = bare.run("python", "-c", code).stdout.split()
    assert len(paths) == len(PACKAGES)
    assert all(path.startswith(os.path.realpath(bare.bin.parent)) for path in paths), paths
    assert "MISSING" in bare.run(
        "python", "-c", "import importlib.util as u; print('MISSING' if not u.find_spec('pytest') else '')").stdout


def test_every_command_shows_its_help(bare: Installed) -> None:
    output = bare.run("python", "-c", HELP).stdout
    assert output.count("\nshown ") == len(COMMANDS) + 1
    assert bare.run("attn", "--version").stdout.startswith("attn ")
    assert "current" in bare.run("attn", "schemas", "--check").stderr


def test_up_without_the_embedded_extra_names_the_extra_to_install(bare: Installed) -> None:
    done = bare.run("attn", "up", "--data-dir", str(bare.home / "up"), code=1)
    assert "attn[embedded]" in done.stderr
    assert "Traceback" not in done.stderr


def test_mcp_without_its_extra_names_the_extra_to_install(bare: Installed) -> None:
    done = bare.run("attn", "mcp", code=1)
    assert "attn[mcp]" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.broker
@pytest.mark.clickhouse
async def test_every_role_runs_and_an_event_goes_through(
    bare: Installed, clickhouse: ClickHouse, tmp_path: Path
) -> None:
    async with brokers.own("embedded", tmp_path) as broker:
        event_goes_through(bare, broker.bootstrap, clickhouse)


@pytest.mark.broker
@pytest.mark.clickhouse
def test_up_runs_with_the_embedded_extra_and_plays_its_demo(
    wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("up")
    attn = Installed(empty_environment(home / "env", f"{wheel}[embedded]"), home)
    port, data = free_port(), ["--data-dir", str(home / "data")]
    flags = ["--port", str(port), "--kafka-port", str(free_port())]
    with attn.running("attn", "up", *data, *flags, "--demo") as process:
        wait_ready(process, port)
        attn.run("attn", "emit", "waitpoints", "-", *data, stdin=event())
        wait_for_item(attn, port, *data)
        wait_for_item(attn, port, *data, workspace="demo")
