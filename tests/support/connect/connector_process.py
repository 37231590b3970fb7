"""Runs `attn connect` as a child process: start, kill, stop, output."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import httpx
from support.processes import fork_server
from support.processes.cli import clean_env
from support.processes.up import wait_for

from ops.process.ports import free_port

__all__ = ["ConnectorProcess"]


class ConnectorProcess:
    """The process of `attn connect NAME`. A test may start it repeatedly. A file in `home` has its output.

    Its environment has the key. `url`: address of its /readyz and /metrics.
    """

    def __init__(
        self, home: Path, name: str, *arguments: str, attn: str, key: str, env: Mapping[str, str] = {},
    ) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.port = free_port()
        self.arguments = ["connect", name, *arguments, "--attn", attn, "--metrics-port", str(self.port)]
        self.env = clean_env({"ATTN_KEY": key, "ATTN_LOG_FORMAT": "json", **env})
        self.output = home / "connector.log"
        self.process: fork_server.Forked | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, ready: bool = True) -> None:
        with self.output.open("ab") as output:
            self.process = fork_server.start(
                ["-m", "ops.cli", *self.arguments], cwd=self.home, env=self.env, stdin=subprocess.DEVNULL,
                stdout=output.fileno(), stderr=output.fileno())
        if ready:
            self.wait_ready()

    def wait_ready(self) -> None:
        wait_for(self.is_ready, 60, f"the connector is ready; {self.text()[-3000:]}")

    def is_ready(self) -> bool:
        assert self.running, self.text()[-3000:]
        try:
            return httpx.get(f"{self.url}/readyz", timeout=2, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def not_ready_reason(self) -> str:
        """Returns the body of /readyz; "" if the process does not answer."""
        try:
            return httpx.get(f"{self.url}/readyz", timeout=2, trust_env=False).text.strip()
        except httpx.HTTPError:
            return ""

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """Sends SIGKILL and waits for the end."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(90)

    def stop(self) -> int:
        """Sends SIGTERM and returns the exit code."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGTERM)
        return self.process.wait(90)

    def close(self) -> None:
        if self.running:
            self.kill()

    def text(self) -> str:
        return self.output.read_text(errors="replace") if self.output.exists() else ""
