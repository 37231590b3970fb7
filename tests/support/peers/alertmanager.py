"""The real Alertmanager, built from the Go module proxy and run as a process on a free port."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from support.peers.environments import go_binary

from ops.process.ports import free_port

__all__ = ["VERSION", "Alertmanager", "alertmanager_program"]

MODULE, VERSION = "github.com/prometheus/alertmanager", "v0.35.0"
_READY_SECONDS = 60.0


def alertmanager_program() -> Path:
    """Returns the path of the program. The first build takes minutes."""
    # Without optimization, debug information and cgo, the build takes 97 s of CPU instead of 141 s.
    flags = "-mod=mod '-gcflags=all=-N -l' '-ldflags=-s -w'"
    return go_binary(
        MODULE, VERSION, "./cmd/alertmanager", prepare=_add_page, env={"GOFLAGS": flags, "CGO_ENABLED": "0"})


def _add_page(source: Path) -> None:
    """Writes the two pages that the program embeds. Since v0.32 the module lacks them."""
    for name in ("elm", "mantine"):
        page = source / "ui" / "app" / "dist" / name / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text("<html></html>")


def rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


class Alertmanager:
    """An Alertmanager process with a configuration file and a state directory. A test may start and stop it repeatedly.
    """

    def __init__(self, home: Path, config: str, *flags: str) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home, self.flags = home, flags
        self.port = free_port()
        self.config = home / "alertmanager.yml"
        self.config.write_text(config)
        self.process: subprocess.Popen[bytes] | None = None
        self.http = httpx.Client(base_url=self.url, timeout=10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        cluster = () if any(flag.startswith("--cluster.listen-address") for flag in self.flags) \
            else ("--cluster.listen-address=",)
        with (self.home / "output.log").open("ab") as output:
            self.process = subprocess.Popen(
                [alertmanager_program(), f"--config.file={self.config}", f"--storage.path={self.home / 'state'}",
                 f"--web.listen-address=127.0.0.1:{self.port}", *cluster, *self.flags],
                stdout=output, stderr=subprocess.STDOUT, env={**os.environ, "GOMAXPROCS": "2"})
        self.wait(self._is_ready)

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.home / "output.log").read_text()[-2000:]
        try:
            return self.http.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self, hard: bool = False) -> None:
        """Stops the process: with SIGTERM it writes its silences to disk, with SIGKILL it does not."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL if hard else signal.SIGTERM)
            self.process.wait(90)
            self.process = None

    def close(self) -> None:
        self.stop(hard=True)
        self.http.close()

    def wait(self, holds: Callable[[], Any]) -> Any:
        until = time.monotonic() + _READY_SECONDS
        while not (value := holds()):
            assert time.monotonic() < until, (self.home / "output.log").read_text()[-2000:]
            time.sleep(0.05)
        return value

    def fire(
        self, *alerts: dict[str, str], annotations: dict[str, str] | None = None, started: float | None = None,
    ) -> None:
        """Sends firing alerts with these labels, as Prometheus does. `started`: seconds; default: time of arrival."""
        self._post("alerts", [
            {"labels": labels, "annotations": annotations or {}, "generatorURL": "http://prometheus.example/graph"}
            | ({} if started is None else {"startsAt": rfc3339(started)}) for labels in alerts])

    def end(self, *alerts: dict[str, str]) -> None:
        """Sends the same alerts as ended now."""
        self._post("alerts", [{"labels": labels, "endsAt": rfc3339(time.time())} for labels in alerts])

    def alerts(self) -> list[dict[str, Any]]:
        return list(self._get("alerts"))

    def silences(self, *states: str) -> list[dict[str, Any]]:
        """Returns the silences in these states; default: active ones."""
        return [one for one in self._get("silences") if one["status"]["state"] in (states or ("active", "pending"))]

    def silence(self, labels: dict[str, str], seconds: float, by: str = "ops", comment: str = "maintenance") -> str:
        """Creates a silence, as a user of Alertmanager does."""
        now = time.time()
        return str(self._post("silences", {
            "matchers": [{"name": name, "value": value, "isRegex": False} for name, value in labels.items()],
            "startsAt": rfc3339(now), "endsAt": rfc3339(now + seconds), "createdBy": by, "comment": comment,
        })["silenceID"])

    def expire(self, silence: str) -> None:
        self.http.delete(f"/api/v2/silence/{silence}").raise_for_status()

    def _get(self, path: str) -> Any:
        return self.http.get(f"/api/v2/{path}").raise_for_status().json()

    def _post(self, path: str, body: Any) -> Any:
        answer = self.http.post(f"/api/v2/{path}", json=body).raise_for_status()
        return json.loads(answer.content) if answer.content else None
