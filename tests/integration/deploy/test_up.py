"""`attn up` as a process: it becomes ready, restarts each killed process, stops with open streams, and keeps its data.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.kafka import brokers
from support.processes.cli import attn
from support.processes.up import Up, wait_for

from ops import config
from ops.embedded.broker import binary
from ops.process import identity

WORKSPACE = "ws_01"


# Tests of restarts use the embedded broker only: test_worker_kills, test_groups and test_history_crashes kill worker
# and history on Apache Kafka.
ON_ITS_BROKER = brokers.only(brokers.EMBEDDED, "up")


@pytest.fixture(params=brokers.BOTH)
def up(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Up]:
    """`attn up` with the broker that it starts itself, and with a running Apache Kafka."""
    stack = Up(tmp_path, kafka=request.getfixturevalue("real_kafka") if request.param == "kafka" else None)
    yield stack
    stack.close()


def event(number: int) -> dict[str, Any]:
    return {
        "specversion": "1.0", "id": f"e{number}", "source": "/s", "type": "waitpoint.created", "subject": f"wp{number}",
        "time": f"2026-05-20T08:{number % 60:02}:00Z", "workspaceid": WORKSPACE, "data": {"title": f"Go {number}?"},
    }


def titles(up: Up, token: str) -> Callable[[], set[str]]:
    def read() -> set[str]:
        answer = up.get("/org/me/inbox?limit=500", token)
        assert answer.status_code == 200, answer.text
        return {item["title"] for item in answer.json()["items"]}

    return read


def wait_titles(up: Up, token: str, count: int, seconds: float = 120) -> None:
    wanted = {f"Go {number}?" for number in range(count)}
    read = titles(up, token)
    wait_for(lambda: wanted <= read(), seconds, f"{count} items")
    assert read() == wanted


def all_gone(processes: dict[str, identity.ProcessIdentity]) -> bool:
    return not any(identity.is_alive(process) for process in processes.values())


def test_up_becomes_ready_stops_with_an_open_stream_and_starts_again(up: Up) -> None:
    up.start()
    wait_for(lambda: "attn is ready at" in up.output_text(), 5, "the banner")
    assert set(up.parts()) == up.names
    secret = up.data_dir / "secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600

    token = up.token(WORKSPACE)
    up.emit("waitpoints", *(event(number) for number in range(3)))
    wait_titles(up, token, 3)
    assert up.get("/org/me/inbox", "nonsense").status_code == 401

    # Any command with the same directory reads the URL of embedded ClickHouse.
    reading = config.load_settings(data_dir=up.data_dir).clickhouse_query_url
    sql = "SELECT count() FROM activity"
    wait_for(lambda: httpx.post(reading, content=sql, trust_env=False).text == "3\n", 60, "three rows in the history")
    path = "/org/me/insights?window=90d"
    wait_for(lambda: up.get(path, token).status_code == 200, 60, "an edge that reads the history")

    parts = up.parts()
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.stream("GET", f"{up.url}/org/me/feed", headers=headers, timeout=20, trust_env=False) as feed:
        lines = feed.iter_lines()
        wait_for(lambda: "snapshot" in next(lines), 5, "the snapshot")
        code, seconds = up.stop()
        assert code == 0, f"exit code {code} after {seconds:.1f} s\n{up.output_text()[-3000:]}"
        try:
            for _ in lines:
                pass
        except httpx.HTTPError:
            pass
    assert all_gone(parts)
    assert "killed" not in up.output_text()
    assert secret.read_text().strip() not in up.output_text()
    assert token not in up.output_text()

    up.start()
    wait_titles(up, up.token(WORKSPACE), 3)
    assert "ended without saving" not in up.output_text()
    assert up.stop(signal.SIGINT)[0] == 0


@ON_ITS_BROKER
def test_every_part_comes_back_after_kill_9_and_nothing_is_lost(up: Up) -> None:
    up.start()
    token = up.token(WORKSPACE)
    for number, part in enumerate(("worker", "edge", "history")):
        up.emit("waitpoints", event(2 * number))
        before = up.kill(part)
        up.emit("waitpoints", event(2 * number + 1))
        up.wait_restarted(part, before)
        wait_titles(up, token, 2 * number + 2)
    assert up.running
    _kill_its_broker(up, token)
    assert up.stop()[0] == 0


def _kill_its_broker(up: Up, token: str) -> None:
    time.sleep(1.5)  # the broker saves its data within this time; a kill loses records not saved yet
    up.wait_restarted("broker", up.kill("broker"))
    wait_for(lambda: "ended without saving" in up.output_text(), 5, "the log line about the killed broker")
    assert (up.data_dir / "incarnation").read_text() == "1\n"
    wait_titles(up, token, 6)
    up.emit("waitpoints", event(6))
    wait_titles(up, token, 7)


@ON_ITS_BROKER
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_up_comes_back_after_its_own_kill_9(up: Up) -> None:
    up.start()
    token = up.token(WORKSPACE)
    up.emit("waitpoints", event(0))
    wait_titles(up, token, 1)
    parts = up.parts()
    assert up.process is not None
    up.process.kill()
    up.process.wait()
    wait_for(lambda: all_gone(parts), 10, "the end of its children")

    up.start()
    assert "ended without saving" not in up.output_text()  # the broker saves when its parent has ended
    wait_titles(up, token, 1)

    # All processes are killed at once, as by a power failure, after the broker has saved its data.
    up.emit("waitpoints", event(1))
    wait_titles(up, token, 2)
    time.sleep(2)
    for process in up.parts().values():
        os.kill(process.pid, signal.SIGKILL)
    up.process.kill()
    up.process.wait()
    up.start()
    wait_titles(up, token, 2)
    up.emit("waitpoints", event(2))
    wait_titles(up, token, 3)
    assert up.stop()[0] == 0


@ON_ITS_BROKER
def test_a_second_up_in_the_directory_or_on_a_used_port_is_rejected(up: Up, tmp_path: Path) -> None:
    up.start()
    second = attn("up", "--data-dir", str(up.data_dir), "--port", "0", "--kafka-port", "0", cwd=tmp_path)
    assert second.returncode == 1
    assert f"attn: another `attn up` uses {up.data_dir}" in second.stderr
    for flags, message in (
        (["--port", str(up.port), "--kafka-port", "0"], f"port {up.port} on 127.0.0.1 is already in use"),
        (["--port", "0", "--kafka-port", str(up.kafka_port)],
         f"port {up.kafka_port} is already in use; choose another with --kafka-port"),
    ):
        other = attn("up", "--data-dir", str(tmp_path / "other"), *flags, cwd=tmp_path)
        assert other.returncode == 1
        assert message in other.stderr
        assert "Traceback" not in other.stderr
    assert up.is_ready()
    assert up.stop()[0] == 0


def failing(tmp_path: Path, role: str) -> Up:
    """Returns an `attn up` in which the process of this role fails at each start."""
    (tmp_path / "sitecustomize.py").write_text(f"""
