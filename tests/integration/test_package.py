"""The wheel: built, installed into an environment of its own, and run from there, away from the checkout."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from support.cli import clean_env

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "streams", "api", "ops")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    isolated = [] if importlib.util.find_spec("hatchling") is None else ["--no-isolation"]
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", *isolated, "--outdir", out, ROOT], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return next(out.glob("attn-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment with the wheel; its dependencies are lent by the one that runs the tests."""
    home = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    python = home / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index",
         "--disable-pip-version-check", wheel],
        check=True, capture_output=True,
    )
    site = next(home.glob("lib/python*/site-packages"))
    # Named last, so that what the wheel brought is found first. An editable install of ours is not followed from here.
    (site / "zz_lent.pth").write_text(sysconfig.get_path("purelib") + "\n" + sysconfig.get_path("platlib") + "\n")
    return home / "bin"


def run(command: list[str | Path], cwd: Path) -> subprocess.CompletedProcess[str]:
    env = clean_env({"ATTN_JWT_SECRET": "s" * 40})
    env.pop("PYTHONPATH", None)
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


def test_every_file_of_the_packages_is_in_it(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }
    assert wanted <= names, sorted(wanted - names)
    assert any(name.endswith(".sql") for name in names)
    assert any(name.startswith("schemas/json/sources/") for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "docs/"))]


def test_it_runs_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    code = f"import importlib, os; [print(os.path.realpath(importlib.import_module(p).__file__)) for p in {PACKAGES!r}]"
    found = run([installed / "python", "-P", "-c", code], tmp_path).stdout.split()
    assert len(found) == len(PACKAGES)
    home = os.path.realpath(installed.parent)
    assert all(path.startswith(home) for path in found), found


@pytest.mark.parametrize("arguments", [
    ["--version"], ["--help"], ["up", "--help"], ["schemas", "--check"],
    ["token", "--workspace", "w", "--user", "u", "--role", "OWNER"],
])
def test_its_command_works(arguments: list[str], installed: Path, tmp_path: Path) -> None:
    done = run([installed / "attn", *arguments], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout or done.stderr


def test_its_roles_can_be_imported(installed: Path, tmp_path: Path) -> None:
    done = run([installed / "python", "-P", "-c", "import streams.worker, streams.history, api.server"], tmp_path)
    assert done.returncode == 0, done.stderr
