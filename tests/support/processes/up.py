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
    """The first true value of `holds()`. AssertionError after so many seconds."""
    until = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < until, f"{what}: not within {seconds} s"
        time.sleep(0.05)
    return found


class Up:
    """One data directory and its ports; `start` and end it as often as you like. Its output is kept in a file.

    `kafka`: the address of one that is there, instead of the embedded broker.
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
        """Start it and wait at most `ready` seconds until it is ready (None: don't wait): how long that took."""
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
        wait_for(self._ready_or_dead, seconds, f"ready; {self.said()[-3000:]}")
        assert self.running, self.said()[-3000:]

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

    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def events(self) -> list[dict[str, Any]]:
        """Its JSON log lines."""
        return [json.loads(line) for line in self.said().splitlines() if line.startswith('{"')]

    def part(self, name: str) -> identity.ProcessIdentity | None:
        """The process of a part that runs now."""
        path = self.data_dir / "broker.pid" if name == "broker" else self.data_dir / "run" / f"{name}.pid"
        found = identity.read(path)
        return found if found is not None and identity.is_alive(found) else None

    def parts(self) -> dict[str, identity.ProcessIdentity]:
        return {name: found for name in PARTS if (found := self.part(name)) is not None}

    def kill(self, name: str) -> identity.ProcessIdentity:
        """kill -9 of one part."""
        found = self.part(name)
        assert found is not None, f"{name} does not run"
        os.kill(found.pid, signal.SIGKILL)
        return found

    def wait_restarted(
        self, name: str, before: identity.ProcessIdentity, seconds: float = 120.0
    ) -> identity.ProcessIdentity:
        """Wait until another process of that part runs and all is ready."""
        wait_for(lambda: self.part(name) not in (None, before), seconds, f"{name} started again")
        self.wait_ready(seconds)
        found = self.part(name)
        assert found is not None
        return found

    def stop(self, signum: int = signal.SIGTERM, seconds: float = 30.0) -> tuple[int, float]:
        """Signal it and wait for its end: exit code and seconds."""
        assert self.process is not None
        begun = time.monotonic()
        self.process.send_signal(signum)
        code = self.process.wait(seconds)
        return code, time.monotonic() - begun

    def close(self) -> None:
        """End whatever is left, for fixtures."""
        if self.running:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.process.kill()  # type: ignore[union-attr]
        for found in self.parts().values():
            os.kill(found.pid, signal.SIGKILL)

    def attn(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Another command with the same data directory."""
        return attn(*arguments, "--data-dir", str(self.data_dir), cwd=self.home, stdin=stdin)

    def token(self, workspace: str, user: str = "me", role: str = "OWNER") -> str:
        done = self.attn("token", "--workspace", workspace, "--user", user, "--role", role)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def get(self, path: str, token: str) -> httpx.Response:
        return httpx.get(
            self.url + path, headers={"Authorization": f"Bearer {token}"}, timeout=10, trust_env=False)

    def emit(self, topic: str, *events: Mapping[str, Any]) -> None:
        done = self.attn("emit", topic, stdin="\n".join(json.dumps(event) for event in events))
        assert done.returncode == 0, done.stderr