import importlib
async def run(settings, stop):
    raise RuntimeError("the disk is on fire")
importlib.import_module("streams.{role}.main").run = run
""")
    return Up(tmp_path, env={"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"})


@pytest.mark.broker
@pytest.mark.skipif(binary() is None, reason="noida-db is not installed")
def test_up_ends_with_the_reason_if_a_required_part_keeps_failing(tmp_path: Path) -> None:
    up = failing(tmp_path, "worker")
    try:
        up.start(ready=None)
        assert up.process is not None
        assert up.process.wait(180) == 1  # it starts the worker five times, which takes seconds each on a busy machine
        assert not up.parts()
        last = up.output_text().strip().splitlines()[-1]
        assert last.startswith("attn: worker keeps failing (exit code 1)")
        assert "the disk is on fire" in last
    finally:
        up.close()


@pytest.mark.broker
@pytest.mark.skipif(binary() is None, reason="noida-db is not installed")
def test_the_inbox_works_while_the_history_keeps_failing(tmp_path: Path) -> None:
    up = failing(tmp_path, "history")
    try:
        up.start()
        wait_for(lambda: "process keeps failing" in up.output_text(), 60, "the log line about the failing history")
        [logged] = [line for line in up.output_text().splitlines() if "process keeps failing" in line]
        assert "the disk is on fire" in logged
        assert up.is_ready()
        assert up.stop()[0] == 0
    finally:
        up.close()


@ON_ITS_BROKER
def test_mismatched_topics_are_reported(up: Up) -> None:
    up.start(ready=None)
    wait_for(lambda: up.part("worker"), 30, "the worker")
    assert up.stop()[0] == 0
    up.env["ATTN_LOG_PARTITIONS"] = "3"
    up.start(ready=None)
    assert up.process is not None
    assert up.process.wait(120) == 1
    assert "attn.log has 8 partitions, ATTN_LOG_PARTITIONS is 3" in up.output_text()
    assert not up.parts()


@pytest.mark.slow  # `attn up` waits 30 s for a broker that may still be starting
def test_up_reports_an_unreachable_kafka(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: the system refuses connections
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        done = attn("up", "--kafka", address, "--port", "0", cwd=tmp_path)
    assert done.returncode == 1
    assert f"no Kafka broker answers at {address}" in done.stderr
