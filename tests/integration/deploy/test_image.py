"""Runs the steps of the Dockerfile, with its variables, health check and user, without Docker."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.clickhouse.clickhouse_http import ClickHouse
from support.kafka import brokers
from support.processes.installation import Installed, event_goes_through, install

from ops.process.ports import free_port

ROOT = Path(__file__).parents[3]
DOCKERFILE = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
FITS = "import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def directives(name: str) -> list[str]:
    return re.findall(rf"^{name} (.+)$", DOCKERFILE, re.MULTILINE)


def python_of(user: int | None) -> str:
    """Returns an interpreter that this user may run, or "". Users other than root cannot run one below /root."""
    own = os.path.realpath(sys.executable)
    for python in (own, "/usr/bin/python3"):
        try:
            done = subprocess.run([python, "-c", FITS], user=user, group=user, cwd="/", capture_output=True)
            if done.returncode == 0:
                return python
        except OSError:
            continue
    return ""


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user may enter. Only the owner may enter directories that pytest creates."""
    with tempfile.TemporaryDirectory(prefix="attn-image-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.broker
@pytest.mark.clickhouse
async def test_the_steps_make_an_image_whose_roles_run(open_directory: Path, tmp_path: Path) -> None:
    user = int(directives("USER")[0]) if os.getuid() == 0 else None
    python = python_of(user)
    if not python:
        user, python = None, sys.executable
    target, home = open_directory / "attn", open_directory / "home"
    for command in directives("RUN"):
        if "install.sh" not in command:
            continue  # the command creates a user and a directory; the test uses those of the host
        words = shlex.split(command)
        assert (words[0], *words[2:]) == ("ops/deploy/image/install.sh", ".", "/opt/attn")
        install(ROOT / words[0], words[1], ROOT, target, env={"PYTHON": python})
    variables = dict(word.split("=", 1) for line in directives("ENV") for word in shlex.split(line))
    assert variables.pop("PATH") == "/opt/attn/bin:$PATH"
    data = home / "data"
    data.mkdir(parents=True)
    variables["ATTN_DATA_DIR"] = str(data)
    attn = Installed(target / "bin", home, variables, user)
    if user is not None:
        for directory in (home, data):
            os.chown(directory, user, user)
    assert directives("ENTRYPOINT") == ['["attn"]']
    check = json.loads(directives("HEALTHCHECK")[0].partition("CMD ")[2])
    clickhouse = ClickHouse(tmp_path / "clickhouse", free_port())
    clickhouse.start()
    try:
        async with brokers.own("embedded", tmp_path) as broker:
            event_goes_through(attn, broker.bootstrap, clickhouse, check)
    finally:
        clickhouse.kill()


def test_every_installed_requirement_is_pinned_by_hash() -> None:
    """Each install command requires hashes, or installs no dependencies."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "ops/deploy/image/install.sh").read_text())
    commands = re.findall(r"^\s*\S*(?:/pip\"? (?:install|wheel)|/uv\"? pip (?:install|sync)).*$", text, re.MULTILINE)
    assert len(commands) == 4
    for command in commands:
        assert "--require-hashes" in command or {"--no-deps"} <= set(command.split()), command
    assert "pip install" not in DOCKERFILE
