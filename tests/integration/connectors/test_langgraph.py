"""`attn connect langgraph` between a real LangGraph server and a real attn: every dialect asked, answered and read
back. What agent-inbox gets wrong (ASKING-FACTS §0.1-0.4) is a test each."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from support.connectors.attn_source import AttnWorkspace
from support.connectors.running import RunningConnector, langgraph_peer
from support.peers.langgraph import GRAPHS, LangGraph, peer_python
from support.processes.up import Up

from streams.connectors.langgraph.deployments import Deployment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MAIL = {"name": "send_mail", "args": {"to": "a@b.c", "subject": "hi", "delay_seconds": 3}}
DROP = {"name": "drop_table", "args": {"name": "users"}}
HUMAN = {"action_request": {"action": "send_mail", "args": {"to": "a@b.c", "count": 3, "tags": ["x"]}},
         "config": {"allow_accept": True, "allow_edit": True, "allow_respond": True, "allow_ignore": True},
         "description": "Sends **one** mail"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LangGraph]:
    langgraph = LangGraph(tmp_path_factory.mktemp("langgraph"))
    langgraph.start()
    yield langgraph
    langgraph.stop()


@pytest.fixture(scope="module")
def attn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AttnWorkspace]:
    up = Up(tmp_path_factory.mktemp("attn"), env={"ATTN_UNDO_SECONDS": "0"})
    up.start()
    yield AttnWorkspace(up, "ws_agents", "actions,sessions")
    up.close()


@pytest.fixture(scope="module")
def connector(server: LangGraph, attn: AttnWorkspace) -> Iterator[RunningConnector]:
    with RunningConnector(langgraph_peer(Deployment("prod", server.url)), attn.url, attn.key) as running:
        yield running


def test_the_recorded_types_are_those_of_the_peer() -> None:
    done = subprocess.run([peer_python(), GRAPHS / "peer_types.py"], capture_output=True, text=True, timeout=120)
    assert done.stdout == (GRAPHS / "peer_types.json").read_text(), done.stderr


def answer(attn: AttnWorkspace, thread: str, option: str, user: str = "ann", **values: Any) -> dict[str, Any]:
    """Answers the open item of a thread. Returns the item."""
    item = attn.item(f"prod/{thread}/", state="unread")
    made = attn.decide(item, option, user, **values)
    assert made.status_code == 201, made.text
    return item


@pytest.mark.parametrize(("graph", "input", "option", "values", "effects"), [
    ("any_value", {"key": "text", "value": "why?"}, "answer", {"form": {"answer": "because"}}, ["because"]),
    ("any_value", {"key": "json", "value": {"n": 1}}, "json", {"form": {"json": '{"n": 2, "x": 1.5, "t": true}'}},
     [{"n": 2, "x": 1.5, "t": True}]),
    ("nested", {"key": "nested", "value": "inner?"}, "answer", {"form": {"answer": "yes"}}, ["yes"]),
    ("any_value", {"key": "choice", "value": "?", "response_schema": {"enum": ["a", "b"], "type": "string"}}, "answer",
     {"form": {"answer": "b"}}, ["b"]),
    ("any_value", {"key": "list", "value": "?", "response_schema": {"type": "array", "items": {"type": "integer"}}},
     "json", {"form": {"json": "[1, 2]"}}, [[1, 2]]),
    ("typed", {"key": "form"}, "answer", {"form": {"name": "alpha", "nodes": 3}},
     [{"name": "alpha", "nodes": 3, "public": False}]),
    ("human_interrupt", {"key": "accept", "value": HUMAN}, "accept", {},
     [{"type": "accept", "args": {"action": "send_mail", "args": HUMAN["action_request"]["args"]}}]),
    ("human_interrupt", {"key": "edit", "value": HUMAN}, "edit", {"args": {"to": "x", "deep": {"y": [1.5, 4]}}},
     [{"type": "edit", "args": {"action": "send_mail", "args": {"to": "x", "deep": {"y": [1.5, 4]}}}}]),
    ("human_interrupt", {"key": "response", "value": HUMAN}, "response", {"form": {"answer": "not now"}},
     [{"type": "response", "args": "not now"}]),
    ("human_interrupt", {"key": "ignore", "value": HUMAN}, "ignore", {}, [{"type": "ignore", "args": None}]),
], ids=lambda value: value.get("key") if isinstance(value, dict) and "key" in value else None)
def test_each_dialect_is_asked_answered_and_read_back(
    server: LangGraph, attn: AttnWorkspace, connector: RunningConnector, graph: str, input: Any, option: str,
    values: Any, effects: list[Any],
) -> None:
    thread = server.ask(graph, input)
    item = answer(attn, thread, option, **values)
    attn.decided(item, "applied")
    name = {"human_interrupt": "human", "nested": "any", "any_value": "any"}.get(graph, graph)
    assert server.effects_of(name, input["key"]) == [effects]
    assert attn.item(item["source_id"])["state"] == "resolved"
    assert server.thread(thread)["status"] == "idle"


def test_an_agent_with_batched_calls(server: LangGraph, attn: AttnWorkspace, connector: RunningConnector) -> None:
    """ASKING-FACTS §0.3: agent-inbox shows the first call only, reads `arguments`, and answers in a shape that makes
    the thread fail for ever."""
    thread = server.call_tools("batched", MAIL, DROP)
    mail, drop = (attn.item(f"prod/{thread}/{server.interrupts(thread)[0]['id']}/{index}") for index in range(2))
    assert (mail["title"], mail["kind"]) == ('send_mail(to="a@b.c", subject="hi", delay_seconds=3)', "pending_action")
    assert mail["ask"]["action"]["args"] == MAIL["args"]
    assert mail["body_md"].startswith("Tool execution requires approval\n\nThread `")
    assert [option["id"] for option in drop["ask"]["options"]] == ["approve", "reject"]
    assert attn.decide(mail, "edit", args={"to": "x@y.z", "subject": "hi", "delay_seconds": 4}).status_code == 201
    assert server.marked(thread) == []  # nothing goes out before the other call is decided
    assert attn.decide(drop, "reject", comment="not on Friday").status_code == 201
    for item in (mail, drop):
        attn.decided(item, "applied")
    [run] = server.marked(thread)
    assert len(run["metadata"]["attn_decision"].split()) == 2
    assert server.effects_of("send_mail", "x@y.z") == [["hi", 4]]
    assert server.effects_of("drop_table", "users") == []
    assert "not on Friday" in json.dumps(server.thread(thread)["values"]["messages"][-1]["content"])
    assert [attn.item(item["source_id"])["resolved_action"] for item in (mail, drop)] == ["confirmed", "declined"]
