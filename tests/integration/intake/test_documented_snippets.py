"""Runs the commands of docs/connect/http.md unchanged against a broker, a worker and an edge."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.edge.edge_on_broker import edge
from support.edge.edges import bearer
from support.kafka.pipeline import eventually, look, stack, worker

ROOT = next(path for path in Path(__file__).parents if (path / "pyproject.toml").exists())
ADDRESS = "http://127.0.0.1:8080"

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")


def snippets() -> list[str]:
    return re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "connect" / "http.md").read_text(), re.DOTALL)


async def bash(script: str, cwd: Path, **env: str) -> str:
    """Runs a script with `attn` of this environment. Returns what it printed."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    process = await asyncio.create_subprocess_exec(
        "bash", "-euo", "pipefail", "-c", script, cwd=cwd, env=os.environ | env | {"PATH": path, "NO_PROXY": "*"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return out.decode()


async def test_the_first_event_by_curl(tmp_path: Path) -> None:
    create, ask, applied, waits = snippets()
    async with stack(tmp_path) as settings, worker(settings), edge(settings, write_seconds=30) as base:
        assert base not in ask
        assert ADDRESS in ask
        key = (await bash(f"{create}\necho $KEY", tmp_path, ATTN_KAFKA=settings.kafka)).strip()
        sent = await bash(ask.replace(ADDRESS, base), tmp_path, KEY=key)
        assert "202 Accepted" in sent
        assert '{"accepted":1,"rejected":[]}' in sent
        async with httpx.AsyncClient(base_url=base, headers=bearer("ann", "OWNER", "ws_01")) as client:
            async def asked() -> Any:
                return (await client.get("/api/v1/inbox")).json()["rows"]

            [row] = await eventually(asked, "the inbox has the item")
            assert [option["id"] for option in row["ask"]["options"]] == ["go", "stop"]
            vote = {"option": "go", "digest": row["digest"]}
            assert (await client.post(f"/api/v1/inbox/{row['id']}/decision", json=vote)).status_code == 201
            out = await bash(applied.replace(ADDRESS, base), tmp_path, KEY=key)
            decisions, end = json.JSONDecoder().raw_decode(out)
            assert [(entry["source_id"], entry["option"]) for entry in decisions["decisions"]] == [("wp_1", "go")]
            assert "202 Accepted" in out[end:]

            async def is_applied() -> bool:
                item = (await client.get(f"/api/v1/inbox/{row['id']}")).json()
                return bool(item["decision"]["state"] == "applied")

            await eventually(is_applied, "the decision is applied")
            answer = await bash(waits.replace(ADDRESS, base), tmp_path, KEY=key)
            assert "200 OK" in answer, "the tag in the example must not equal the tag of a response"
            assert "etag: " in answer.lower()
        assert not (await look(settings)).letters
