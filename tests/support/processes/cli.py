"""`attn` as a child process, and in this one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from ops.cli.main import main

COMMAND = [sys.executable, "-P", "-m", "ops.cli"]


def clean_env(extra: Mapping[str, str] = {}) -> dict[str, str]:
    """Our environment without settings of the person who runs the tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ATTN_")} | dict(extra)


def attn(
    *arguments: str, cwd: Path, env: Mapping[str, str] = {}, stdin: str | bytes = b"", timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run `attn` to its end."""
    given = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=cwd, env=clean_env(env), input=given, capture_output=True, timeout=timeout)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def attn_here(*arguments: str) -> int:
    """Run `attn` in this process: its exit code. For what needs no other process and no signals."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["attn", *arguments])
        try:
            main()
        except SystemExit as ended:
            return ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    return 0
