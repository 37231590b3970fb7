"""`attn key` against a broker and a worker."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from support.kafka.pipeline import Stack, worker
from support.processes.cli import attn, attn_here

from schemas.settings import Settings
from schemas.topics import LOG, VIEWS


async def run(settings: Settings, cwd: Path, *arguments: str) -> tuple[int, str, str]:
    done = await asyncio.to_thread(attn, "key", *arguments, "--kafka", settings.kafka, cwd=cwd)
    return done.returncode, done.stdout, done.stderr


async def everything(settings: Settings, *topics: str) -> bytes:
    """Returns keys and values of all records of the topics."""
    async with AIOKafkaConsumer(*topics, bootstrap_servers=settings.kafka, auto_offset_reset="earliest") as reader:
        read, quiet = b"", 0
        while quiet < 3:
            batches = await reader.getmany(timeout_ms=300)
            quiet = 0 if batches else quiet + 1
            read += b"".join(
                (record.key or b"") + (record.value or b"") for batch in batches.values() for record in batch)
        return read


async def test_a_key_is_created_listed_and_revoked(stack: Stack, tmp_path: Path) -> None:
    async with stack() as settings, worker(settings):
        created = await run(settings, tmp_path, "create", "--workspace", "w1", "--name", "CI \x1b[1m", "--topics",
                            "waitpoints, messages", "--source", "/ci", "--expires", "90d")
        assert created[0] == 0, created
        key = created[1].strip()
        assert re.fullmatch(r"attn_[0-9A-Za-z]{16}_[0-9A-Za-z]{49}", key)
        code, listed, _ = await run(settings, tmp_path, "list", "--workspace", "w1")
        assert code == 0
        [line] = listed.splitlines()
        assert line.startswith(f"{key[5:21]}  messages,waitpoints  /ci  expires 20")
        assert line.endswith("  not used  CI ?[1m")
        assert (await run(settings, tmp_path, "list", "--workspace", "w2"))[1] == ""
        stored = await everything(settings, LOG, VIEWS)
        assert key[5:21].encode() in stored
        assert key[22:].encode() not in stored
        other = await run(settings, tmp_path, "revoke", key[5:21], "--workspace", "w2")
        assert (other[0], "no key" in other[2]) == (1, True)
        revoked = await run(settings, tmp_path, "revoke", key[5:21], "--workspace", "w1")
        assert revoked == (0, "", f"revoked {key[5:21]}\n")
        assert (await run(settings, tmp_path, "list", "--workspace", "w1"))[1] == ""


GOOD = {"--workspace": "w", "--name": "n", "--topics": "plans"}


@pytest.mark.parametrize("wrong", [
    {"--topics": "attn.log"}, {"--topics": ","}, {"--name": " "}, {"--workspace": ""}, {"--source": ""},
    {"--expires": "soon"}, {"--expires": "2020-01-01T00:00:00Z"}, {"--name": "x" * 201},
])
def test_wrong_options_are_named(wrong: dict[str, str], capsys: Any) -> None:
    arguments = [part for option in (GOOD | wrong).items() for part in option]
    assert attn_here("key", "create", *arguments, "--kafka", "127.0.0.1:9") == 2
    assert next(iter(wrong)) in capsys.readouterr().err
