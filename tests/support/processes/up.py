"""Runs `attn up` as a child process: start, requests over HTTP, kill of single processes, stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
from support.processes.cli import COMMAND, attn, clean_env

from ops.process import identity
from ops.process.ports import free_port

PARTS = ("worker", "edge", "history", "broker")


def wait_for(holds: Callable[[], Any], seconds: float, what: str) -> Any:
    """Waits for a true value of `holds()` and returns it. Raises AssertionError after `seconds`, but at least 60 s: a
    busy machine may take longer than a shorter limit."""
    until = time.monotonic() + (seconds := max(seconds, 60))
    while not (value := holds()):
        assert time.monotonic() < until, f"{what}: not within {seconds} s"
        time.sleep(0.05)
    return value


class Up:
    """The process of `attn up`, with its data directory and ports. A test may start and stop it repeatedly. A file has
    its output.

    `kafka`: address of a running Kafka that replaces the embedded broker.
    """

    def __init__(self, home: Path, *flags: str, env: Mapping[str, str] = {}, kafka: str | None = None) -> None:
        self.data_dir = home / "data"
        self.home = home
        self.port, self.kafka_port = free_port(), free_port()
        self.flags = flags if kafka is None else (*flags, "--kafka", kafka)
        self.embedded = kafka is None
        self.kafka = kafka or f"127.0.0.1:{self.kafka_port}"
        self.names = {*PARTS} - (set() if self.embedded else {"broker"})
        self.env = clean_env(env)
        self.output = home / "up.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, ready: float | None = 120.0) -> float:
        """Starts the process. Waits at most `ready` seconds until it is ready (None: no wait). Returns the seconds."""
        home = ["--data-dir", str(self.data_dir), "--port", str(self.port), "--kafka-port", str(self.kafka_port)]
        begun = time.monotonic()
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [*COMMAND, "up", *home, *self.flags], cwd=self.home, env=self.env, stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        if ready is not None:
            self.wait_ready(ready)
        return time.monotonic() - begun

    def wait_ready(self, seconds: float = 120.0) -> None:
        wait_for(self._ready_or_dead, seconds, f"ready; {self.output_text()[-3000:]}")
        assert self.running, self.output_text()[-3000:]

    def _ready_or_dead(self) -> bool:
        return self.is_ready() or not self.running

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=2, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def output_text(self) -> str:
        """Returns its output so far."""
        return self.output.read_text(errors="replace")

    def events(self) -> list[dict[str, Any]]:
        """Returns its JSON log lines."""
        return [json.loads(line) for line in self.output_text().splitlines() if line.startswith('{"')]

    def part(self, name: str) -> identity.ProcessIdentity | None:
        """Returns the running process of this name, or None."""
        path = self.data_dir / "broker.pid" if name == "broker" else self.data_dir / "run" / f"{name}.pid"
        process = identity.read(path)
        return process if process is not None and identity.is_alive(process) else None

    def parts(self) -> dict[str, identity.ProcessIdentity]:
        return {name: process for name in PARTS if (process := self.part(name)) is not None}

    def kill(self, name: str) -> identity.ProcessIdentity:
        """Sends SIGKILL to one process and returns its identity."""
        process = self.part(name)
        assert process is not None, f"{name} does not run"
        os.kill(process.pid, signal.SIGKILL)
        return process

    def wait_restarted(
        self, name: str, before: identity.ProcessIdentity, seconds: float = 120.0
    ) -> identity.ProcessIdentity:
        """Waits until a new process of this name runs and all processes are ready."""
        wait_for(lambda: self.part(name) not in (None, before), seconds, f"{name} started again")
        self.wait_ready(seconds)
        process = self.part(name)
        assert process is not None
        return process

    def stop(self, signum: int = signal.SIGTERM, seconds: float = 90.0) -> tuple[int, float]:
        """Sends a signal and waits for the exit. Returns the exit code and the seconds."""
        assert self.process is not None
        begun = time.monotonic()
        self.process.send_signal(signum)
        code = self.process.wait(seconds)
        return code, time.monotonic() - begun

    def close(self) -> None:
        """Kills all processes that still run, at the end of a fixture."""
        if self.running:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.process.kill()  # type: ignore[union-attr]
        for process in self.parts().values():
            os.kill(process.pid, signal.SIGKILL)

    def attn(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Runs another command with the same data directory."""
        return attn(*arguments, "--data-dir", str(self.data_dir), cwd=self.home, stdin=stdin)

    def token(self, workspace: str, user: str = "me", role: str = "OWNER") -> str:
        done = self.attn("token", "--workspace", workspace, "--user", user, "--role", role)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def get(self, path: str, token: str) -> httpx.Response:
        return httpx.get(
            self.url + path, headers={"Authorization": f"Bearer {token}"}, timeout=60, trust_env=False)

    def emit(self, topic: str, *events: Mapping[str, Any]) -> None:
        done = self.attn("emit", topic, stdin="\n".join(json.dumps(event) for event in events))
        assert done.returncode == 0, done.stderr
