"""A client with the TypeScript SDK (npm) calls `ask_human`: timeout, abort and progress notifications."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from support.peers import mcp_asking
from support.peers.environments import npm_environment
from support.peers.mcp_asking import McpHttpServer, People

pytestmark = pytest.mark.timeout(900)

PACKAGES = ("@modelcontextprotocol/sdk@1.32.2",)
SCRIPT = Path(mcp_asking.__file__).with_name("mcp_client.mjs")


@pytest.fixture(scope="module")
def sdk() -> str:
    return str(npm_environment("mcp-typescript", PACKAGES) / "node_modules/@modelcontextprotocol/sdk/dist/esm")


async def ask(sdk: str, server: McpHttpServer, question: str, timeout_ms: int, abort_ms: int = 0) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        "node", str(SCRIPT), sdk, server.url, server.people.key, question, str(timeout_ms), str(abort_ms),
        stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    return dict(json.loads(out))


async def test_a_timeout_of_the_client_keeps_the_question_and_its_abort_withdraws_it(
    sdk: str, people: People, http_server: McpHttpServer
) -> None:
    async with people.web() as web:
        gone = await ask(sdk, http_server, "TypeScript?", 3000)
        assert "Request timed out" in gone["error"]
        assert gone["progress"] >= 1
        again = asyncio.create_task(ask(sdk, http_server, "TypeScript?", 60_000))
        await asyncio.sleep(1)  # a withdrawal would arrive within this time
        assert (await people.decide(web, "TypeScript?", "answer", form={"text": "ok"})).status_code == 201
        result = await again
        assert (result["status"], result["form"]) == ("answered", {"text": "ok"})
        aborted = await ask(sdk, http_server, "Escape?", 60_000, abort_ms=3000)
        assert "Escape" in aborted["error"]
        assert (await people.item(web, "Escape?", "resolved"))["resolved_action"] == "cancelled"
