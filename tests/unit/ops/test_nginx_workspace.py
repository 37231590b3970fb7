"""nginx derives the workspace of a request from its token, or for a session from query, header or cookie."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.edge.edges import token

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
