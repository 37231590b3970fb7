"""`attn connect langgraph` between a real LangGraph server and a real attn: questions of every dialect are asked,
answered and read back. For each defect of LangChain's agent-inbox a test shows that the connector does not have it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.connect.stopping_proxy import Dropped, Moment, StoppingProxy
from support.connectors.attn_source import AttnWorkspace
from support.connectors.running import RunningConnector, langgraph_peer
from support.peers.langgraph import GRAPHS, LangGraph, peer_python
from support.processes.cli import COMMAND, clean_env
from support.processes.up import Up, wait_for

from ops.process.ports import free_port
from streams.connectors.langgraph.deployments import Deployment
from streams.connectors.langgraph.server import LangGraphServer

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
    langgraph.http.close()


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
    """Answers the open item of a thread, and returns this item."""
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
    assert server.rest(thread)["status"] == "idle"


def test_an_agent_with_batched_calls(server: LangGraph, attn: AttnWorkspace, connector: RunningConnector) -> None:
    """agent-inbox shows only the first of several calls, reads them from `arguments`, and sends an answer in a form
    with which the thread fails permanently."""
    thread = server.call_tools("batched", MAIL, DROP)
    mail, drop = (attn.item(f"prod/{thread}/{server.interrupts(thread)[0]['id']}/{index}") for index in range(2))
    assert (mail["title"], mail["kind"]) == ('send_mail(to="a@b.c", subject="hi", delay_seconds=3)', "pending_action")
    assert mail["ask"]["action"]["args"] == MAIL["args"]
    assert mail["body_md"].startswith("Tool execution requires approval\n\nThread `")
    assert [option["id"] for option in drop["ask"]["options"]] == ["approve", "reject"]
    assert attn.decide(mail, "edit", args={"to": "x@y.z", "subject": "hi", "delay_seconds": 4}).status_code == 201
    assert server.marked(thread) == []  # the connector answers once both calls are decided
    assert attn.decide(drop, "reject", comment="not on Friday").status_code == 201
    for item in (mail, drop):
        attn.decided(item, "applied")
    assert server.rest(thread)["status"] == "idle"  # the run ends after the decision is applied
    [run] = server.marked(thread)
    assert len(run["metadata"]["attn_decision"].split()) == 2
    assert server.effects_of("send_mail", "x@y.z") == [["hi", 4]]
    assert server.effects_of("drop_table", "users") == []
    assert "not on Friday" in json.dumps(server.thread(thread)["values"]["messages"][-1]["content"])
    assert [attn.item(item["source_id"])["state"] for item in (mail, drop)] == ["resolved"] * 2


def test_an_agent_that_asks_for_each_call(server: LangGraph, attn: AttnWorkspace, connector: RunningConnector) -> None:
    """All questions of one thread are shown, and answered one after another. agent-inbox shows only the first."""
    thread = server.call_tools("per_call", MAIL, DROP, {"name": "ask_user", "args": {"question": "Which?"}})
    asked = {one["value"]["name"]: one["id"] for one in server.interrupts(thread)}
    mail, drop, ask = (attn.item(f"prod/{thread}/{asked[name]}") for name in ("send_mail", "drop_table", "ask_user"))
    assert [item["kind"] for item in (mail, drop, ask)] == ["pending_action", "pending_action", "session_waiting"]
    assert mail["ask"]["action"]["args_schema"]["required"] == ["to", "subject"]
    assert attn.decide(drop, "approve").status_code == 201
    assert attn.decide(ask, "respond", form={"answer": "the second"}).status_code == 201
    assert attn.decide(mail, "edit", args={**MAIL["args"], "to": thread}).status_code == 201
    for item in (mail, drop, ask):
        attn.decided(item, "applied")
    assert server.rest(thread)["status"] == "idle"
    assert server.effects_of("send_mail", thread) == [["hi", 3]]
    assert server.effects_of("ask_user") == []  # the answer replaces the result of the tool
    assert [run["status"] for run in server.marked(thread)] == ["success"] * 3


def test_questions_of_parallel_branches(server: LangGraph, attn: AttnWorkspace, connector: RunningConnector) -> None:
    thread = server.ask("parallel", {"key": "branches", "names": ["a", "b", "c"]})
    items = [attn.item(f"prod/{thread}/{one['id']}") for one in server.interrupts(thread)]
    assert sorted(item["title"] for item in items) == ["restart a?", "restart b?", "restart c?"]
    for item in reversed(items):
        assert attn.decide(item, "answer", form={"answer": item["title"]}).status_code == 201
    for item in items:
        attn.decided(item, "applied")
    assert sorted(server.effects_of("branch", "branches")) == [[name, f"restart {name}?"] for name in "abc"]


def test_an_item_says_who_asks_what_and_where(
    server: LangGraph, attn: AttnWorkspace, connector: RunningConnector,
) -> None:
    thread = server.ask("any_value", {"value": {"question": "Ship it?", "diff": ["+1"]}},
                        {"attn_user": "ann", "attn_priority": "urgent", "attn_role": "NOBODY"})
    item = attn.item(f"prod/{thread}/")
    assert (item["title"], item["kind"], item["priority"]) == ("Ship it?", "session_waiting", "urgent")
    assert '"diff": [' in item["body_md"]
    assert f"Thread `{thread}` of graph `any_value` in `prod`" in item["body_md"]
    assert item["source"] == "/langgraph/prod"
    assert attn.call("GET", f"/api/v1/inbox/{item['id']}", "bob").status_code == 404
    ranked = next(one for one in attn.call("GET", "/org/me/inbox?limit=500").json()["items"] if one["id"] == item["id"])
    assert ranked["action_url"] == f"{server.url}/threads/{thread}"
    assert ranked["cluster"] == "prod"


# An answer without a fence reaches the wrong question.


def test_two_questions_of_one_node_get_their_own_answers(
    server: LangGraph, attn: AttnWorkspace, connector: RunningConnector,
) -> None:
    thread = server.ask("two_questions", {"key": "own answers"})
    first = answer(attn, thread, "answer", form={"answer": "yes"})
    attn.decided(first, "applied")
    second = attn.item(f"prod/{thread}/", state="unread")
    assert (first["title"], second["title"]) == ("deploy to staging?", "DROP prod database?")
    assert attn.decide(first, "answer", form={"answer": "yes"}).status_code in (200, 410)  # a repeat
    assert attn.decide(second, "answer", form={"answer": "no"}).status_code == 201
    attn.decided(second, "applied")
    assert server.effects_of("two", "own answers") == [["yes", "no"]]


@pytest.mark.parametrize("graph", ["two_questions", "two_nodes"])
def test_an_answer_that_is_sent_five_times_at_once_answers_one_question(server: LangGraph, graph: str) -> None:
    """`input.respond` checks the id of the interrupt before it queues a run. Without a fence, five concurrent answers
    would also answer the next question, "DROP prod database?"."""
    thread = server.ask(graph, {"key": f"five times {graph}"})
    [first] = server.interrupts(thread)

    async def send() -> list[Any]:
        async with aiohttp.ClientSession() as session:
            client = LangGraphServer(Deployment("prod", server.url), session)
            return await asyncio.gather(*(
                client.respond(thread, first["id"], "yes", f"dec_{number}", "ann") for number in range(5)))

    assert asyncio.run(send()) == [None] * 5
    server.rest(thread)
    [pending] = server.interrupts(thread)
    assert pending["value"] == "DROP prod database?"
    assert sorted(run["status"] for run in server.marked(thread)) == ["error"] * 4 + ["success"]
    assert server.effects_of("two", f"five times {graph}") == []


# An answer of a wrong form can make a thread fail permanently.


@pytest.mark.parametrize(("graph", "input", "option", "wrong", "reason", "right"), [
    ("any_value", {"key": "broken", "value": "?"}, "json", {"form": {"json": "{"}}, "the answer is not JSON",
     {"form": {"json": "{}"}}),
    ("any_value", {"key": "schema", "value": "?", "response_schema": {"type": "array", "items": {"type": "string"}}},
     "json", {"form": {"json": "[1]"}}, r"\[0\]: must be a string", {"form": {"json": '["1"]'}}),
    ("human_interrupt", {"key": "digits", "value": HUMAN}, "edit", {"args": {"x": 1}},
     "would round the number 0.30000000000000000001", {"args": {"x": 0.3}}),
], ids=["no JSON", "schema", "digits"])
def test_a_wrong_shape_is_never_sent(
    server: LangGraph, attn: AttnWorkspace, connector: RunningConnector, graph: str, input: Any, option: str,
    wrong: Any, reason: str, right: Any,
) -> None:
    thread = server.ask(graph, input)
    item = attn.item(f"prod/{thread}/", state="unread")
    body = json.dumps({"option": option, "digest": item["digest"], **wrong})
    if "round" in reason:
        body = body.replace('"x": 1', '"x": 0.30000000000000000001')
    made = attn.call("POST", f"/api/v1/inbox/{item['id']}/decision", content=body,
                     headers={"content-type": "application/json"})
    assert made.status_code == 201, made.text
    refused = attn.decided(item, "refused")
    assert re.search(reason, refused["reason"]), refused["reason"]
    assert server.marked(thread) == []
    assert server.thread(thread)["status"] == "interrupted"
    again = attn.item(item["source_id"])
    assert again["decision"]["returned"] == "refused"
    assert attn.decide(again, option, **right).status_code == 201
    attn.decided(item, "applied")


def test_arguments_that_miss_the_tools_schema_are_refused_while_the_person_answers(
    server: LangGraph, attn: AttnWorkspace, connector: RunningConnector,
) -> None:
    thread = server.call_tools("per_call", MAIL)
    item = attn.item(f"prod/{thread}/", state="unread")
    wrong = attn.decide(item, "edit", args={**MAIL["args"], "delay_seconds": "soon"})
    assert (wrong.status_code, list(wrong.json()["fields"])) == (422, ["args.delay_seconds"])
    assert server.marked(thread) == []


def test_what_the_agent_refuses_comes_back_with_its_reason(
    server: LangGraph, attn: AttnWorkspace, connector: RunningConnector,
) -> None:
    """The answer fits the form, but the validator of the graph refuses it. The thread is in state `error` and still has
    its question."""
    thread = server.ask("typed", {"key": "comes back"})
    item = answer(attn, thread, "answer", form={"name": "forbidden", "nodes": 3})
    refused = attn.decided(item, "refused")
    assert "ValidationError" in refused["reason"]
    assert "this name is reserved" in refused["reason"]
    assert server.thread(thread)["status"] == "error"
    ranked = next(one for one in attn.call("GET", "/org/me/inbox?limit=500").json()["items"] if one["id"] == item["id"])
    assert "refused" in ranked["rank_reasons"]
    again = attn.item(item["source_id"])
    assert attn.decide(again, "answer", form={"name": "allowed", "nodes": 3}).status_code == 201
    attn.decided(item, "applied")
    assert server.effects_of("typed", "comes back") == [[{"name": "allowed", "nodes": 3, "public": False}]]


def test_a_failed_thread_with_a_question_is_listed(
    server: LangGraph, attn: AttnWorkspace, connector: RunningConnector,
) -> None:
    """A wrong answer of another client puts the thread into state `error`. A search for `interrupted` misses it."""
    thread = server.ask("typed", {"key": "failed"}, {"attn_priority": "high"})
    [pending] = server.interrupts(thread)
    server.respond(thread, pending["id"], {"name": "x"})
    wait_for(lambda: server.thread(thread)["status"] == "error", 60, "the thread has failed")
    attn.item(f"prod/{thread}/")  # the other connector has listed the question, too
    with RunningConnector(langgraph_peer(Deployment("later", server.url)), attn.url, attn.key):
        item = attn.item(f"later/{thread}/{pending['id']}")
        assert attn.decide(item, "answer", form={"name": "alpha", "nodes": 1}).status_code == 201
        attn.decided(item, "applied")
    assert server.effects_of("typed", "failed") == [[{"name": "alpha", "nodes": 1, "public": False}]]
    attn.item(f"prod/{thread}/", state="resolved", resolved_action="resumed")


def test_a_thread_that_cannot_continue_has_a_reason(
    server: LangGraph, attn: AttnWorkspace, connector: RunningConnector,
) -> None:
    """A graph that fails on an answer keeps this answer, and fails again on each later one."""
    thread = server.ask("fragile", {"key": "fragile"})
    for number, text in enumerate(("wrong", "right"), 1):
        item = answer(attn, thread, "answer", form={"answer": text})
        wait_for(lambda number=number: len(server.marked(thread)) == number, 60, "the answer is sent")
        assert "cannot continue with 'wrong'" in attn.decided(item, "refused")["reason"]


# agent-inbox does not tell concurrent deciders whose answer was used.


def test_one_of_two_deciders_wins_and_the_other_gets_a_conflict(
    server: LangGraph, attn: AttnWorkspace, connector: RunningConnector,
) -> None:
    for number in range(2):
        thread = server.ask("two_questions", {"key": f"race {number}"})
        item = attn.item(f"prod/{thread}/", state="unread")
        answers: dict[str, Any] = {}
        start = threading.Barrier(2)

        def decide(user: str, item: Any = item, answers: Any = answers, start: Any = start) -> None:
            start.wait()
            answers[user] = attn.decide(item, "answer", user, form={"answer": user})

        threads = [threading.Thread(target=decide, args=(user,)) for user in ("ann", "bob")]
        for decider in threads:
            decider.start()
        for decider in threads:
            decider.join()
        assert sorted(made.status_code for made in answers.values()) == [201, 409]
        winner = next(user for user, made in answers.items() if made.status_code == 201)
        loser = next(made for made in answers.values() if made.status_code == 409)
        assert [actor["user"] for actor in loser.json()["decision"]["actors"]] == [winner]
        attn.decided(item, "applied")
        [run] = server.marked(thread)
        assert run["metadata"]["attn_decided_by"] == winner
        second = answer(attn, thread, "answer", form={"answer": "end"})
        attn.decided(second, "applied")
        assert server.effects_of("two", f"race {number}") == [[winner, "end"]]


def test_an_answer_given_elsewhere_closes_the_item(
    server: LangGraph, attn: AttnWorkspace, connector: RunningConnector,
) -> None:
    thread = server.ask("any_value", {"key": "elsewhere", "value": "here or there?"})
    item = attn.item(f"prod/{thread}/", state="unread")
    server.respond(thread, server.interrupts(thread)[0]["id"], "there")
    assert attn.item(item["source_id"], state="resolved")["resolved_action"] == "resumed"
    assert attn.decide(item, "answer", form={"answer": "here"}).status_code == 410
    call = server.call_tools("batched", DROP)
    action = attn.item(f"prod/{call}/", state="unread")
    server.http.delete(f"/threads/{call}")
    assert attn.item(action["source_id"], state="resolved")["resolved_action"] == "expired"


@pytest.mark.parametrize("gone", ["answered", "deleted"])
def test_a_decision_whose_question_has_gone_is_refused_and_not_called_applied(
    server: LangGraph, attn: AttnWorkspace, gone: str,
) -> None:
    thread = server.ask("any_value", {"key": gone, "value": "still there?"})
    peer = langgraph_peer(Deployment(gone, server.url))
    with RunningConnector(peer, attn.url, attn.key):
        item = attn.item(f"{gone}/{thread}/", state="unread")
    assert attn.decide(item, "answer", form={"answer": "late"}).status_code == 201
    if gone == "answered":
        server.respond(thread, server.interrupts(thread)[0]["id"], "early")
        server.rest(thread)
    else:
        server.http.delete(f"/threads/{thread}")
    with RunningConnector(peer, attn.url, attn.key):
        reason = attn.decided(item, "refused")["reason"]
        assert ("elsewhere" if gone == "answered" else "was deleted") in reason
        attn.item(item["source_id"], state="resolved")
    assert attn.decided(item, "refused")
    assert server.effects_of("any", gone) == ([["early"]] if gone == "answered" else [])


def test_five_connectors_at_once_have_one_effect(server: LangGraph, attn: AttnWorkspace) -> None:
    threads = [server.ask("two_questions", {"key": f"five {number}"}) for number in range(3)]
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(
                RunningConnector(langgraph_peer(Deployment("five", server.url)), attn.url, attn.key))
        for text in ("yes", "no"):
            items = [attn.item(f"five/{thread}/", state="unread") for thread in threads]
            for item in items:
                assert attn.decide(item, "answer", form={"answer": text}).status_code == 201
            for item in items:
                attn.decided(item, "applied")
    assert [server.effects_of("two", f"five {number}") for number in range(3)] == [[["yes", "no"]]] * 3


def test_a_deployment_that_does_not_answer_does_not_stop_the_others(server: LangGraph, attn: AttnWorkspace) -> None:
    thread = server.ask("any_value", {"key": "one down", "value": "?"})
    peers = langgraph_peer(Deployment("down", "http://127.0.0.1:9"), Deployment("up", server.url))
    with RunningConnector(peers, attn.url, attn.key):
        item = attn.item(f"up/{thread}/", state="unread")
        assert attn.decide(item, "answer", form={"answer": "yes"}).status_code == 201
        attn.decided(item, "applied")


def test_all_pages_of_waiting_threads_are_read(
    server: LangGraph, attn: AttnWorkspace, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streams.connectors.langgraph.server._PAGE", 2)
    threads = [server.ask("any_value", {"value": f"page {number}"}) for number in range(5)]
    with RunningConnector(langgraph_peer(Deployment("pages", server.url)), attn.url, attn.key):
        for thread in threads:
            attn.item(f"pages/{thread}/", state="unread")


class Process:
    """`attn connect langgraph` as a process."""

    def __init__(self, server: str, attn: str, key: str, name: str, home: Path, *flags: str) -> None:
        key_file = home / "key"
        key_file.write_text(key)
        self.log = home / "connector.log"
        command = [*COMMAND, "connect", "langgraph", "--deployment", f"{name}={server}", "--attn", attn,
                   "--key-file", str(key_file), "--data-dir", str(home), *flags]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=home, env=clean_env(), stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(90)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(120)


def test_a_connector_that_is_killed_at_any_step_has_one_effect(
    server: LangGraph, attn: AttnWorkspace, tmp_path: Path,
) -> None:
    """The connector gets SIGKILL before its answer reaches the server, before the response reaches the connector, while
    it reads the effect, and before attn gets the report. The next process completes the decision."""
    steps: list[tuple[Moment, str]] = [
        ("before", "commands"), ("after", "commands"), ("after", "runs"), ("before", "events")]
    items, threads = [], []
    with StoppingProxy(server.url) as to_server, StoppingProxy(attn.url) as to_attn:
        for number, (moment, request) in enumerate(steps):
            thread = server.ask("slow", {"key": f"killed {number}", "value": 1})
            process = Process(to_server.url, to_attn.url, attn.key, "killed", tmp_path, "--sweep", "0.5")
            item = attn.item(f"killed/{thread}/", state="unread")
            sent, killed = threading.Event(), threading.Event()

            def kill(
                now: Moment, method: str, path: str, process: Any = process, sent: Any = sent, killed: Any = killed,
                thread: str = thread, wanted: tuple[Moment, str] = (moment, request),
            ) -> None:
                answers = path == f"/threads/{thread}/commands"
                mine = path == "/events" or path.startswith(f"/threads/{thread}/")
                if mine and (now, path.rsplit("/", 1)[1]) == wanted and (answers or sent.is_set()):
                    process.kill()
                    killed.set()
                    raise Dropped
                if answers and now == "after":
                    sent.set()

            to_server.at = to_attn.at = kill
            assert attn.decide(item, "answer", form={"answer": "go"}).status_code == 201
            assert killed.wait(90), (moment, request)
            to_server.at = to_attn.at = None
            items.append(item)
            threads.append(thread)
    process = Process(server.url, attn.url, attn.key, "killed", tmp_path, "--sweep", "0.5")
    for item in items:
        attn.decided(item, "applied")
    assert process.stop() == 0, process.log.read_text()[-2000:]
    assert [server.effects_of("slow", f"killed {number}") for number in range(len(steps))] == [[["go"]]] * len(steps)
    assert [len(server.marked(thread)) for thread in threads] == [1] * len(steps)


def test_a_webhook_only_wakes(server: LangGraph, attn: AttnWorkspace, tmp_path: Path) -> None:
    """LangGraph's webhook about an interrupted run has status `success` and contains no interrupt."""
    port = free_port()
    server.ask("any_value", {"value": "before?"})
    process = Process(server.url, attn.url, attn.key, "hooked", tmp_path, "--sweep", "3600", "--listen", str(port))
    try:
        attn.item("hooked/")  # sent by the first sweep
        thread = server.ask("any_value", {"value": "hook?"}, webhook=f"http://127.0.0.1:{port}/langgraph")
        attn.item(f"hooked/{thread}/", state="unread")
    finally:
        assert process.stop() == 0


def test_a_server_that_restarts_delays_an_answer_and_loses_none(attn: AttnWorkspace, tmp_path: Path) -> None:
    own = LangGraph(tmp_path)
    own.start()
    try:
        thread = own.ask("two_questions", {"key": "restart"})
        peer = langgraph_peer(Deployment("restarted", own.url))
        with RunningConnector(peer, attn.url, attn.key):
            item = attn.item(f"restarted/{thread}/", state="unread")
        own.stop()
        with RunningConnector(peer, attn.url, attn.key):
            assert attn.decide(item, "answer", form={"answer": "yes"}).status_code == 201
            assert attn.decided(item, "sending")
            own.start()
            attn.decided(item, "applied")
            assert attn.item(f"restarted/{thread}/", state="unread")["title"] == "DROP prod database?"
    finally:
        own.stop()
        own.http.close()
