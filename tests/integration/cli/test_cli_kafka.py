"""`attn emit`, `attn replay` and `attn dead-letters` against a broker."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from support.kafka.pipeline import Stack
from support.processes.cli import attn

from ops.process.ports import free_port
from schemas.dead_letters import DeadLetter
from schemas.scalars import parse_timestamp
from schemas.topics import DEAD_LETTERS


@pytest_asyncio.fixture
async def kafka(stack: Stack, tmp_path: Path) -> AsyncIterator[str]:
    """The address of a broker with empty topics of attn: the tests count all records."""
    async with stack() as settings:
        done = attn("topics", "--kafka", settings.kafka, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        yield settings.kafka


def event(number: int, **changes: object) -> dict[str, object]:
    return {
        "specversion": "1.0", "id": f"e{number}", "source": "/s", "type": "waitpoint.created", "subject": f"wp{number}",
        "time": f"2026-05-20T08:14:{number % 60:02}Z", "workspaceid": f"ws_{number % 3}", "data": {"title": "Go?"},
        **changes,
    }


async def all_of(bootstrap: str, topic: str, count: int, patience: float = 10) -> list[ConsumerRecord]:
    """Returns all records of the topic. Waits at most `patience` seconds until there are `count`."""
    records: list[ConsumerRecord] = []
    async with AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        until = time.monotonic() + patience
        while len(records) < count and time.monotonic() < until:
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                records += batch
        for batch in (await consumer.getmany(timeout_ms=300)).values():  # records beyond `count`, if any
            records += batch
    return records


async def test_emit_sends_the_bytes_with_the_workspace_as_key(kafka: str, tmp_path: Path) -> None:
    lines = [json.dumps(event(number)) for number in range(30)]
    done = attn("emit", "waitpoints", "--kafka", kafka, cwd=tmp_path, stdin="\n\n".join(lines))
    assert (done.returncode, done.stderr) == (0, "sent 30 to waitpoints\n")
    records = await all_of(kafka, "waitpoints", 30)
    assert {record.value.decode() for record in records} == set(lines)
    assert all(json.loads(record.value)["workspaceid"].encode() == record.key for record in records)


async def test_emit_with_bad_lines(kafka: str, tmp_path: Path) -> None:
    text = "\n".join([json.dumps(event(1)), "{oops", json.dumps(event(2))])
    refused = attn("emit", "waitpoints", "-", "--kafka", kafka, cwd=tmp_path, stdin=text)
    assert refused.returncode == 1
    assert "line 2: not JSON" in refused.stderr
    assert await all_of(kafka, "waitpoints", 1, patience=0) == []
    skipped = attn("emit", "waitpoints", "--skip-bad", "--kafka", kafka, cwd=tmp_path, stdin=text)
    assert skipped.returncode == 1
    assert "sent 2 to waitpoints; left out 1" in skipped.stderr
    forced = attn("emit", "waitpoints", "--force", "--kafka", kafka, cwd=tmp_path, stdin=text)
    assert (forced.returncode, forced.stderr) == (0, "sent 3 to waitpoints\n")
    assert len(await all_of(kafka, "waitpoints", 5)) == 5


async def test_replay_shifts_times_keeps_order_and_rate(kafka: str, tmp_path: Path) -> None:
    values = [event(number, data={"title": "Go?", "due_at": "2026-05-20T09:00:00Z"}) for number in range(40)]
    packed = gzip.compress("\n".join(
        json.dumps({"topic": "waitpoints", "key": "k", "value": value}) for value in values).encode())
    (tmp_path / "r.jsonl.gz").write_bytes(packed)
    begun = time.time_ns() // 1000
    done = attn("replay", "r.jsonl.gz", "--retime", "--rate", "40", "--kafka", kafka, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    took = float(done.stderr.split(" s (")[0].rsplit(" ", 1)[1])
    assert 0.9 <= took < 5
    records = [json.loads(record.value) for record in await all_of(kafka, "waitpoints", 40)]
    assert [value["id"] for value in records] == [f"e{number}" for number in range(40)]
    last = parse_timestamp(records[-1]["time"])
    assert begun <= last <= time.time_ns() // 1000
    assert last - parse_timestamp(records[0]["time"]) == 39_000_000
    assert parse_timestamp(records[0]["data"]["due_at"]) - parse_timestamp(records[0]["time"]) == 46 * 60 * 1_000_000


async def test_dead_letters_are_listed_and_sent_again_once(kafka: str, tmp_path: Path) -> None:
    def letter(offset: int, value: bytes, **more: object) -> DeadLetter:
        given = {
            "topic": "plans", "partition": 1, "offset": offset, "reason": "[b]not[/b] JSON",
            "at": 1_800_000_000_000_000,
            "value": value, "key": b"k", "headers": [("own", b"1")],
        }
        return DeadLetter(**{**given, **more})

    letters = [
        letter(1, b"{oops"), letter(2, b"\xff\x00"), letter(3, b"cut", size=1000), letter(4, b"x", topic="attn.facts"),
    ]
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        for each in letters:
            await producer.send_and_wait(
                DEAD_LETTERS, value=each.value, key=each.key, headers=each.record_headers(), partition=0)

    listed = attn("dead-letters", "--kafka", kafka, cwd=tmp_path, env={"COLUMNS": "200"})
    assert listed.returncode == 0, listed.stderr
    assert "4 of 4 dead letters" in listed.stdout
    assert "[b]not[/b] JSON" in listed.stdout
    rows = [json.loads(line) for line in attn(
        "dead-letters", "--json", "--limit", "3", "--kafka", kafka, cwd=tmp_path).stdout.splitlines()]
    assert [row["offset"] for row in rows] == [2, 3, 4]
    assert rows[0]["value_base64"] == "/wA="
    assert [row["truncated"] for row in rows] == [False, True, False]
    assert not any(row["retried"] for row in rows)

    first = attn("dead-letters", "--retry", "--limit", "1", "--kafka", kafka, cwd=tmp_path)
    assert (first.returncode, first.stdout) == (0, "sent 1 again\n"), first.stderr
    second = attn("dead-letters", "--retry", "--kafka", kafka, cwd=tmp_path)
    assert second.stdout == "sent 1 again; 2 can't be sent again\n"
    third = attn("dead-letters", "--retry", "--json", "--kafka", kafka, cwd=tmp_path)
    assert json.loads(third.stdout) == {"sent": 0, "left": 2}
    records = await all_of(kafka, "plans", 2)
    assert sorted((record.value, record.key, record.headers) for record in records) == [
        (b"{oops", b"k", (("own", b"1"),)), (b"\xff\x00", b"k", (("own", b"1"),))]
    open_, all_ = (
        [json.loads(line) for line in attn("dead-letters", "--json", *more, "--kafka", kafka, cwd=tmp_path)
            .stdout.splitlines()] for more in ([], ["--all"]))
    assert [(row["offset"], row["retried"]) for row in open_] == [(3, False), (4, False)]
    assert [(row["offset"], row["retried"]) for row in all_] == [(1, True), (2, True), (3, False), (4, False)]


async def test_missing_topics_are_reported_and_not_created(stack: Stack, tmp_path: Path) -> None:
    async with stack() as settings:
        done = attn("emit", "plans", "--force", "--kafka", settings.kafka, cwd=tmp_path, stdin="x")
        assert done.returncode == 1
        assert "no topic plans at" in done.stderr
        assert "`attn topics` creates" in done.stderr
        listed = attn("dead-letters", "--kafka", settings.kafka, cwd=tmp_path)
        assert listed.returncode == 1
        assert "no topic dead-letters" in listed.stderr


@pytest.mark.parametrize("arguments", [["emit", "plans", "--force"], ["dead-letters"], ["dead-letters", "--retry"]])
def test_an_unreachable_kafka_is_one_error_line(arguments: list[str], tmp_path: Path) -> None:
    done = attn(*arguments, "--kafka", f"127.0.0.1:{free_port()}", cwd=tmp_path, stdin="x")
    assert done.returncode == 1
    assert "attn: no Kafka at 127.0.0.1" in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
