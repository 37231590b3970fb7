"""Roles that cannot listen exit with one error line; roles that wait for Kafka stop on SIGTERM."""

from __future__ import annotations

import signal
import socket
import subprocess
from pathlib import Path

import pytest
from support.processes.cli import COMMAND, attn, clean_env

SECRET = {"ATTN_JWT_SECRET": "a secret that is long enough for an HMAC of 256 bits"}
NO_BROKER = "127.0.0.1:1"  # no broker listens at this address


def test_a_port_in_use_is_one_error_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        edge = attn("edge", "--kafka", NO_BROKER, "--port", port, cwd=tmp_path, env=SECRET)
        worker = attn("worker", "--kafka", NO_BROKER, cwd=tmp_path, env={"ATTN_METRICS_PORT": port})
    assert edge.returncode == worker.returncode == 1
    assert edge.stderr == f"attn: cannot listen: port {port} on 127.0.0.1: Address already in use\n"
    assert worker.stderr.startswith("attn: cannot listen: ")
    assert "Traceback" not in worker.stderr
    assert port in worker.stderr


def test_a_foreign_host_is_one_error_line(tmp_path: Path) -> None:
    edge = attn("edge", "--kafka", NO_BROKER, "--host", "203.0.113.1", "--port", "0", cwd=tmp_path, env=SECRET)
    assert edge.returncode == 1
    assert edge.stderr.startswith("attn: cannot listen: port 0 on 203.0.113.1: ")


@pytest.mark.parametrize("role", ["worker", "history", "deliver"])
def test_a_role_that_waits_for_kafka_stops_on_sigterm(role: str, tmp_path: Path) -> None:
    """The role exits with 0. Without the signal it would exit with 75 after 30 s without Kafka."""
    given = ["--clickhouse", "http://127.0.0.1:1"] if role == "history" else []
    endpoints = tmp_path / "endpoints.toml"
    endpoints.touch()
    env = clean_env({"ATTN_ENDPOINTS": str(endpoints)} if role == "deliver" else {})
    with subprocess.Popen(
        [*COMMAND, role, "--kafka", NO_BROKER, *given], cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True,
    ) as process:
        assert process.stderr is not None
        while "Unable connect" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=60)[1]
    assert process.returncode == 0, rest
    assert "Traceback" not in rest


def test_deliver_needs_valid_endpoints(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.toml"
    path.write_text('[[endpoint]]\nname = "a"\nurl = "https://a.example/"\nsecrets = ["whsec_c2VjcmV0"]\n')
    done = attn("deliver", "--kafka", NO_BROKER, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        1, "attn: no endpoints: set ATTN_ENDPOINTS to the TOML file that lists them\n")
    for role in ("deliver", "worker", "up"):
        done = attn(role, "--kafka", NO_BROKER, cwd=tmp_path, env={"ATTN_ENDPOINTS": str(path)})
        assert (done.returncode, done.stderr) == (
            2, f'attn: ATTN_ENDPOINTS: {path}: endpoint 1 "a", secret 1: has 6 bytes; an HMAC secret has 16 to 64\n')
