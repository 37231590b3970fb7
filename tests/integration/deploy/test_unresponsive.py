"""The supervisor kills and restarts a process that runs but does not answer. No event is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.processes.up import Up, wait_for

from ops.embedded.broker import binary
from ops.process import identity
from ops.process.liveness import LivenessPolicy
from ops.process.ports import free_port
from ops.process.supervisor import HealthEndpoint, RestartPolicy, SupervisedProcess

POLICY = RestartPolicy(
    initial_delay=0.02, max_delay=0.1, liveness=LivenessPolicy(interval=0.1, timeout=3.0, startup_timeout=60.0))

PATIENCE = 90  # seconds; long enough for a busy machine

ANSWERS = """
import http.server, os, time
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        print(self.path, flush=True)
    def log_message(self, *args):
        pass
time.sleep(float(os.environ["SLOW"]))
server = http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answer)
print("up", flush=True)
server.serve_forever()
"""


@asynccontextmanager
async def supervised(tmp_path: Path, output: list[str], slow: float) -> AsyncIterator[SupervisedProcess]:
    """Supervises an HTTP server that starts after `slow` seconds. The block begins once it listens."""
    def listens() -> HealthEndpoint:
        port = free_port()
        return HealthEndpoint("127.0.0.1", port, {"PORT": str(port), "SLOW": str(slow)})

    command = [sys.executable, "-c", ANSWERS]
    part = SupervisedProcess("part", command, {}, tmp_path, lambda _, line: output.append(line), POLICY, listens)
    running = asyncio.create_task(part.run_forever())
    try:
        assert await identity.wait_until(lambda: "up" in output, PATIENCE)
        yield part
    finally:
        running.cancel()
        await asyncio.wait({running})
        await part.stop(0.0)


async def test_a_stopped_part_is_killed_and_started_again(tmp_path: Path) -> None:
    output: list[str] = []
    async with supervised(tmp_path, output, slow=0) as part:
        # The supervisor probes /healthz once /readyz has answered 200. Until then the longer start timeout applies.
        assert await identity.wait_until(lambda: "/healthz" in output, PATIENCE)
        first = part.pid
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        assert await identity.wait_until(lambda: part.pid not in (None, first) and output.count("up") == 2, PATIENCE)
        url = (tmp_path / "part.url").read_text().strip()
        assert await asyncio.to_thread(lambda: httpx.get(url + "/healthz", trust_env=False).status_code) == 200


async def test_a_slow_start_is_not_taken_as_unresponsive(tmp_path: Path) -> None:
    output: list[str] = []
    async with supervised(tmp_path, output, slow=5.0) as part:
        first = part.pid
        await asyncio.sleep(1.0)
        assert (output.count("up"), part.pid) == (1, first)


def event(number: int) -> dict[str, Any]:
    return {
        "specversion": "1.0", "id": f"e{number}", "source": "/s", "type": "waitpoint.created", "subject": f"wp{number}",
        "time": f"2026-05-20T08:{number % 60:02}:00Z", "workspaceid": "ws_01", "data": {"title": f"Go {number}?"},
    }


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    stack = Up(tmp_path, env={"ATTN_UNRESPONSIVE_SECONDS": "9"})
    yield stack
    stack.close()


@pytest.mark.broker
@pytest.mark.timeout(400)
@pytest.mark.skipif(binary() is None, reason="noida-db is not installed")
def test_each_part_of_up_comes_back_after_sigstop(up: Up) -> None:
    up.start(ready=120)
    token, sent = up.token("ws_01"), 0

    def shown() -> bool:
        items = up.get("/org/me/inbox?limit=500", token).json()["items"]
        return {item["title"] for item in items} == {f"Go {number}?" for number in range(sent)}

    for name in ("worker", "edge", "history"):
        wait_for(lambda name=name: ready(up, name), 60, f"{name} is ready")
        # `attn up` must have seen the process ready. Until then the longer timeout of a start applies.
        time.sleep(3 * LivenessPolicy().interval)
        before = up.part(name)
        assert before is not None
        os.kill(before.pid, signal.SIGSTOP)
        up.emit("waitpoints", event(sent))
        sent += 1
        up.wait_restarted(name, before, 120)
        wait_for(shown, 60, f"{sent} items after {name} was stopped")
    wait_for(lambda: 'attn_history_rows_total 1.0' in metrics(up, "history"), 60, "the last fact in the history")
    assert up.output_text().count("process is unresponsive") == 3
    begun = time.monotonic()
    assert up.stop()[0] == 0
    assert time.monotonic() - begun < 20


def ready(up: Up, name: str) -> bool:
    try:
        url = (up.data_dir / "run" / f"{name}.url").read_text().strip()
        return httpx.get(f"{url}/readyz", timeout=5, trust_env=False).status_code == 200
    except (OSError, httpx.HTTPError):
        return False


def metrics(up: Up, name: str) -> str:
    try:
        url = (up.data_dir / "run" / f"{name}.url").read_text().strip()
        return httpx.get(f"{url}/metrics", timeout=5, trust_env=False).text
    except (OSError, httpx.HTTPError):
        return ""
