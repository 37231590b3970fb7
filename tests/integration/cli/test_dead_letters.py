"""`attn dead-letters` filters, counts, and retries each letter once. An exported file can be repaired and replayed."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from aiokafka import AIOKafkaProducer, ConsumerRecord
from support.kafka.pipeline import Stack, read
from support.processes.cli import attn

from schemas.dead_letters import DeadLetter
from schemas.settings import Settings
from schemas.topics import DEAD_LETTERS
from streams.kafka import topics

HOUR = 3_600_000_000


@pytest_asyncio.fixture
async def settings(stack: Stack) -> AsyncIterator[Settings]:
    async with stack() as made:
        await topics.ensure_topics(made)
        yield made


async def all_of(settings: Settings, topic: str) -> list[ConsumerRecord]:
    return [record for records in (await read(settings, topic)).values() for record in records]


def event(number: int, **changes: object) -> dict[str, object]:
    return {
        "specversion": "1.0", "id": f"e{number}", "source": "/s", "type": "waitpoint.created", "subject": f"wp{number}",
        "time": "2026-05-20T08:14:00Z", "workspaceid": "ws_01", "data": {"title": "Go?"}, **changes,
    }


async def write_letters(settings: Settings, *letters: DeadLetter) -> None:
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as producer:
        for letter in letters:
            await producer.send_and_wait(
                DEAD_LETTERS, value=letter.value, key=letter.key, headers=letter.record_headers(), partition=0)


# A retry and a replay must keep its digits and its unpaired surrogate.
EXACT = json.dumps(event(1, data={"payload": "<payload>"})).replace(
    '"<payload>"', '{"n": [1e400, 0.10, 9007199254740993, %s], "half": "\\ud83d"}' % ("7" * 5000)).encode()


def mixed(now: int) -> list[DeadLetter]:
    """Returns dead letters that differ in what the command filters by: topic, cause, reason and age."""
    return [
        DeadLetter("plans", 0, 1, "not JSON: x", now - 5 * HOUR, b"k", b"{oops", cause="json"),
        DeadLetter("plans", 1, 1, "data.title: Field required", now - 3 * HOUR, b"k", EXACT, cause="fields"),
        DeadLetter("drafts", 0, 7, "not JSON: y", now, b"\xff", b"\x00\xfe", [("ce_id", b"1"), ("n", b"\xff")], 2,
                   cause="json"),
        DeadLetter("drafts", 0, 8, "not JSON: z", now, None, b"[1,\n", cause="json"),
        DeadLetter("attn.log", 2, 3, "not a pack", now, None, b"z", cause="pack"),
    ]


async def test_dead_letters_are_filtered_retried_and_counted(settings: Settings, tmp_path: Path) -> None:
    await write_letters(settings, *mixed(time.time_ns() // 1000))

    def run(*arguments: str) -> list[dict[str, object]]:
        done = attn("dead-letters", "--json", *arguments, "--kafka", settings.kafka, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def offsets(*arguments: str) -> list[str]:
        return [str(row["dead_letter"]) for row in run(*arguments)]

    assert offsets("--topic", "plans") == ["0:0", "0:1"]
    assert offsets("--reason", "json") == ["0:0", "0:2", "0:3"]
    assert offsets("--reason", "TITLE") == ["0:1"]
    assert offsets("--since", "4h") == ["0:1", "0:2", "0:3", "0:4"]
    assert offsets("--since", "4h", "--topic", "plans") == ["0:1"]
    assert run("--retry", "--reason", "json", "--limit", "1") == [{"sent": 1, "left": 0}]
    assert run("--retry", "--topic", "plans", "--since", "4h") == [{"sent": 1, "left": 0}]
    assert run("--retry", "--topic", "plans") == [{"sent": 0, "left": 0}]
    assert offsets() == ["0:2", "0:3", "0:4"]
    assert [(row["topic"], row["cause"], row["open"], row["letters"]) for row in run("--summary")] == [
        ("drafts", "json", 2, 2), ("attn.log", "pack", 1, 1), ("plans", "fields", 0, 1), ("plans", "json", 0, 1)]
    assert run("--retry") == [{"sent": 3, "left": 0}]
    assert offsets() == []
    assert {record.value for record in await all_of(settings, "plans")} == {b"{oops", EXACT}
    assert [(record.partition, record.value) for record in await all_of(settings, "attn.log")] == [(2, b"z")]
    wrong = attn("dead-letters", "--since", "soon", "--kafka", settings.kafka, cwd=tmp_path)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert attn("dead-letters", "--retry", "--summary", "--kafka", settings.kafka, cwd=tmp_path).returncode == 2
    shown = attn("dead-letters", "--summary", "--kafka", settings.kafka, cwd=tmp_path, env={"COLUMNS": "200"})
    assert "last reason" in shown.stdout


async def test_dead_letters_are_exported_repaired_and_replayed(settings: Settings, tmp_path: Path) -> None:
    letters = mixed(time.time_ns() // 1000)
    await write_letters(settings, *letters)
    done = attn("dead-letters", "--export", "bad.jsonl", "--kafka", settings.kafka, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "wrote 4; 1 can't be sent again\n")
    again = attn("dead-letters", "--export", "bad.jsonl", "--kafka", settings.kafka, cwd=tmp_path)
    assert "cannot write bad.jsonl: File exists" in again.stderr
    lines = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert [line["reason"] for line in lines] == [letter.reason for letter in letters[:4]]
    assert lines[0]["text"] == "{oops"
    lines[0]["value"] = event(9, data={"title": "Mended"})
    del lines[0]["text"]
    (tmp_path / "bad.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    sent = attn("replay", "bad.jsonl", "--kafka", settings.kafka, cwd=tmp_path)
    assert sent.returncode == 0, sent.stderr
    assert "sent 4 events" in sent.stderr
    plans = {record.value: record for record in await all_of(settings, "plans")}
    assert set(plans) == {json.dumps(lines[0]["value"], separators=(", ", ": ")).encode(), letters[1].value}
    drafts = {record.value: (record.key, list(record.headers)) for record in await all_of(settings, "drafts")}
    assert drafts == {letter.value: (letter.key, letter.headers) for letter in letters[2:4]}
    left = attn("dead-letters", "--json", "--kafka", settings.kafka, cwd=tmp_path)
    assert [json.loads(line)["dead_letter"] for line in left.stdout.splitlines()] == ["0:4"]


async def test_a_letter_with_a_blanked_token_is_sent_again_only_when_the_token_is_filled_in(
    settings: Settings, tmp_path: Path
) -> None:
    value = json.dumps(event(3, data={"title": "Go?", "ask": {"reply": {"token": ""}}})).encode()
    await write_letters(settings, DeadLetter(
        "waitpoints", 0, 1, "data.priority: x", time.time_ns() // 1000, b"k", value, cause="fields", blanked=1))
    done = attn("dead-letters", "retry", "--kafka", settings.kafka, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "sent 0 again; 1 can't be sent again\n")
    assert "0:0 cannot be sent again: its reply token was blanked; let its source send the event again" in done.stderr
    assert await all_of(settings, "waitpoints") == []
    done = attn("dead-letters", "export", "bad.jsonl", "--kafka", settings.kafka, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "wrote 1\n")
    line = json.loads((tmp_path / "bad.jsonl").read_text())
    assert line["blanked"] == 1
    line["value"]["data"]["ask"]["reply"]["token"] = "filled in"
    (tmp_path / "bad.jsonl").write_text(json.dumps(line))
    assert attn("replay", "bad.jsonl", "--kafka", settings.kafka, cwd=tmp_path).returncode == 0
    [sent] = await all_of(settings, "waitpoints")
    assert json.loads(sent.value)["data"]["ask"] == {"reply": {"token": "filled in"}}
    left = attn("dead-letters", "list", "--json", "--kafka", settings.kafka, cwd=tmp_path)
    assert left.stdout == ""
