"""attn_client.adapters.claude_agent with the real Claude Agent SDK and its command line. A server on loopback replaces
the model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.clients.framework_scripts import VERSIONS, Script
from support.clients.light_attn import light_attn
from support.clients.people import People
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


@pytest.mark.parametrize(("option", "more", "made"), [
    ("approve", {}, "asked"), ("edit", {"args": {"command": "echo edited > made.txt"}}, "edited"),
    ("reject", {"comment": "not tonight"}, None)])
async def test_a_person_answers_the_permission_prompt(
    interpreter: Path, people: People, key: str, tmp_path: Path, option: str, more: dict[str, object], made: str | None,
) -> None:
    running = Script(interpreter, "claude_agent.py", people.url, key, str(tmp_path), "callback")
    await people.answer(f"{tmp_path.name}/toolu_1", option, **more)
    ended = await running.end()
    assert ended["made"] == made
    assert ("not tonight" in ended["result"]) == (option == "reject")


async def test_claude_asks_the_user(interpreter: Path, people: People, key: str, tmp_path: Path) -> None:
    running = Script(interpreter, "claude_agent.py", people.url, key, str(tmp_path), "callback-ask")
    item = await people.question(f"{tmp_path.name}/toolu_2")
    assert item["title"] == "Which region?"
    await people.answer(item["source_id"], "answer", form={"q1": "eu"})
    assert "eu" in (await running.end())["result"]


async def test_a_deferred_call_is_answered_while_no_process_runs(
    interpreter: Path, people: People, key: str, tmp_path: Path,
) -> None:
    ended = await Script(interpreter, "claude_agent.py", people.url, key, str(tmp_path), "defer").end()
    assert ended["made"] is None
    await people.answer("night-17/toolu_1", "approve")
    ended = await Script(interpreter, "claude_agent.py", people.url, key, str(tmp_path), "resume").end()
    assert ended["made"] == "asked"
    await people.becomes("night-17/toolu_1", "applied")
