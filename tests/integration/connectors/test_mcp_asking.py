"""The tools of `attn mcp`, called by the client of the MCP SDK over streamable HTTP, with a running attn."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from support.peers.mcp_asking import McpHttpServer, People, body, eventually, http_client

pytestmark = pytest.mark.timeout(600)

FORM: dict[str, Any] = {
    "type": "object", "required": ["name", "nodes", "public", "region", "addons"], "properties": {
        "name": {"type": "string", "title": "Name", "minLength": 3, "maxLength": 40},
        "owner": {"type": "string", "format": "email"}, "link": {"type": "string", "format": "uri"},
        "day": {"type": "string", "format": "date"}, "when": {"type": "string", "format": "date-time"},
        "nodes": {"type": "integer", "minimum": 1, "maximum": 9, "default": 3},
        "ratio": {"type": "number", "minimum": 0}, "public": {"type": "boolean", "default": False},
        "region": {"type": "string", "enum": ["eu", "us"], "enumNames": ["Europe", "States"]},
        "team": {"type": "string", "oneOf": [{"const": "a", "title": "Team A"}, {"const": "b", "title": "Team B"}]},
        "addons": {"type": "array", "minItems": 1, "items": {"type": "string", "enum": ["metrics", "backup"]}},
        "checks": {"type": "array", "maxItems": 2, "items": {"anyOf": [
            {"const": "unit", "title": "Unit tests"}, {"const": "load", "title": "Load test"}]}},
    },
}
VALUES: dict[str, Any] = {
    "name": "web-1", "owner": "ann@example.com", "link": "https://example.com/x", "day": "2026-05-20",
    "when": "2026-05-20T08:14:22Z", "nodes": 4, "ratio": 0.25, "public": True, "region": "us", "team": "b",
    "addons": ["backup", "metrics"], "checks": ["load"],
}


async def test_a_form_with_all_supported_types_keeps_them_and_refused_values_are_not_delivered(
    people: People, http_server: McpHttpServer
) -> None:
    title = "Which cluster?"
    async with http_client(http_server) as client, people.web() as web:
        call = asyncio.create_task(client.call_tool("ask_human", {"question": title, "form": FORM}))
        item = await people.item(web, title)
        assert item["ask"]["form"]["properties"].keys() == FORM["properties"].keys()
        for name, wrong in (("nodes", 10), ("nodes", 4.5), ("name", "x"), ("region", "asia"), ("addons", []),
                            ("owner", "nobody"), ("public", "yes"), ("day", "20 May")):
            refused = await people.decide(web, title, "answer", form={**VALUES, name: wrong})
            assert refused.status_code == 422, name
            assert f"form.{name}" in refused.json()["fields"]
        await asyncio.sleep(1)  # longer than the undo window: an accepted answer would have reached the source
        assert not call.done()
        assert (await people.decide(web, title, "answer", form=VALUES)).status_code == 201
        result = body(await call)
        assert result["form"] == VALUES
        assert {name: type(value) for name, value in result["form"].items()} == {
            name: type(value) for name, value in VALUES.items()}


async def test_a_question_without_options_gets_a_text_or_is_declined(
    people: People, http_server: McpHttpServer
) -> None:
    async with http_client(http_server) as client, people.web() as web:
        calls = [asyncio.create_task(client.call_tool("ask_human", {"question": text})) for text in ("Text?", "None?")]
        assert (await people.decide(web, "Text?", "answer", form={"text": "hm\n\u2028\U0001f600"})).status_code == 201
        assert (await people.decide(web, "None?", "decline", comment="not mine")).status_code == 201
        text, declined = [body(await call) for call in calls]
        assert text["form"] == {"text": "hm\n\u2028\U0001f600"}
        assert (declined["option"], declined["does"], declined["comment"]) == ("decline", "reject", "not mine")
        assert "form" not in declined


async def test_two_concurrent_questions_get_their_own_answers(people: People, http_server: McpHttpServer) -> None:
    async with http_client(http_server) as client, people.web() as web:
        questions = {f"Concurrent {number}?": str(number) for number in range(2)}
        calls = {title: asyncio.create_task(client.call_tool("ask_human", {
            "question": title, "options": ["0", "1"]})) for title in questions}
        for title in reversed(questions):
            assert (await people.decide(web, title, questions[title])).status_code == 201
        for title, call in calls.items():
            assert body(await call)["option"] == questions[title]


async def test_the_wait_ends_with_a_handle_that_works_in_another_session_and_once(
    people: People, http_server: McpHttpServer
) -> None:
    asked = {"question": "Resumed?", "options": ["yes", "no"], "wait_seconds": 0}
    async with http_client(http_server) as client, people.web() as web:
        first = body(await client.call_tool("ask_human", asked))
        assert first["status"] == "waiting"
        assert body(await client.call_tool("ask_human", asked))["handle"] == first["handle"]
        await people.item(web, "Resumed?")
        listed = body(await client.call_tool("list_waiting", {}))["questions"]
        assert [one["status"] for one in listed if one["handle"] == first["handle"]] == ["waiting"]
    async with http_client(http_server) as other, people.web() as web:
        call = asyncio.create_task(other.call_tool("ask_human", {"handle": first["handle"]}))
        assert (await people.decide(web, "Resumed?", "no")).status_code == 201
        result = body(await call)
        assert (result["option"], result["handle"]) == ("no", first["handle"])
        await people.decision(web, first["handle"], "applied")
        # The caller has the answer, so the same call opens a new question. The old handle still returns the old answer.
        second = body(await other.call_tool("ask_human", asked))
        assert second["status"] == "waiting"
        assert second["handle"] != first["handle"]
        assert (await people.decide(web, "Resumed?", "yes")).status_code == 201
        assert body(await other.call_tool("get_answer", {"handle": second["handle"]}))["option"] == "yes"
        assert body(await other.call_tool("get_answer", {"handle": first["handle"]}))["option"] == "no"


async def test_an_unfetched_answer_returns_to_the_list_and_can_still_be_fetched(
    people: People, http_server: McpHttpServer
) -> None:
    async with http_client(http_server) as client, people.web() as web:
        asked = body(await client.call_tool("ask_human", {
            "question": "Fetched late?", "options": ["yes"], "wait_seconds": 0}))
        assert (await people.decide(web, "Fetched late?", "yes")).status_code == 201
        item = await people.item(web, "Fetched late?")  # listed again

        async def returned() -> Any:
            return (await web.get(f"/api/v1/inbox/{item['id']}")).json()["decision"].get("returned")

        assert await eventually(returned, "unconfirmed") == "unconfirmed"
        listed = body(await client.call_tool("list_waiting", {}))["questions"]
        assert [one["status"] for one in listed if one["handle"] == asked["handle"]] == ["answered"]
        assert body(await client.call_tool("get_answer", {"handle": asked["handle"]}))["option"] == "yes"
        await people.decision(web, asked["handle"], "applied")
        assert (await people.item(web, "Fetched late?", "resolved"))["id"] == item["id"]


async def test_a_question_that_expires_ends_the_wait(people: People, http_server: McpHttpServer) -> None:
    async with http_client(http_server) as client:
        began = time.monotonic()
        result = body(await client.call_tool("ask_human", {
            "question": "Expires?", "expires": "10s", "wait_seconds": 200}))
        assert result["status"] == "expired"
        assert time.monotonic() - began < 150
        assert "option" not in result


async def test_a_question_is_withdrawn_before_and_after_a_person_answered(
    people: People, http_server: McpHttpServer
) -> None:
    async with http_client(http_server) as client, people.web() as web:
        for title in ("Withdrawn?", "Withdrawn late?"):
            asked = body(await client.call_tool("ask_human", {"question": title, "wait_seconds": 0}))
            if title == "Withdrawn late?":
                assert (await people.decide(web, title, "answer", form={"text": "x"})).status_code == 201
            result = body(await client.call_tool("withdraw", {"handle": asked["handle"]}))
            assert result["status"] == "withdrawn"
            await people.item(web, title, "resolved")
            assert body(await client.call_tool("get_answer", {"handle": asked["handle"]}))["status"] == "withdrawn"
        # The item shows the user that the answer was not used.
        decision = await people.decision(web, asked["handle"], "refused")
        assert decision["reason"] == "the caller withdrew the question before it had the answer"
        anew = body(await client.call_tool("ask_human", {"question": "Withdrawn?", "wait_seconds": 0}))
        assert anew["status"] == "waiting"
        await people.item(web, "Withdrawn?")


async def test_a_person_resolves_the_item_without_an_answer(people: People, http_server: McpHttpServer) -> None:
    async with http_client(http_server) as client, people.web() as web:
        call = asyncio.create_task(client.call_tool("ask_human", {"question": "Resolved?", "wait_seconds": 200}))
        item = await people.item(web, "Resolved?")
        assert (await web.patch(f"/api/v1/inbox/{item['id']}", json={"state": "resolved"})).status_code == 200
        result = body(await call)
        assert result["status"] == "withdrawn"
        assert "option" not in result


async def test_a_notice_is_sent_once_and_withdrawn(people: People, http_server: McpHttpServer) -> None:
    async with http_client(http_server) as client, people.web() as web:
        notice = {"message": "Nightly build failed", "body": "see *log*", "priority": "low", "who": {"role": "OWNER"}}
        sent = [body(await client.call_tool("notify_human", notice)) for _ in range(2)]
        assert sent[0] == sent[1]
        item = await people.item(web, "Nightly build failed")
        assert (item["kind"], item["priority"], item["target_role"]) == ("message", "low", "OWNER")
        rows = (await web.get("/api/v1/inbox", params={"kind": "message"})).json()["rows"]
        assert len([row for row in rows if row["title"] == item["title"]]) == 1
        assert body(await client.call_tool("withdraw", {"handle": sent[0]["handle"]}))["status"] == "withdrawn"
        await people.item(web, "Nightly build failed", "resolved")


async def test_the_question_is_for_the_person_it_names(people: People, http_server: McpHttpServer) -> None:
    async with http_client(http_server) as client, people.web("bob", "MEMBER") as bob, people.web() as ann:
        call = asyncio.create_task(client.call_tool("ask_human", {
            "question": "Only Bob?", "who": {"user": "bob"}, "options": ["ok"]}))
        item = await people.item(bob, "Only Bob?")
        assert (await ann.get(f"/api/v1/inbox/{item['id']}")).status_code == 404
        assert (await people.decide(bob, "Only Bob?", "ok")).status_code == 201
        assert body(await call)["decided_by"][0]["user"] == "bob"


async def test_attn_restarts_while_a_call_waits(people: People, http_server: McpHttpServer) -> None:
    async with http_client(http_server) as client, people.web() as web:
        call = asyncio.create_task(client.call_tool("ask_human", {"question": "Restart?", "wait_seconds": 200}))
        await people.item(web, "Restart?")
        for part in ("edge", "worker"):
            people.up.wait_restarted(part, people.up.kill(part))
        decided = await people.decide(web, "Restart?", "answer", form={"text": "still here"})
        assert decided.status_code in (200, 201)  # 200: a repeated request after a 503
        assert body(await call)["form"] == {"text": "still here"}


async def test_errors_name_the_argument_and_the_remedy_and_never_the_key(
    people: People, http_server: McpHttpServer
) -> None:
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("ask_human", {}, "question: required"),
        ("ask_human", {"question": "x" * 513}, "question: String should have at most 512"),
        ("ask_human", {"question": "q", "context": "é" * 40_000}, "context: 80000 bytes; at most 65536"),
        ("ask_human", {"question": "q", "options": []}, "options: List should have at least 1"),
        ("ask_human", {"question": "q", "options": ["a"] * 21}, "options: List should have at most 20"),
        ("ask_human", {"question": "q", "options": ["a", "a"]}, "options must not repeat an id"),
        ("ask_human", {"question": "q", "form": {"properties": {"a": {"type": "object"}}}},
         "form.properties.a: type must be"),
        ("ask_human", {"question": "q", "form": {"properties": {"a": {"type": "string", "enum": ["x" * 200] * 300}}}},
         "form.properties.a"),
        ("ask_human", {"question": "q", "who": {"role": "VIEWER"}}, "who.role"),
        ("ask_human", {"question": "q", "expires": "soon"}, "expires: 'soon' is neither"),
        ("ask_human", {"question": "q", "expires": "90d"}, "expires: '90d' is not between"),
        ("ask_human", {"question": "q", "wait_seconds": 1e9}, "wait_seconds: Input should be less than or equal"),
        ("ask_human", {"question": "q", "workspaceid": "ws_other"}, "workspaceid: Extra inputs are not permitted"),
        ("get_answer", {"handle": "ask_1"}, "handle: not a handle"),
        ("get_answer", {"handle": "note_" + "a" * 26}, "handle: names a message"),
        ("notify_human", {"message": " "}, "message: must not be blank"),
        ("withdraw", {"handle": ""}, "handle: not a handle"),
    ]
    async with http_client(http_server) as client:
        for name, arguments, error in cases:
            result = await client.call_tool(name, arguments)
            text = result.content[0].text
            assert result.is_error, (name, arguments)
            assert error in text, (name, arguments, text)
            assert people.key not in text
        unknown = body(await client.call_tool("get_answer", {"handle": "ask_" + "a" * 26 + "_" + "0" * 10}))
        assert unknown["status"] == "unknown"
        with pytest.raises(Exception, match="unknown tool"):
            await client.call_tool("approve", {})
