"""`attn connect github` as a process, between a real `attn up` and the stub of GitHub, under faults.

Webhooks are lost, repeated and reordered. Connections close before and after a write took effect. GitHub answers with
errors and rate limits. The connector is killed repeatedly. Afterwards GitHub and attn have the same state.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.connectors.attn_source import AttnWorkspace
from support.peers.github_connector import APP_ID, PRIVATE, PUBLIC
from support.peers.github_stub import REPO, TOKEN, Fault, GithubStub
from support.processes.cli import COMMAND, clean_env
from support.processes.up import Up, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SEED = 20261130
KILLS = 8
SECRET = "It's a Secret to Everybody"
HOOKS = f"""
[[hook]]
name = "github"
mapping = "github"
workspace = "ws_github"
secrets = ["{SECRET}"]
source = "/github"
options = {{ ask_runs = true }}
"""


@pytest.fixture(scope="module")
def attn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AttnWorkspace]:
    home = tmp_path_factory.mktemp("attn")
    (home / "hooks.toml").write_text(HOOKS)
    up = Up(home, env={"ATTN_UNDO_SECONDS": "0", "ATTN_DECISION_CONFIRM": "PT1H",
                       "ATTN_HOOKS": str(home / "hooks.toml")})
    up.start()
    yield AttnWorkspace(up, "ws_github", "waitpoints,run-failures")
    up.close()


@pytest.fixture
def stub() -> Iterator[GithubStub]:
    """A stub of GitHub that runs in its own thread."""
    github, ready, stop = GithubStub(), threading.Event(), threading.Event()

    async def serve() -> None:
        async with github.serving():
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(90)
    yield github
    stop.set()
    thread.join(30)
    assert github.problems == []


class Process:
    """The process of the connector, started as by an operator. `kill` sends SIGKILL and starts it again."""

    def __init__(self, attn: AttnWorkspace, stub: GithubStub, home: Path) -> None:
        (home / "app.pem").write_text(PRIVATE)
        (home / "github.toml").write_text("ask_runs = true\n")
        self._command = [
            *COMMAND, "connect", "github", "--attn", attn.url, "--url", stub.url, "--repository", REPO,
            "--sweep", "0.5", "--grace", "1s", "--options", str(home / "github.toml"), "--app", APP_ID,
            "--app-slug", "attn-app", "--app-key-file", str(home / "app.pem"), "--data-dir", str(home)]
        self._env = clean_env({"ATTN_KEY": attn.key, "GITHUB_TOKEN": TOKEN})
        self.output = home / "connect.log"
        self._running: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self._logged = self.output.stat().st_size if self.output.exists() else 0
        with self.output.open("ab") as output:
            self._running = subprocess.Popen(
                self._command, env=self._env, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True)

    def stop(self, number: int) -> int:
        assert self._running is not None
        os.kill(self._running.pid, number)
        return self._running.wait(60)

    def logs(self) -> bool:
        """Returns whether the process has logged anything. It handles signals before its first log line."""
        return self.output.stat().st_size > self._logged

    def kill(self) -> None:
        assert self.stop(signal.SIGKILL) == -signal.SIGKILL, self.output.read_text()[-3000:]
        self.start()


def deliveries(stub: GithubStub) -> list[tuple[str, dict[str, Any]]]:
    """Returns event and payload of the webhooks that GitHub sends about all runs."""
    about = {"full_name": REPO, "default_branch": "main"}
    result: list[tuple[str, dict[str, Any]]] = []
    for run in list(stub.runs.values()):
        shared = {"workflow_run": stub._run(run), "repository": about}
        if run.status == "completed":
            result.append(("workflow_run", {"action": "completed", **shared}))
        for name, waits in run.waits.items():
            stamped = {"environment": name, "since": shared["workflow_run"]["updated_at"]}
            if waits["reviewers"]:
                job = {"id": stub.job_of(run, name), "created_at": stamped["since"], "environment": name}
                result.append(("deployment_review", {
                    "action": "requested", "workflow_job_run": job, "requestor": {"login": run.actor}, **stamped,
                    **shared}))
            else:
                deployment = stub._deployments({"environment": name, "sha": shared["workflow_run"]["head_sha"]})
                result += [("deployment_protection_rule", {
                    "action": "requested", "environment": name, "event": "push", "deployment": one, "repository": about,
                    "deployment_callback_url":
                        f"https://evil.example/repos/{REPO}/actions/runs/{run.id}/deployment_protection_rule"})
                    for one in deployment if one["id"] == stub.job_of(run, name) + 5]
    return result


def deliver(attn: AttnWorkspace, event: str, payload: dict[str, Any]) -> None:
    """Posts one webhook as GitHub does, with the signature of its body."""
    body = json.dumps(payload).encode()
    signature = "sha256=" + hmac.new(SECRET.encode(), body, sha256).hexdigest()
    answer = httpx.post(f"{attn.url}/hooks/github", content=body, trust_env=False, timeout=30, headers={
        "x-github-event": event, "x-hub-signature-256": signature, "content-type": "application/json"})
    assert answer.status_code == 202, answer.text


def unreliable(chance: random.Random) -> Any:
    """Returns random faults of single requests: closed connections, errors and rate limits."""
    def fault(request: str) -> Fault | None:
        kind = chance.random()
        if kind < 0.08:
            return Fault()
        if kind < 0.16:
            return Fault("after")
        if kind < 0.20:
            return Fault(answer=(502, {"message": "Server Error"}, {}))
        if kind < 0.215:
            return Fault(answer=(429, {"message": "API rate limit exceeded"}, {"retry-after": "1"}))
        return None

    return fault


def test_nothing_is_lost_and_nothing_happens_twice(attn: AttnWorkspace, stub: GithubStub, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    stub.app = (APP_ID, "attn-app", PUBLIC)
    for number in range(1, 9):
        stub.waiting_run(number, *["prod", "eu"][: 1 + number % 2])
    for number in range(11, 15):
        stub.waiting_run(number, "app", rule=True)
    for number in range(21, 27):
        stub.run(number)
    expected = {f"{REPO}/runs/{run.id}/{'rules' if waits['apps'] else 'environments'}/{name}"
                for run in stub.runs.values() for name, waits in run.waits.items()}
    expected |= {f"{REPO}/runs/{run.id}" for run in stub.runs.values() if not run.waits}
    # A third of the webhooks is lost. The others arrive twice, in random order.
    sent = [webhook for webhook in deliveries(stub) if chance.random() > 0.33]
    sent += sent
    chance.shuffle(sent)
    for event, payload in sent:
        deliver(attn, event, payload)
    stub.failing = unreliable(chance)
    process = Process(attn, stub, tmp_path)
    try:
        wait_for(lambda: expected <= {item["source_id"] for item in attn.items()}, 120,
                 "an item of each run and deployment")
        items = {item["source_id"]: item for item in attn.items()}
        assert set(items) == expected
        answers = {}
        for subject, item in sorted(items.items()):
            options = [option["id"] for option in item["ask"]["options"]]
            answers[subject] = chance.choice(options)
            made = attn.decide(item, answers[subject])
            assert made.status_code == 201, made.text
            assert attn.decide(item, options[0], "bob").status_code in (409, 410)
        kills = 0

        def settled() -> bool:
            nonlocal kills
            states = {entry["source_id"]: entry["state"] for entry in decisions(attn)}
            if kills < KILLS:
                time.sleep(chance.uniform(0.2, 2.5))
                process.kill()
                kills += 1
                return False
            return set(states.values()) <= {"applied", "refused"} and len(states) == len(expected)

        wait_for(settled, 240, f"all decisions are settled; {process.output.read_text()[-2000:]}")
        assert differences(attn, stub, answers) == []
        assert kills == KILLS
        assert stub.broken > 20
        states = Counter(one["state"] for one in decisions(attn))
        sys.stdout.write(f"{len(sent)} webhooks, {len(items)} items, decisions {dict(states)}, "
                         f"{stub.broken} faults in {len(stub.requests)} requests, {kills} kills\n")
        wait_for(process.logs, 120, "a line of the log")
        assert process.stop(signal.SIGTERM) == 0, process.output.read_text()[-3000:]
    finally:
        if process._running is not None and process._running.poll() is None:
            process.stop(signal.SIGKILL)
    text = process.output.read_text()
    assert TOKEN not in text
    assert attn.key not in text
    assert "Traceback" not in text


def decisions(attn: AttnWorkspace) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = attn.call("GET", "/org/me/decisions", params={"limit": "200"}).json()["decisions"]
    return entries


def differences(attn: AttnWorkspace, stub: GithubStub, answers: dict[str, str]) -> list[str]:
    """Returns the differences between the reviews at GitHub and the decisions of attn. A rejected environment ends its
    run, so GitHub refuses a later decision about another environment of this run."""
    result = []
    for one in decisions(attn):
        subject, option, state = one["source_id"], one["option"], one["state"]
        run = stub.runs[int(subject.removeprefix(f"{REPO}/runs/").partition("/")[0])]
        name = subject.rpartition("/")[2]
        if option != answers[subject]:
            result.append(f"{subject}: decided {option}, not {answers[subject]}")
        if "/environments/" in subject:
            marked = [each["state"] for each in run.approvals if one["id"] in each["comment"]]
            rejected = any(each["state"] == "rejected" and each["environments"][0]["name"] != name
                           for each in run.approvals)
            fits = marked == [f"{option}d" if option == "approve" else "rejected"] if state == "applied" else (
                marked == [] and rejected)
        elif "/rules/" in subject:
            fits = state == "applied" and [each[1] for each in run.rules] == [
                "approved" if option == "approve" else "rejected"]
        else:
            fits = state == "applied" and run.attempt == (2 if option == "retry" else 1)
        if not fits:
            result.append(f"{subject}: {option} is {state}; GitHub: {run}")
    return result
