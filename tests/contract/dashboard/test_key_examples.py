"""The curl examples of the dashboard's card of keys: the edge accepts the event of each topic, and it opens an item."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from support.edge.edge_with_fold import Deciding
from support.edge.topic_writer import TopicWriter

from schemas.scalars import format_timestamp
from schemas.topics import SOURCE_TYPES

MODULE = Path(__file__).parents[3] / "api" / "static" / "attn" / "keys" / "key_form.js"
NODE = shutil.which("node")


def lines(secret: str, now: str) -> dict[str, str]:
    """Returns the curl line of each topic that the form offers."""
    assert NODE is not None
    script = f"""import {{ curlLine, TOPICS }} from {json.dumps(MODULE.as_uri())};
      const line = (topic) => curlLine("http://attn", {json.dumps(secret)}, {{ id: topic, topics: [topic] }},
        Date.parse({json.dumps(now)}));
      console.log(JSON.stringify(Object.fromEntries(Object.keys(TOPICS).map((topic) => [topic, line(topic)]))));"""
    done = subprocess.run([NODE, "--input-type=module", "-e", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    result: dict[str, str] = json.loads(done.stdout)
    return result


@pytest.mark.skipif(NODE is None, reason="node is not installed")
async def test_each_line_opens_an_item() -> None:
    attn = Deciding()
    TopicWriter(attn)
    async with attn.client("ann", "OWNER") as client:
        made = await client.post("/org/me/keys", json={"name": "CI", "topics": list(SOURCE_TYPES)})
    commands = lines(made.json()["secret"], format_timestamp(int(attn.now * 1_000_000)))
    assert set(commands) == set(SOURCE_TYPES)
    for topic, command in commands.items():
        curl, _, url, *options, body = shlex.split(command)
        assert (curl, url, options[-1]) == ("curl", "http://attn/events", "-d")
        headers = dict(value.split(": ", 1) for value in options[1::2])
        async with attn.client(headers=headers) as client:
            answer = await client.post("/events", content=body)
        assert (answer.status_code, answer.json()) == (202, {"accepted": 1, "rejected": []}), topic
    async with attn.client("ann", "OWNER") as client:
        rows = (await client.get("/api/v1/inbox")).json()["rows"]
    assert {row["source_id"] for row in rows} == {f"first-{topic}" for topic in SOURCE_TYPES}
