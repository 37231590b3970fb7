"""`attn mcp --http`: keys as bearer tokens, checks of Host and Origin, sessions, disconnects and kills."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from typing import Any

import httpx
import pytest
from support.peers.mcp_asking import WS, McpHttpServer, People, body, eventually, http_client, mcp_http

pytestmark = pytest.mark.timeout(600)

ACCEPT = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
INITIALIZE = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
    "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}}


def call_of(number: int, name: str, **arguments: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": name, "arguments": arguments}}


async def post(server: McpHttpServer, message: dict[str, Any], **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as web:
        return await web.post(server.url, json=message, headers=ACCEPT | {
            name.replace("_", "-"): value for name, value in headers.items()})


async def open_session(server: McpHttpServer, key: str) -> dict[str, str]:
    """Opens a session by the protocol versions before 2026-07-28. Returns the headers of its requests."""
    opened = await post(server, INITIALIZE, authorization=f"Bearer {key}")
    assert opened.status_code == 200, opened.text
    headers = {"authorization": f"Bearer {key}", "mcp_session_id": opened.headers["mcp-session-id"],
               "mcp_protocol_version": "2025-11-25"}
    assert (await post(server, {"jsonrpc": "2.0", "method": "notifications/initialized"}, **headers)).status_code == 202
    return headers


async def test_a_request_needs_a_key_that_attn_accepts(people: People, http_server: McpHttpServer) -> None:
    wrong = people.key[:-1] + ("a" if people.key[-1] != "a" else "b")
    token = people.up.token(WS)
    for bearer in (None, "x", wrong, token, "attn_" + "a" * 16):
        headers = {} if bearer is None else {"authorization": f"Bearer {bearer}"}
        refused = await post(http_server, INITIALIZE, **headers)
        assert (refused.status_code, refused.headers.get("www-authenticate", "")[:6]) == (401, "Bearer"), bearer
    assert (await post(http_server, INITIALIZE, authorization=f"bearer {people.key}")).status_code == 200
    query = httpx.post(f"{http_server.url}?key={people.key}", json=INITIALIZE, headers=ACCEPT, trust_env=False)
    assert query.status_code == 401


@pytest.mark.parametrize(("header", "value", "status"), [
    ("host", "evil.example.com", 421), ("host", "127.0.0.1.evil.example.com:80", 421), ("host", "localhost:1", 421),
    ("origin", "http://evil.example.com", 403), ("origin", "null", 403),
])
async def test_requests_for_another_name_are_refused(
    people: People, http_server: McpHttpServer, header: str, value: str, status: int
) -> None:
    headers = {"authorization": f"Bearer {people.key}"}
    assert (await post(http_server, INITIALIZE, **headers, **{header: value})).status_code == status
    modern = {**headers, "mcp_protocol_version": "2026-07-28", header: value}
    assert (await post(http_server, INITIALIZE, **modern)).status_code == status
    local = {"host": f"localhost:{http_server.port}", "origin": f"http://localhost:{http_server.port}"}
    assert (await post(http_server, INITIALIZE, **headers, **local)).status_code == 200


async def test_a_session_belongs_to_its_key_and_bodies_are_bounded(people: People, http_server: McpHttpServer) -> None:
    headers = await open_session(http_server, people.key)
    listing = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
    assert (await post(http_server, listing, **headers)).status_code == 200
    other = headers | {"authorization": f"Bearer {people.new_key()}"}
    assert (await post(http_server, listing, **other)).status_code == 404
    large = call_of(3, "ask_human", question="q", context="x" * (1 << 20))
    assert (await post(http_server, large, **headers)).status_code == 413


async def test_a_caller_reaches_the_workspace_and_the_source_of_its_key_only(
    people: People, http_server: McpHttpServer
) -> None:
    others = People(people.up, "ws_others")
    async with (
        http_client(http_server, others.key) as stranger, http_client(http_server) as client, others.web() as web,
    ):
        asked = body(await client.call_tool("ask_human", {"question": "Mine?", "wait_seconds": 0}))
        looked = body(await stranger.call_tool("get_answer", {"handle": asked["handle"], "wait_seconds": 0}))
        assert looked["status"] == "unknown"
        assert body(await stranger.call_tool("list_waiting", {}))["count"] == 0
        body(await stranger.call_tool("ask_human", {"question": "Theirs?", "wait_seconds": 0}))
        await others.item(web, "Theirs?")
        assert [row["title"] for row in (await web.get("/api/v1/inbox")).json()["rows"]] == ["Theirs?"]
    narrow = people.new_key("waitpoints,messages", "--source", "/mcp/alice")
    async with http_client(http_server, narrow, "/mcp/alice") as alice, people.web() as web:
        asked = body(await alice.call_tool("ask_human", {"question": "Alice's?", "wait_seconds": 0}))
        assert (await people.item(web, "Alice's?"))["source"] == "/mcp/alice"
    async with http_client(http_server) as client:  # the source of this key is /mcp
        assert body(await client.call_tool("get_answer", {"handle": asked["handle"]}))["status"] == "unknown"
    refused = await post(http_server, INITIALIZE, authorization=f"Bearer {narrow}", attn_source="/pipelines")
    assert refused.status_code == 403


async def test_a_cancelled_notification_withdraws_and_a_disconnect_does_not(
    people: People, http_server: McpHttpServer
) -> None:
    headers = await open_session(http_server, people.key)
    async with people.web() as web:
        call = asyncio.create_task(post(http_server, call_of(5, "ask_human", question="HTTP cancel?"), **headers))
        await people.item(web, "HTTP cancel?")
        cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}}
        assert (await post(http_server, cancelled, **headers)).status_code == 202
        assert (await people.item(web, "HTTP cancel?", "resolved"))["resolved_action"] == "cancelled"
        await call
        for number, version in enumerate(("2025-11-25", "2026-07-28"), 6):
            title = f"HTTP disconnect {version}?"
            message = call_of(number, "ask_human", question=title, wait_seconds=300)
            more = headers | {"mcp_protocol_version": version}
            if version == "2026-07-28":
                message["params"]["_meta"] = {
                    "io.modelcontextprotocol/protocolVersion": version,
                    "io.modelcontextprotocol/clientCapabilities": {}}
                more |= {"mcp_method": "tools/call", "mcp_name": "ask_human"}
                del more["mcp_session_id"]
            call = asyncio.create_task(post(http_server, message, **more))
            await people.item(web, title)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            assert (await people.decide(web, title, "answer", form={"text": version})).status_code == 201
            # No caller has got the answer, so it is not reported as applied, and the same call returns it.
            await asyncio.sleep(2)
            async with http_client(http_server) as client:
                result = body(await client.call_tool("ask_human", {"question": title}))
                assert (result["form"], result["handed_out_before"]) == ({"text": version}, False)


async def test_a_cancellation_reaches_only_calls_of_its_own_session(people: People, http_server: McpHttpServer) -> None:
    mine, others = [await open_session(http_server, people.key) for _ in range(2)]
    async with people.web() as web:
        call = asyncio.create_task(post(http_server, call_of(9, "ask_human", question="Still there?"), **mine))
        await people.item(web, "Still there?")
        cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 9}}
        assert (await post(http_server, cancelled, **others)).status_code == 202
        await asyncio.sleep(1)
        assert (await people.decide(web, "Still there?", "decline")).status_code == 201
        answer = await call
        [line] = [line for line in answer.text.splitlines() if '"result"' in line]
        assert json.loads(line.partition(":")[2])["result"]["structuredContent"]["option"] == "decline"


async def test_a_killed_server_loses_no_question_of_http_clients(people: People) -> None:
    with mcp_http(people) as server:
        async with people.web() as web:
            with contextlib.suppress(BaseExceptionGroup):  # the SDK raises it for a failed request
                async with http_client(server) as client:
                    call = asyncio.create_task(client.call_tool("ask_human", {"question": "HTTP killed?"}))
                    await people.item(web, "HTTP killed?")
                    server.kill()
                    await call
            await asyncio.gather(call, return_exceptions=True)
            assert (await people.decide(web, "HTTP killed?", "answer", form={"text": "yes"})).status_code == 201
            server.start()
            async with http_client(server) as client:
                result = body(await client.call_tool("ask_human", {"question": "HTTP killed?"}))
                assert (result["form"], result["handed_out_before"]) == ({"text": "yes"}, False)
                await people.decision(web, result["handle"], "applied")


async def test_sigterm_ends_the_server_while_a_call_waits(people: People) -> None:
    with mcp_http(people) as server:
        async with people.web() as web, http_client(server) as client:
            call = asyncio.create_task(client.call_tool("ask_human", {"question": "Stopped?", "wait_seconds": 300}))
            await people.item(web, "Stopped?")
            assert await asyncio.to_thread(server.kill, signal.SIGTERM) == 0
            await asyncio.gather(call, return_exceptions=True)
            assert (await people.item(web, "Stopped?"))["state"] in ("unread", "read")
        assert people.key not in server.log.read_text()


async def test_a_revoked_key_is_refused_by_open_sessions_too(people: People, http_server: McpHttpServer) -> None:
    key = people.new_key()
    async with http_client(http_server, key) as client:
        body(await client.call_tool("list_waiting", {}))
        assert people.up.attn("key", "revoke", key[5:21], "--workspace", people.ws).returncode == 0

        async def refused() -> bool:
            result = await client.call_tool("list_waiting", {})
            return bool(result.is_error and "401" in result.content[0].text)

        assert await eventually(refused, "the key is refused")
