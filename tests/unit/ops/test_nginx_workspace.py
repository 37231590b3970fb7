"""nginx derives the workspace of a request from its token, or for a session from query, header or cookie."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.edge.edges import token

from schemas.topics import partition_of

NODE = shutil.which("node")
SCRIPT = Path(__file__).parents[3] / "ops" / "deploy" / "nginx" / "workspace.js"
SESSION = "attns_0123456789abcdef_" + "x" * 49
pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")


def workspace_of(headers: dict[str, str], **arguments: str) -> list[Any]:
    request = json.dumps({"headersIn": headers, "args": arguments, "remoteAddress": "192.0.2.1"})
    done = subprocess.run(
        [str(NODE), "--input-type=module", "-e",
         f"const {{ default: attn }} = await import('data:text/javascript,' + encodeURIComponent("
         f"(await import('node:fs')).readFileSync({json.dumps(str(SCRIPT))}, 'utf8')));"
         f"const r = {request}; console.log(JSON.stringify([attn.workspace(r), attn.reader(r)]))"],
        capture_output=True, text=True, check=True)
    answer: list[Any] = json.loads(done.stdout)
    return answer


def test_the_workspace_of_a_request() -> None:
    jwt = token("ann", "OWNER", ws="w1")
    cookie = f"attn_session={SESSION}; attn_workspace=w%202"
    assert workspace_of({"Authorization": f"Bearer {jwt}"}) == ["w1", "w1/ann"]
    assert workspace_of({"Cookie": f"attn_session={jwt}; attn_workspace=other"}) == ["w1", "w1/ann"]
    assert workspace_of({"Cookie": cookie}) == ["w 2", SESSION[:22]]
    assert workspace_of({"Cookie": cookie, "X-Attn-Workspace": "w%203"})[0] == "w 3"
    assert workspace_of({"Cookie": cookie, "X-Attn-Workspace": "w3"}, workspace="w 4%")[0] == "w 4%"
    assert workspace_of({"Cookie": f"attn_session={SESSION}; attn_workspace=%"})[0] == "192.0.2.1"
    assert workspace_of({"Cookie": f"attn_session={SESSION}"})[0] == "192.0.2.1"
    assert workspace_of({}) == ["192.0.2.1", "192.0.2.1"]


def ranges_of(names: list[str], partitions: int, ranges: str, named: str) -> tuple[list[str], str]:
    """Returns the upstream of each workspace, and that of the partition `named` by an edge."""
    requests = json.dumps([{
        "headersIn": {"Authorization": f"Bearer {token('ann', 'OWNER', ws=name)}"}, "args": {}, "remoteAddress": "x",
        "variables": {"attn_partitions": str(partitions), "attn_ranges": ranges, "attn_partition": named},
    } for name in names])
    done = subprocess.run(
        [str(NODE), "--input-type=module", "-e",
         f"const {{ default: attn }} = await import('data:text/javascript,' + encodeURIComponent("
         f"(await import('node:fs')).readFileSync({json.dumps(str(SCRIPT))}, 'utf8')));"
         f"const all = {requests}; console.log(JSON.stringify([all.map(attn.range), attn.owner(all[0])]))"],
        capture_output=True, text=True, check=True)
    found, owner = json.loads(done.stdout)
    return found, owner


def test_the_range_of_a_workspace_is_that_of_its_partition() -> None:
    names = [f"ws_{number}" for number in range(200)] + ["w", "", "wä", "workspace 😀", "x" * 300]
    every = ", ".join(f"{number}-{number}=p{number}" for number in range(7))
    found, owner = ranges_of([name or "-" for name in names], 7, every, "5")
    assert found == [f"p{partition_of(name or '-', 7)}" for name in names]
    assert owner == "p5"
    found, _ = ranges_of(names[:50], 7, "0-2=low, 3-6=high", "")
    assert found == ["low" if partition_of(name, 7) < 3 else "high" for name in names[:50]]


def test_a_socket_without_a_token_names_its_workspace_in_the_query() -> None:
    assert workspace_of({}, workspace="w1")[0] == "w1"
