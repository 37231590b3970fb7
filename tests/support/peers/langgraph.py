"""A real LangGraph server (`langgraph dev`) with the graphs of tests/data/langgraph, in a cached environment.

Only tests use the server: its licence is Elastic-2.0. It stores its threads in the directory `home`, over restarts.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from support.peers.environments import python_environment
from support.processes.up import wait_for

from ops.process.ports import free_port

__all__ = ["REQUIREMENTS", "LangGraph", "peer_python"]

REQUIREMENTS = [
    "langgraph-cli[inmem]==0.4.40", "langgraph-api==0.16.7", "langgraph-runtime-inmem==0.36.7", "langgraph==1.2.24",
    "langchain==1.5.2",
]
GRAPHS = Path(__file__).parents[2] / "data" / "langgraph"
_START_SECONDS = 120.0


def peer_python() -> Path:
    """Returns the interpreter of the environment. The first call installs the environment, which takes minutes."""
    return python_environment("langgraph", REQUIREMENTS)


class LangGraph:
    """One server process with its own port."""

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, free_port()
        self.effects_file = home / "effects.jsonl"
        self.process: subprocess.Popen[bytes] | None = None
        shutil.copytree(GRAPHS, home, dirs_exist_ok=True)
        # Without keep-alive: the server may close an idle connection while the next request uses it.
        self.http = httpx.Client(base_url=self.url, timeout=120, trust_env=False,
                                 limits=httpx.Limits(max_keepalive_connections=0))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> float:
        """Starts the server. Returns the seconds until it answers."""
        began = time.monotonic()
        python = peer_python()
        env = {**os.environ, "EFFECTS": str(self.effects_file), "LANGSMITH_TRACING": "false",
               "LANGGRAPH_CLI_NO_ANALYTICS": "1", "PYTHONDONTWRITEBYTECODE": ""}
        env.pop("PYTHONPATH", None)
        with (self.home / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [python.parent / "langgraph", "dev", "--no-browser", "--no-reload", "--host", "127.0.0.1", "--port",
                 str(self.port), "--n-jobs-per-worker", "10"],
                cwd=self.home, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        wait_for(self._answers, _START_SECONDS, f"LangGraph server: {self.home / 'server.log'}")
        return time.monotonic() - began

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.home / "server.log").read_text()[-3000:]
        try:
            return self.http.get("/ok").status_code == 200
        except httpx.HTTPError:
            return False

    def stop(self, signum: int = signal.SIGTERM) -> None:
        """Ends the server and its children. After SIGTERM the server writes its threads to disk."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signum)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait(60)

    def ask(self, graph: str, input: Any, metadata: dict[str, Any] | None = None, **more: Any) -> str:
        """Starts a thread and runs the graph until it waits or ends. Returns the id of the thread."""
        made = self.http.post("/threads", json={"metadata": metadata or {}})
        thread = str(made.json()["thread_id"])
        self.run(thread, graph, input, **more)
        return thread

    def run(self, thread: str, graph: str, input: Any, **more: Any) -> None:
        answer = self.http.post(f"/threads/{thread}/runs/wait", json={"assistant_id": graph, "input": input, **more})
        assert answer.status_code == 200, answer.text

    def call_tools(self, graph: str, *calls: dict[str, Any]) -> str:
        """Starts a thread of an agent whose model makes these calls. Returns the id of the thread."""
        return self.ask(graph, {"messages": [{"role": "user", "content": json.dumps(calls)}]})

    def thread(self, thread: str) -> dict[str, Any]:
        return dict(self.http.get(f"/threads/{thread}").json())

    def interrupts(self, thread: str) -> list[dict[str, Any]]:
        return [one for task in self.thread(thread)["interrupts"].values() for one in task]

    def runs(self, thread: str) -> list[dict[str, Any]]:
        return list(self.http.get(f"/threads/{thread}/runs?limit=100").json())

    def marked(self, thread: str) -> list[dict[str, Any]]:
        """Returns the runs that the connector has started for decisions."""
        return [run for run in self.runs(thread) if "attn_decision" in run["metadata"]]

    def respond(self, thread: str, interrupt: str, response: Any, **params: Any) -> dict[str, Any]:
        """Answers an interrupt directly at the server, without attn."""
        return dict(self.http.post(f"/threads/{thread}/commands", json={
            "id": 1, "method": "input.respond",
            "params": {"interrupt_id": interrupt, "response": response, **params}}).json())

    def rest(self, thread: str, seconds: float = 60) -> dict[str, Any]:
        """Waits until no run of the thread is pending or running. Returns the thread."""
        def at_rest() -> dict[str, Any] | None:
            ended = all(run["status"] not in ("pending", "running") for run in self.runs(thread))
            state = self.thread(thread)
            return state if ended and state["status"] != "busy" else None

        return dict(wait_for(at_rest, seconds, f"thread {thread} at rest"))

    def effects(self) -> list[Any]:
        """Returns all effects of the graphs so far."""
        if not self.effects_file.exists():
            return []
        return [json.loads(line) for line in self.effects_file.read_text().splitlines()]

    def effects_of(self, *start: Any) -> list[Any]:
        """Returns the effects that begin with `start`, without this beginning."""
        return [effect[len(start):] for effect in self.effects() if effect[: len(start)] == list(start)]

    def counts(self) -> Counter[str]:
        return Counter(json.dumps(effect) for effect in self.effects())
