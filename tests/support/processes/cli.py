"""Runs `attn` in a child process or in this process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile

import pytest
from support.processes import fork_server

from ops.cli.main import main

COMMAND = [sys.executable, "-P", "-m", "ops.cli"]


def clean_env(extra: Mapping[str, str] = {}) -> dict[str, str]:
    """Returns the environment of the tests without `ATTN_*` variables, plus `extra`."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ATTN_")} | dict(extra)


def attn(
    *arguments: str, cwd: Path, env: Mapping[str, str] = {}, stdin: str | bytes = b"", timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Runs `attn` to its end in a forked process. Raises TimeoutExpired after `timeout` seconds."""
    with TemporaryFile() as given, TemporaryFile() as out, TemporaryFile() as errors:
        given.write(stdin.encode() if isinstance(stdin, str) else stdin)
        given.seek(0)
        process = fork_server.start(
            ["-m", "ops.cli", *arguments], cwd=cwd, env=clean_env(env), stdin=given.fileno(), stdout=out.fileno(),
            stderr=errors.fileno())
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        out.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(arguments, code, out.read().decode(), errors.read().decode())


def attn_here(*arguments: str) -> int:
    """Runs `attn` in this process. Returns its exit code. For commands that need no signals."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["attn", *arguments])
        try:
            main()
        except SystemExit as ended:
            return ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    return 0
