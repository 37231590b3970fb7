"""`attn mcp` over stdin and stdout: the client of the MCP SDK starts it as a child process, with a running attn."""

from __future__ import annotations

import asyncio

import pytest
from mcp.shared.exceptions import MCPError
from support.peers.mcp_asking import People, body, stdio_client, stdio_servers

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_the_answer_of_a_person_comes_back_with_who_decided(people: People, mode: str) -> None:
    progress: list[tuple[float, str | None]] = []

    async def on_progress(value: float, _: float | None, text: str | None) -> None:
        progress.append((value, text))

    title = f"Deploy in mode {mode}?"
    async with stdio_client(people, mode=mode) as client, people.web("ann", "ADMIN") as web:
        assert {tool.name for tool in (await client.list_tools()).tools} == {
            "ask_human", "get_answer", "notify_human", "withdraw", "list_waiting"}
        call = asyncio.create_task(client.call_tool("ask_human", {
            "question": title, "context": "**PR #128**", "priority": "high", "options": [
                {"id": "go", "does": "approve", "title": "Deploy", "style": "primary"},
                {"id": "stop", "does": "reject", "comment": "required"}, "Ask me tomorrow"],
        }, progress_callback=on_progress))
        item = await people.item(web, title)
        assert (item["kind"], item["priority"], item["body_md"], item["blocking"], item["sender_type"]) == (
            "waitpoint", "high", "**PR #128**", True, "agent")
        assert [one["id"] for one in item["ask"]["options"]] == ["go", "stop", "option-3"]
        refused = await people.decide(web, title, "stop")  # the option needs a comment
        assert refused.status_code == 422
        assert (await people.decide(web, title, "go", comment="after lunch")).status_code == 201
        result = body(await call)
        assert (result["status"], result["option"], result["does"], result["comment"], result["handed_out_before"]) == (
            "answered", "go", "approve", "after lunch", False)
        assert [(one["user"], one["role"]) for one in result["decided_by"]] == [("ann", "ADMIN")]
        decision = await people.decision(web, result["handle"], "applied")
        assert decision["id"] == result["decision"]
        again = body(await client.call_tool("get_answer", {"handle": result["handle"]}))
        assert again == {**result, "handed_out_before": True}
    assert progress[0] == (0, f"waiting for a person; handle {result['handle']}")
    assert [value for value, _ in progress] == sorted(value for value, _ in progress)


async def test_a_killed_server_loses_no_question(people: People) -> None:
    asked = {"question": "Killed?", "options": ["yes"]}
    async with people.web() as web:
        async with stdio_client(people) as client:
            call = asyncio.create_task(client.call_tool("ask_human", asked))
            await people.item(web, "Killed?")
            [server] = stdio_servers()
            server.kill()
            with pytest.raises(MCPError, match="closed"):
                await call
        assert (await people.decide(web, "Killed?", "yes")).status_code == 201
        async with stdio_client(people) as client:
            result = body(await client.call_tool("ask_human", asked))
            assert (result["option"], result["handed_out_before"]) == ("yes", False)
            await people.decision(web, result["handle"], "applied")


async def test_an_answer_unfetched_until_the_expiry_is_refused_by_the_next_server(people: People) -> None:
    async with people.web() as web:
        async with stdio_client(people) as client:
            asked = body(await client.call_tool("ask_human", {
                "question": "Never fetched?", "options": ["yes"], "wait_seconds": 0, "expires": "10s"}))
        assert (await people.decide(web, "Never fetched?", "yes")).status_code == 201
        await asyncio.sleep(11)
        async with stdio_client(people) as client:
            decision = await people.decision(web, asked["handle"], "refused")
            assert decision["reason"] == "no caller fetched the answer before the question expired"
            await people.item(web, "Never fetched?", "resolved")
            result = body(await client.call_tool("get_answer", {"handle": asked["handle"]}))
            assert result["status"] in ("expired", "withdrawn")  # a refused question opens again, and then expires


async def test_a_cancelled_call_withdraws_its_question_and_a_timeout_does_not(people: People) -> None:
    async with stdio_client(people) as client, people.web() as web:
        call = asyncio.create_task(client.call_tool("ask_human", {"question": "Cancelled?"}))
        await people.item(web, "Cancelled?")
        call.cancel()
        item = await people.item(web, "Cancelled?", "resolved")
        assert item["resolved_action"] == "cancelled"
        with pytest.raises(Exception, match="timed out"):
            await client.call_tool("ask_human", {"question": "Timed out?"}, read_timeout_seconds=1)
        await asyncio.sleep(2)
        assert (await people.decide(web, "Timed out?", "decline")).status_code == 201
        assert body(await client.call_tool("ask_human", {"question": "Timed out?"}))["option"] == "decline"


async def test_a_caller_that_cancels_and_leaves_at_once_withdraws_its_question(people: People) -> None:
    async with people.web() as web:
        async with stdio_client(people) as client:
            call = asyncio.create_task(client.call_tool("ask_human", {"question": "Left?"}))
            await people.item(web, "Left?")
            call.cancel()
            await asyncio.sleep(0)
        await people.item(web, "Left?", "resolved")


async def test_a_key_reaches_its_topics_source_and_workspace_only(people: People) -> None:
    narrow = people.new_key("messages", "--source", "/mcp/alice")
    async with stdio_client(people, key=narrow) as client:
        refused = await client.call_tool("ask_human", {"question": "Allowed?"})
        assert refused.is_error
        assert "the key may not send" in refused.content[0].text
        refused = await client.call_tool("notify_human", {"message": "Allowed?"})
        assert "source" in refused.content[0].text
    async with stdio_client(people, "--source", "/mcp/alice", key=narrow) as client:
        assert body(await client.call_tool("notify_human", {"message": "Allowed!"}))["status"] == "sent"
    revoked = people.new_key()
    done = people.up.attn("key", "revoke", revoked[5:21], "--workspace", people.ws)
    assert done.returncode == 0
    async with stdio_client(people, key=revoked) as client:
        refused = await client.call_tool("ask_human", {"question": "Revoked?"})
        assert refused.is_error
        assert "401" in refused.content[0].text
        assert revoked not in refused.content[0].text
