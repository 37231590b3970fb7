"""`attn up` with endpoints delivers decisions made over HTTP to the receiver of docs/decisions.md, also when processes
are killed.
"""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.delivery import document
from support.delivery.records import HMAC_SECRET, endpoints_file
from support.processes.up import Up, wait_for

from ops.embedded.broker import binary
from ops.process.ports import free_port
from schemas.scalars import SECOND, format_timestamp

pytestmark = [
    pytest.mark.timeout(300), pytest.mark.slow,
    pytest.mark.skipif(binary() is None, reason="noida-db is not installed (pip install 'attn[embedded]')"),
]


def ask(subject: str, to: str = "receiver") -> dict[str, Any]:
    return {
        "specversion": "1.0", "id": f"ask-{subject}", "source": "/payments", "type": "waitpoint.created",
        "subject": subject, "time": format_timestamp(int(time.time() * SECOND)), "workspaceid": "ws_01",
        "data": {"title": f"Pay {subject}?", "ask": {"reply": {"to": to, "token": "t0ken-of-the-source",
                                                              "confirm": False}}},
    }


def decide(up: Up, token: str, subject: str) -> str:
    """Approves the question of `subject`. Returns the id of the decision."""
    def question() -> Any:
        items = up.get("/org/me/inbox", token).json()["items"]
        return next((item for item in items if item["source_id"] == subject), None)

    item = wait_for(question, 60, f"the question {subject}")

    def decided() -> Any:
        """While the worker starts, the edge answers 503. The repeated vote is then answered with 200."""
        answer = httpx.post(
            f"{up.url}/api/v1/inbox/{item['id']}/decision", json={"option": "approve", "digest": item["digest"]},
            headers={"Authorization": f"Bearer {token}"}, timeout=20, trust_env=False)
        assert answer.status_code in (200, 201, 503), answer.text
        return answer.json()["decision"]["id"] if answer.status_code != 503 else None

    return str(wait_for(decided, 60, f"the decision of {subject}"))



def test_decisions_reach_the_receiver_although_processes_are_killed(tmp_path: Path) -> None:
    database, port = tmp_path / "done.sqlite", free_port()
    path = endpoints_file(tmp_path / "endpoints.toml", receiver=f"http://127.0.0.1:{port}/")
    up = Up(tmp_path, env={"ATTN_ENDPOINTS": str(path), "ATTN_UNDO_SECONDS": "1"})
    given = {"WEBHOOK_SECRET": HMAC_SECRET, "PORT": port}
    receiver = document.start_receiver("http", database, **given)
    try:
        up.start()
        token = up.token("ws_01")
        assert up.part("deliver") is not None
        up.emit("waitpoints", ask("wp_1"), ask("wp_2"), ask("wp_3"), ask("gone"))
        first = decide(up, token, "wp_1")
        wait_for(lambda: document.done(database), 60, "the first decision at the receiver")
        before = up.kill("deliver")
        receiver.kill()
        receiver.wait()
        second, gone = decide(up, token, "wp_2"), decide(up, token, "gone")
        wait_for(lambda: up.part("deliver") not in (None, before), 60, "deliver started again")
        worker = up.kill("worker")
        third = decide_when_back(up, token, worker)
        receiver = document.start_receiver("http", database, **given)
        wait_for(lambda: len(document.done(database)) == 3, 120, "all decisions at the receiver")
        assert document.done(database) == [
            (first, "wp_1", "approve"), (second, "wp_2", "approve"), (third, "wp_3", "approve")]

        def came_back() -> bool:
            items = up.get("/org/me/inbox", token).json()["items"]
            return [item["rank_reasons"] for item in items if item["source_id"] == "gone"
                    and "refused" in item["rank_reasons"]] != []

        wait_for(came_back, 60, "the refused question in the list again")

        def listed() -> str:
            return str(up.attn("decisions", "list", "--json").stdout)

        def states() -> dict[str, str]:
            return {row["id"]: row["state"] for row in map(json.loads, listed().splitlines())}

        ended = {first: "applied", second: "applied", third: "applied", gone: "refused"}
        wait_for(lambda: states() == ended, 60, "the report of the last delivery")
        assert "t0ken-of-the-source" not in listed() + up.output_text()
        assert HMAC_SECRET.removeprefix("whsec_") not in up.output_text()
        assert up.stop(signal.SIGTERM)[0] == 0
    finally:
        receiver.kill()
        receiver.wait()
        up.close()


def decide_when_back(up: Up, token: str, worker: Any) -> str:
    up.wait_restarted("worker", worker)
    return decide(up, token, "wp_3")
