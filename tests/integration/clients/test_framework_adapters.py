"""attn_client.adapters with the real LangGraph, LangChain and OpenAI Agents SDK. The models are fakes; no network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.clients.framework_scripts import VERSIONS, Script
from support.clients.light_attn import light_attn
from support.clients.people import People, until
from support.peers.environments import python_environment

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]


@pytest.fixture(scope="module")
def interpreter() -> Path:
    return python_environment("agent-sdks", VERSIONS)


@pytest.fixture(scope="module")
def people() -> Iterator[People]:
    with light_attn() as running:
        yield running


@pytest.fixture(scope="module")
def key(people: People) -> str:
    return people.create_key("/agents")


def graph(interpreter: Path, people: People, key: str, case: str) -> Script:
    return Script(interpreter, "langgraph_agent.py", people.url, key, case)


async def by_title(people: People, count: int, **filters: Any) -> dict[str, dict[str, Any]]:
    """Waits for `count` open questions, and returns them by subject."""
    async def questions() -> Any:
        rows = [row for row in await people.items() if all(row["source_id"].startswith(f"{value}/")
                                                           for value in filters.values())]
        return {row["source_id"]: row for row in rows} if len(rows) >= count else None

    return dict(await until(questions, f"{count} questions"))


@pytest.mark.parametrize("mode", ["batched", "per_call"])
async def test_langchains_middleware(interpreter: Path, people: People, key: str, mode: str) -> None:
    """Approves a call, edits its arguments, rejects it with a reason, and answers in place of the tool. Several calls
    of one step are one batch."""
    running = graph(interpreter, people, key, mode)
    asked = await by_title(people, 4, thread=mode)
    for subject, row in asked.items():
        args = row["ask"]["action"]["args"]
        offered = {option["id"] for option in row["ask"]["options"]}
        if "question" in args:
            assert offered == {"respond"}
            await people.answer(subject, "respond", form={"message": "Ann"})
            continue
        assert offered == {"approve", "edit", "reject"}
        if args["subject"] == "1":
            await people.answer(subject, "approve")
        elif args["subject"] == "2":
            await people.answer(subject, "edit", args={"to": "x@example.com", "subject": "2!"})
        else:
            await people.answer(subject, "reject", comment="not to c")
    ended = await running.end()
    assert ended["calls"] == [["a@example.com", "1"], ["x@example.com", "2!"]]
    texts = " ".join(str(part) for part in ended["result"])
    assert "not to c" in texts
    assert "Ann" in texts
    assert ended["result"][-1][1] == "done"
    for subject in asked:
        await people.becomes(subject, "applied")


async def test_two_equal_interrupts_of_one_node_are_two_questions(
    interpreter: Path, people: People, key: str,
) -> None:
    running = graph(interpreter, people, key, "twice")
    [first] = await by_title(people, 1, thread="twice")
    await people.answer(first, "answer", form={"text": "one"})
    await people.becomes(first, "applied")
    [second] = await by_title(people, 1, thread="twice")
    assert second != first
    await people.answer(second, "answer", form={"text": "two"})
    assert (await running.end())["result"] == ["one", "two"]


async def test_an_answer_that_the_graph_refuses_returns_with_the_reason(
    interpreter: Path, people: People, key: str,
) -> None:
    running = graph(interpreter, people, key, "typed")
    [subject] = asked = await by_title(people, 1, thread="typed")
    assert asked[subject]["title"] == "How large?"
    assert asked[subject]["ask"]["form"]["properties"]["nodes"]["type"] == "integer"
    await people.answer(subject, "answer", form={"nodes": 4})

    async def returned() -> Any:
        return [row for row in await people.items(source_id=subject) if row.get("decision", {}).get("returned")]

    [item] = await until(returned, "the refused answer is back")
    assert "an odd number of nodes" in item["decision"]["reason"]
    await people.answer(subject, "answer", form={"nodes": 3})
    assert (await running.end())["result"] == [3]


async def test_agent_inbox_keeps_the_types_of_edited_arguments(interpreter: Path, people: People, key: str) -> None:
    running = graph(interpreter, people, key, "inbox")
    [subject] = await by_title(people, 1, thread="inbox")
    await people.answer(subject, "edit", args={"amount": 9007199254740993})
    assert (await running.end())["result"] == [
        {"type": "edit", "args": {"action": "pay", "args": {"amount": 9007199254740993}}}]


async def test_a_snapshot_of_openai_agents_is_used_once(
    interpreter: Path, people: People, key: str, tmp_path: Path,
) -> None:
    """A run is killed while it waits, continues from its snapshot, gets an answer and ends. A second use of the
    snapshot is refused, and no tool runs again."""
    def step(name: str) -> Script:
        return Script(interpreter, "openai_agent.py", people.url, key, str(tmp_path), name)

    killed = step("run")
    asked = await by_title(people, 2, run="refund-17")
    killed.kill()
    assert sorted(asked) == ["refund-17/call_17", "refund-17/call_18"]
    shutil.copy(tmp_path / "refund-17.json", tmp_path / "kept")
    running = step("run")
    await people.answer("refund-17/call_17", "approve")
    await people.answer("refund-17/call_18", "reject", comment="too late")
    assert await running.end() == "refunded 17 | too late"
    assert (tmp_path / "effects").read_text() == "17\n"
    assert await step("run").end() == "refunded 17 | too late", "the run has not ended"
    assert "was taken before" in await step("replay").end()
    assert (tmp_path / "effects").read_text() == "17\n"
