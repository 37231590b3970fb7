"""Runs the commands of docs/connect/langgraph.md: an agent waits, gets an answer over HTTP, and continues."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from support.connectors.attn_source import AttnWorkspace
from support.peers.langgraph import peer_python
from support.processes.cli import clean_env
from support.processes.up import Up, wait_for

from ops.process.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PAGE = Path(__file__).parents[3] / "docs" / "connect" / "langgraph.md"


def blocks() -> list[str]:
    """Returns the four shell blocks of the page: prepare, server, connector, thread."""
    section = PAGE.read_text().split("## Five minutes", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)


@contextmanager
def running(script: str, home: Path, env: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("ab") as output:
        process = subprocess.Popen(["bash", "-ec", script], cwd=home, env=env, stdin=subprocess.DEVNULL, stdout=output,
                                   stderr=output, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)


def test_the_agent_of_the_page_waits_is_answered_and_continues(tmp_path: Path) -> None:
    peer = peer_python().parent
    up = Up(tmp_path)
    port = free_port()
    began = time.monotonic()
    try:
        up.start()
        env = clean_env({
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), str(peer), os.environ["PATH"]]),
            "ATTN_KAFKA": up.kafka, "ATTN_DATA_DIR": str(up.data_dir), "LANGSMITH_TRACING": "false",
            "LANGGRAPH_CLI_NO_ANALYTICS": "1"})
        scripts = [text.replace("127.0.0.1:2024", f"127.0.0.1:{port}").replace("--port 2024", f"--port {port}")
                   .replace("127.0.0.1:8080", f"127.0.0.1:{up.port}") for text in blocks()]
        prepare, server, connector, thread = scripts
        prepare = prepare.split("\n", 1)[1]  # without the installation, which the environment has
        subprocess.run(["bash", "-ec", prepare], cwd=tmp_path, env=env, check=True, timeout=60)
        with (running(server, tmp_path, env, tmp_path / "server.log"),
              running(connector, tmp_path, env, tmp_path / "connector.log"),
              httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as api):
            def answers() -> bool:
                try:
                    return api.get("/ok").status_code == 200
                except httpx.HTTPError:
                    return False

            wait_for(answers, 120, "the LangGraph server")
            subprocess.run(["bash", "-ec", thread], cwd=tmp_path, env=env, check=True, timeout=60)
            name = (tmp_path / "thread").read_text().strip()
            attn = AttnWorkspace(up, "ws_01", "actions,sessions")
            asked = time.monotonic()
            item = attn.item(f"local/{name}/")
            assert item["title"] == 'drop_table(name="users")'
            assert [option["title"] for option in item["ask"]["options"]] == [
                "Approve", "Edit", "Reject", "Answer in place of the tool"]
            answered = time.monotonic()
            assert attn.decide(item, "approve").status_code == 201
            attn.decided(item, "applied")
            done = time.monotonic()
            assert "Done." in str(api.get(f"/threads/{name}").json()["values"]["messages"][-1]["content"])
            print(f"\nfrom `attn up` to the goal: {done - began:.0f} s; thread to item: {answered - asked:.1f} s; "
                  f"answer to applied (5 s of it to take it back): {done - answered:.1f} s")
    finally:
        up.close()
