"""Commands and the supervisor while Kafka is down, does not answer, is another service, or refuses writes. A command
ends in bounded time with an exit code and one error line, which names the progress so far.
"""

from __future__ import annotations

import ast
import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.kafka import brokers
from support.kafka.pipeline import Stack, count, eventually, read
from support.processes.cli import COMMAND, attn, attn_here, clean_env

from ops.cli.data import kafka as clients
from ops.process.ports import free_port
from ops.process.supervisor import RestartPolicy, SupervisedProcess
from schemas.settings import Settings
from streams.kafka import topics
from streams.kafka.diagnostics import order_by_reachability

ROOT = Path(__file__).parents[3]


def line(number: int) -> str:
    return json.dumps({"topic": "waitpoints", "key": "ws", "value": {
        "specversion": "1.0", "id": f"e{number}", "source": "/s", "type": "waitpoint.created",
        "subject": f"wp{number}", "time": "2026-05-20T08:14:22Z", "workspaceid": "ws", "data": {"title": "Go?"},
    }})


def recording(tmp_path: Path, size: int) -> Path:
    """Writes a recording with an event on every other line, and empty lines between. Returns its path."""
    path = tmp_path / "recording.jsonl"
    path.write_text("".join(line(number) + "\n\n" for number in range(size)))
    return path


@asynccontextmanager
async def address_of(kind: str) -> AsyncIterator[str]:
    """Yields an address. `kind`: "closed" (nothing listens), "silent" (accepts connections and never answers), or "web"
    (answers as a web server)."""
    port = free_port()
    if kind == "closed":
        yield f"127.0.0.1:{port}"
        return

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(1)
            if kind == "web":
                writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
                await writer.drain()
            await reader.read()
        finally:
            writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", port):
        yield f"127.0.0.1:{port}"


@pytest.mark.parametrize("kind", ["closed", "silent", "web"])
async def test_commands_report_an_unreachable_kafka(tmp_path: Path, kind: str) -> None:
    path = str(recording(tmp_path, 1))
    event = json.dumps(json.loads(line(1))["value"])
    calls: tuple[tuple[tuple[str, ...], str], ...] = (
        (("emit", "waitpoints", "-"), event), (("replay", path), ""), (("topics",), ""), (("dead-letters",), ""),
        (("dead-letters", "--retry"), ""),
    )
    async with address_of(kind) as address:
        ends = await asyncio.gather(*(  # concurrently: each command takes until its time limit
            asyncio.to_thread(attn, *arguments, "--kafka", address, cwd=tmp_path, stdin=stdin)
            for arguments, stdin in calls))
        for (arguments, _), done in zip(calls, ends, strict=True):
            assert done.returncode == 1, arguments
            assert done.stderr.startswith("attn: no Kafka"), (arguments, done.stderr)
            assert address in done.stderr
            assert done.stderr.count("\n") == 1, (arguments, done.stderr)


@pytest.mark.kafka
async def test_more_replicas_than_brokers(real_kafka: str, tmp_path: Path) -> None:
    wanted = {"ATTN_REPLICATION": "3"}
    refused = await asyncio.to_thread(attn, "topics", "--kafka", real_kafka, cwd=tmp_path, env=wanted)
    assert refused.returncode == 1
    assert "InvalidReplicationFactor" in refused.stderr
    assert "ATTN_REPLICATION is 3" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert (await asyncio.to_thread(attn, "topics", "--kafka", real_kafka, cwd=tmp_path)).returncode == 0
    fewer = await asyncio.to_thread(attn, "topics", "--kafka", real_kafka, cwd=tmp_path, env=wanted)
    assert fewer.returncode == 0
    assert "topics with fewer replicas than ATTN_REPLICATION=3: actions (1)," in fewer.stderr


