"""Runs the static checks of `make check` as tests, so that CI needs one command only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

CHECKS = {
    "ruff": ["-m", "ruff", "check", "--no-cache"],
    "mypy": ["-m", "mypy"],
    "imports": ["-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"],
    "dependencies": ["-m", "deptry", "schemas", "streams", "api", "ops"],
    "dependencies of tests": [
        "-m", "deptry", "tests", "--exclude", r"\.venv", "--exclude", "tests/data", "--ignore", "DEP002,DEP004"],
    "schemas": ["-P", "-m", "ops.cli", "schemas", "--check"],
    "pre-commit": ["-m", "pre_commit", "validate-config", ".pre-commit-config.yaml"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKS)
def test_check(name: str) -> None:
    done = subprocess.run([sys.executable, *CHECKS[name]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


@pytest.mark.slow
def test_two_processes_collect_the_same_test_ids(request: pytest.FixtureRequest) -> None:
    """xdist refuses to start if two processes collect different test ids, for example because a parametrized value
    depends on the clock or on the order of a set."""
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *request.config.args],
        cwd=request.config.invocation_params.dir, capture_output=True, text=True,
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTEST_ADDOPTS": ""})
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    here = [item.nodeid for item in request.session.items]
    known = set(here)
    assert [line for line in done.stdout.splitlines() if line in known] == here
    assert max(map(len, here)) < 250, "a test id contains a long value"


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("target", ["up", "test", "check", "static", "fast", "update", "schemas", "bench", "chaos"])
def test_make_knows_the_targets_of_the_readme(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_the_ci_script_parses() -> None:
    assert subprocess.run(["bash", "-n", ROOT / ".ci" / "run"]).returncode == 0
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
