"""Installs attn in a new environment, and runs its commands and roles without the checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import clickhouse_connect
import httpx
import pytest
from support.clickhouse.clickhouse_http import ClickHouse
from support.processes.up import wait_for

from ops.process.ports import free_port

__all__ = ["UV", "Installed", "empty_environment", "event_goes_through", "install"]

UV = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv") or "uv"
# Error texts of uv for an unreachable index. Other failures are errors of attn.
OFFLINE = re.compile(r"error sending request|dns error|Could not connect|Failed to fetch|timed out|offline", re.I)
SECONDS = 150.0  # timeout under load; a role is usually ready in 5 s
WORKSPACE = "ws_installed"


def install(*command: str | Path, env: Mapping[str, str] = {}) -> None:
    """Runs a command that downloads packages. Without the index, the test fails in CI and is skipped elsewhere."""
    done = subprocess.run(
        command, env={**_without_python(), **env}, capture_output=True, text=True, timeout=400)
    if done.returncode and OFFLINE.search(done.stderr) and not os.environ.get("CI"):
        pytest.skip(f"the package index cannot be reached: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]


def empty_environment(home: Path, *packages: str) -> Path:
    """Installs `packages` and their dependencies, newest versions, in a new environment. Returns its `bin`."""
    install(UV, "venv", "--quiet", "--no-project", "--python", sys.executable, home)
    install(UV, "pip", "install", "--quiet", "--python", home / "bin" / "python", *packages)
    return home / "bin"


def _without_python() -> dict[str, str]:
    return {name: value for name, value in os.environ.items()
            if not name.startswith(("ATTN_", "PYTHON")) and name != "VIRTUAL_ENV"}


class Installed:
    """Runs commands of one environment. Processes get `env` and no variables of the tests. `user`: their user id."""

    def __init__(self, bin: Path, home: Path, env: Mapping[str, str] = {}, user: int | None = None) -> None:
        self.bin, self.home, self.user = bin, home, user
        self.env = {"PATH": f"{bin}:/usr/bin:/bin", "HOME": str(home), "LANG": "C.UTF-8", **env}

    def run(
        self, *command: str, stdin: str = "", env: Mapping[str, str] = {}, code: int = 0
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program of the environment to its end. Raises AssertionError if its exit code is not `code`."""
        done = subprocess.run(
            [self.bin / command[0], *command[1:]], cwd=self.home, env={**self.env, **env}, input=stdin, user=self.user,
            group=self.user, extra_groups=None if self.user is None else [], capture_output=True, text=True,
            timeout=SECONDS)
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
        return done

    @contextmanager
    def running(self, *command: str, env: Mapping[str, str] = {}) -> Iterator[subprocess.Popen[bytes]]:
        """Runs a program until the block ends, then sends SIGTERM. Raises AssertionError if it does not exit with 0."""
        log = self.home / f"{'-'.join(command[:2])}-{time.monotonic_ns()}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [self.bin / command[0], *command[1:]], cwd=self.home, env={**self.env, **env}, user=self.user,
                group=self.user, extra_groups=None if self.user is None else [], stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT)
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) == 0, log.read_text(errors="replace")[-3000:]
        except AssertionError as error:
            raise AssertionError(f"{error}\n{log.read_text(errors='replace')[-3000:]}") from error
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def wait_ready(process: subprocess.Popen[bytes], port: int) -> None:
    def ready() -> bool:
        assert process.poll() is None, "the process has exited"
        try:
            return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    wait_for(ready, SECONDS, f"/readyz on port {port} is 200")


def event(number: int = 1) -> str:
    return json.dumps({
        "specversion": "1.0", "id": f"evt-{number}", "source": "/test", "type": "waitpoint.created",
        "subject": f"wp-{number}", "time": "2026-05-20T08:14:22Z", "workspaceid": WORKSPACE, "data": {"title": "Go?"},
    }) + "\n"


def wait_for_item(attn: Installed, port: int, *flags: str, workspace: str = WORKSPACE) -> None:
    token = attn.run("attn", "token", "--workspace", workspace, "--user", "u", "--role", "OWNER", *flags).stdout.strip()

    def items() -> Any:
        answer = httpx.get(f"http://127.0.0.1:{port}/org/me/inbox", headers={"Authorization": f"Bearer {token}"},
                           timeout=5, trust_env=False)
        return answer.status_code == 200 and answer.json()["items"]

    wait_for(items, SECONDS, "the item in the inbox")


def event_goes_through(attn: Installed, kafka: str, clickhouse: ClickHouse, check: Sequence[str] = ()) -> None:
    """Starts worker, edge and history. Fails unless an event becomes an item of the inbox and a row of the history.

    The command `check` runs once for each role, with the environment of the role.
    """
    with ExitStack() as stack:
        env = {"ATTN_KAFKA": kafka, "ATTN_CLICKHOUSE": clickhouse.url, "ATTN_JWT_SECRET": "s" * 40,
               "ATTN_LOG_PARTITIONS": "2", "ATTN_SOURCE_PARTITIONS": "1", "ATTN_HOST": "127.0.0.1"}
        attn = Installed(attn.bin, attn.home, {**attn.env, **env}, attn.user)
        attn.run("attn", "topics")
        attn.run("attn", "migrate")
        ports = {role: free_port() for role in ("worker", "edge", "history")}
        envs = {role: {"ATTN_PORT" if role == "edge" else "ATTN_METRICS_PORT": str(port)}
                for role, port in ports.items()}
        started = {role: stack.enter_context(attn.running("attn", role, env=envs[role])) for role in ports}
        for role, port in ports.items():
            wait_ready(started[role], port)
            if check:
                attn.run(*check, env=envs[role])
        attn.run("attn", "emit", "waitpoints", "-", stdin=event())
        wait_for_item(attn, ports["edge"])
        with clickhouse_connect.get_client(dsn=clickhouse.url) as client:
            wait_for(lambda: client.query(
                "SELECT count() FROM attn.activity WHERE workspace_id = {ws:String}", {"ws": WORKSPACE},
            ).first_row[0], SECONDS, "the fact in ClickHouse")
        attn.run("attn", "dead-letters", "--summary")
