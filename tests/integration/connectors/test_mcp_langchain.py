"""LangChain's MCP adapters call `ask_human` with the snippet of docs/connect/mcp.md. They use an MCP SDK before 2.0."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest
from support.peers.environments import python_environment
from support.peers.mcp_asking import McpHttpServer, People

pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).parents[3]
REQUIREMENTS = ("langchain-mcp-adapters==0.3.2", "mcp==1.30.0", "langchain-core==1.8.3")
PROGRAM = """
import asyncio, json

async def main():
    {snippet}
    tool = next(tool for tool in tools if tool.name == "ask_human")
    content = await tool.ainvoke({{"question": "LangChain?", "options": ["yes", "no"]}})
    print("\\n" + json.dumps(content if isinstance(content, str) else content[0]["text"]))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def python() -> Path:
    return python_environment("mcp-langchain", REQUIREMENTS)


async def test_the_snippet_of_the_docs_gets_the_answer_of_a_person(
    python: Path, people: People, http_server: McpHttpServer
) -> None:
    [snippet] = re.findall(r"```python\n(from langchain_mcp_adapters.*?)```",
                           (ROOT / "docs/connect/mcp.md").read_text(), re.DOTALL)
    snippet = snippet.replace("http://127.0.0.1:8090/mcp", http_server.url).replace("attn_...", people.key)
    program = PROGRAM.format(snippet=snippet.replace("\n", "\n    "))
    process = await asyncio.create_subprocess_exec(
        str(python), "-c", program, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    async with people.web() as web:
        try:
            assert (await people.decide(web, "LangChain?", "no", comment="tomorrow")).status_code == 201
        except BaseException:
            process.kill()
            raise
        finally:
            out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    answer = json.loads(json.loads(out.decode().strip().splitlines()[-1]))
    assert (answer["status"], answer["option"], answer["comment"]) == ("answered", "no", "tomorrow")
