"""The processes of an `attn up` wake each other: who listens to which bell, also after a kill."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes.up import Up, wait_for

pytestmark = [pytest.mark.broker, pytest.mark.clickhouse]

EVENT = {
    "specversion": "1.0", "source": "/bells", "type": "escalation.opened", "time": "2026-05-20T08:14:22Z",
    "workspaceid": "ws_01", "data": {"title": "Escalation"},
}


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    stack = Up(tmp_path)
    stack.start()
    yield stack
    stack.close()


def listeners(up: Up) -> dict[str, set[int]]:
    """Returns the processes that listen, by bell."""
    found: dict[str, set[int]] = {}
    for name in os.listdir(up.data_dir / "run" / "bells"):
        bell, _, owner = name.partition("@")
        found.setdefault(bell, set()).add(int(owner.partition("-")[0]))
    return found


def pid(up: Up, name: str) -> int:
    process = up.part(name)
    assert process is not None
    return process.pid


def test_processes_listen_to_the_topics_that_they_read(up: Up) -> None:
    worker, edge, history = (pid(up, name) for name in ("worker", "edge", "history"))
    expected = {"sources": {worker}, "attn.log": {worker}, "attn.views": {edge}, "attn.facts": {edge, history}}
    wait_for(lambda: expected.items() <= listeners(up).items(), 60, "all consumers listen")

    before = up.part("worker")
    assert before is not None
    up.kill("worker")
    again = up.wait_restarted("worker", before)
    wait_for(lambda: again.pid in listeners(up).get("attn.log", ()), 60, "the next worker listens")
    up.emit("escalations", {**EVENT, "id": "1", "subject": "one"})
    token = up.token("ws_01")
    wait_for(lambda: up.get("/org/me/inbox", token).json()["counts"]["total"] == 1, 60, "the event is in the inbox")
    # The edge's command and the worker's rows ring; a socket of a dead process is removed by the first ring.
    item = up.get("/org/me/inbox", token).json()["items"][0]["id"]
    assert up.get(f"/api/v1/inbox/{item}", token).status_code == 200
    wait_for(lambda: worker not in listeners(up).get("attn.log", ()) or _ring(up), 60, "stale sockets are removed")


def _ring(up: Up) -> bool:
    """Makes the edge write to the log. Returns False."""
    up.attn("link", "--workspace", "ws_01", "--user", "me", "--role", "OWNER")
    return False