@pytest.mark.kafka
@pytest.mark.timeout(180)
async def test_a_replay_ended_by_a_broker_failure_continues_at_the_reported_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recording(tmp_path, 400)
    async with brokers.cluster(tmp_path, 1) as kafka:
        settings = Settings(_env_file=None, kafka=kafka.bootstrap, log_partitions=1, source_partitions=1)
        await topics.ensure_topics(settings)
        monkeypatch.setattr(clients, "_PATIENCE", 4.0)
        monkeypatch.setattr(clients, "_CLOSE", 0.5)
        replay = asyncio.create_task(asyncio.to_thread(
            attn_here, "replay", str(path), "--rate", "100", "--kafka", kafka.bootstrap))
        await eventually(lambda: _has_records(settings, 50), "the topic has 50 records")
        kafka.kill()
        assert await replay == 1
        errors = capsys.readouterr().err
        assert f"attn: no Kafka broker answers at {kafka.bootstrap}; " in errors
        acknowledged = int(errors.partition("; ")[2].split()[0])
        again = int(errors.partition("go on at line ")[2].split()[0])
        assert again == 2 * acknowledged + 1, errors
        assert acknowledged >= 50
        await kafka.start()
        rest = b"".join(path.read_bytes().splitlines(keepends=True)[again - 1:])
        done = await asyncio.to_thread(attn, "replay", "-", "--kafka", kafka.bootstrap, cwd=tmp_path, stdin=rest)
        assert done.returncode == 0, done.stderr
        event_ids = {json.loads(record.value)["id"] for records in (await read(settings, "waitpoints")).values()
                     for record in records}
        assert event_ids == {f"e{number}" for number in range(400)}


async def _has_records(settings: Settings, number: int) -> bool:
    return await count(settings, "waitpoints") >= number


@brokers.EMBEDDED_ONLY
async def test_an_interrupted_replay_reports_where_it_stopped(stack: Stack, tmp_path: Path) -> None:
    async with stack() as settings:
        await topics.ensure_topics(settings)
        process = subprocess.Popen(
            [*COMMAND, "replay", str(recording(tmp_path, 5000)), "--rate", "50", "--kafka", settings.kafka],
            env=clean_env(), cwd=tmp_path, stderr=subprocess.PIPE)
        try:
            await eventually(lambda: _has_records(settings, 20), "the topic has 20 records")
            process.send_signal(signal.SIGINT)
            _, errors = await asyncio.to_thread(process.communicate, timeout=90)
        finally:
            process.kill()
            process.wait()
        assert process.returncode == 130
        assert errors.startswith(b"attn: interrupted; ")
        assert int(errors.split()[2]) == await count(settings, "waitpoints")
        assert errors.count(b"\n") == 1


async def test_a_role_without_kafka_is_restarted_without_a_limit(tmp_path: Path) -> None:
    """A role exits with 75 when Kafka does not answer. The supervisor restarts it without a limit. It gives up after
    some exits with another code."""
    for code, gives_up in ((os.EX_TEMPFAIL, False), (1, True)):
        starts: list[str] = []
        part = SupervisedProcess(
            "part", [sys.executable, "-IS", "-c", f"print('started', flush=True); raise SystemExit({code})"], {},
            tmp_path, lambda _, line, starts=starts: starts.append(line),
            RestartPolicy(initial_delay=0.01, max_delay=0.01))
        keeping = asyncio.create_task(part.run_forever())
        await eventually(
            lambda keeping=keeping, starts=starts: keeping.done() or len(starts) > 12, "12 restarts, or giving up")
        assert keeping.done() is gives_up
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await part.stop(5.0)


def test_every_producer_of_attn_is_idempotent_and_waits_for_all_replicas() -> None:
    producers = 0
    for path in [*ROOT.glob("streams/**/*.py"), *ROOT.glob("api/**/*.py"),
                 *ROOT.glob("ops/**/*.py"), *ROOT.glob("tests/chaos/**/*.py")]:
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "AIOKafkaProducer":
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
                # A transactional producer always has both; it accepts no other values.
                safe = given.get("acks") == "'all'" and given.get("enable_idempotence") == "True"
                assert safe or "transactional_id" in given, path
                producers += 1
    assert producers >= 4


@brokers.EMBEDDED_ONLY
async def test_reachable_brokers_are_listed_before_unreachable_ones(stack: Stack) -> None:
    async with stack() as settings, address_of("silent") as silent, address_of("closed") as closed:
        assert await order_by_reachability(settings.model_copy(
            update={"kafka": f"{silent}, {closed},{settings.kafka}"})) == f"{settings.kafka},{silent},{closed}"
        assert await order_by_reachability(settings.model_copy(update={"kafka": silent})) == silent
