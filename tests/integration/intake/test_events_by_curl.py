"""POST /events against a broker. curl is the client; librdkafka reads the topics."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Consumer
from support.edge.edge_on_broker import edge
from support.edge.edges import SECRET, token
from support.kafka.pipeline import eventually, kill, look, stack, worker
from support.processes import fork_server
from support.processes.fork_server import Forked

from ops.embedded.broker import EmbeddedBroker
from ops.kafka import Cluster
from ops.process.ports import free_port
from schemas.facts import Fact
from schemas.settings import Settings
from streams.kafka import topics

WS = "ws_curl"
EDGE_PROCESS = Path(fork_server.__file__).with_name("edge_process.py")

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")


class Answer(NamedTuple):
    """The output of curl. `code`: its exit code."""

    code: int
    status: int
    headers: str
    body: str

    def json(self) -> Any:
        return json.loads(self.body)


async def curl(*arguments: str, stdin: bytes = b"") -> Answer:
    process = await asyncio.create_subprocess_exec(
        "curl", "--silent", "--show-error", "--max-time", "60", "--noproxy", "*", "--include", *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    out, _ = await process.communicate(stdin)
    head, _, body = out.decode().replace("HTTP/1.1 100 Continue\r\n\r\n", "").partition("\r\n\r\n")
    return Answer(process.returncode or 0, int(head.split()[1]) if head else 0, head.lower(), body)


async def post(base: str, secret: str, content: bytes, *arguments: str) -> Answer:
    return await curl(base + "/events", "--data-binary", "@-", "--header", f"Authorization: Bearer {secret}",
                      *arguments, stdin=content)


STRUCTURED = ("--header", "Content-Type: application/cloudevents+json")
BATCH = ("--header", "Content-Type: application/cloudevents-batch+json")


def owner() -> str:
    return token("ann", "OWNER", WS)


async def make_key(base: str, **more: Any) -> dict[str, Any]:
    """Creates a key with curl, once a worker has started."""
    body = json.dumps({"name": "curl", "topics": ["waitpoints", "messages"]} | more)

    async def made() -> Any:
        answer = await curl(base + "/org/me/keys", "--json", body, "--header", f"Authorization: Bearer {owner()}")
        return answer.json() if answer.status == 201 else None

    return dict(await eventually(made, "the edge creates a key"))


def event(subject: str, kind: str = "waitpoint.created", **changes: Any) -> dict[str, Any]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"specversion": "1.0", "id": f"e-{subject}", "source": "/curl", "type": kind, "subject": subject,
            "time": now, "workspaceid": WS, "data": {"title": f"Title of {subject}"}} | changes


def records(settings: Settings, topic: str, enough: Callable[[int], bool] = lambda count: count > 0) -> list[Any]:
    """Reads a topic with librdkafka. Returns the records once `enough(count)` is true and 10 reads brought none."""
    reader = Consumer({
        "bootstrap.servers": settings.kafka, "group.id": f"reader-{os.getpid()}-{topic}",
        "auto.offset.reset": "earliest", "enable.auto.commit": False})
    reader.subscribe([topic])
    messages: list[Any] = []
    quiet = 0
    try:
        while quiet < 10 or not enough(len(messages)):
            message = reader.poll(0.5)
            quiet = quiet + 1 if message is None else 0
            if message is not None and message.error() is None:
                messages.append(message)
            assert quiet < 120, f"{len(messages)} records in {topic}"
    finally:
        reader.close()
    return messages


async def shown(base: str) -> dict[str, Any]:
    answer = await curl(base + "/api/v1/inbox", "--header", f"Authorization: Bearer {owner()}")
    return {row["source_id"]: row for row in answer.json()["rows"]}


async def test_three_modes_by_curl_arrive_as_they_were_sent(tmp_path: Path) -> None:
    async with stack(tmp_path) as settings, worker(settings), edge(settings, write_seconds=30) as base:
        secret = (await make_key(base))["secret"]
        structured = json.dumps(event("structured", data={"title": "T", "payload": {"n": 10**30}}), indent=1).encode()
        assert (await post(base, secret, structured, *STRUCTURED)).status == 202
        batch = [json.dumps(event(f"batch-{number}"), indent=number).encode() for number in range(3)]
        packed = gzip.compress(b"[" + b" , ".join(batch) + b"]")
        answer = await post(base, secret, packed, *BATCH, "--header", "Content-Encoding: gzip")
        assert (answer.status, answer.json()) == (202, {"accepted": 3, "rejected": []})
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        attributes = {"specversion": "1.0", "id": "b%201", "source": "/curl", "type": "message.posted",
                      "subject": "bin%C3%A4r", "time": now}
        headers = [part for name, value in attributes.items() for part in ("--header", f"ce-{name}: {value}")]
        data = b'{"title": "binary"}'
        assert (await post(base, secret, data, "--header", "Content-Type: application/json", *headers)).status == 202
        large = json.dumps(event("large", data={"title": "T", "payload": {"x": "y" * 60_000}})).encode()
        assert (await post(base, secret, b"[" + b",".join([large] * 20) + b"]", *BATCH)).json()["accepted"] == 20

        async def all_shown() -> Any:
            return await shown(base) if len(await shown(base)) >= 6 else None

        rows = await eventually(all_shown, "the inbox has six items")
        assert set(rows) == {"structured", "batch-0", "batch-1", "batch-2", "binär", "large"}
        sent = await asyncio.to_thread(records, settings, "waitpoints", lambda count: count >= 24)
        assert [record.value() for record in sent[:4]] == [structured, *batch]
        assert {record.key() for record in sent} == {WS.encode()}
        assert len({record.partition() for record in sent}) == 1, "events of a workspace are in several partitions"
        [binary] = await asyncio.to_thread(records, settings, "messages")
        assert (binary.value(), dict(binary.headers())["ce_subject"]) == (data, "binär".encode())
        assert dict(binary.headers())["ce_workspaceid"] == WS.encode()
        seen = await look(settings)
        assert not seen.letters, "the worker rejected an event that the edge accepted"
        opened = [fact for fact in seen.unique_facts() if isinstance(fact, Fact) and fact.opened]
        assert len(opened) == 6


@asynccontextmanager
async def edge_process(settings: Settings, *arguments: str) -> AsyncIterator[tuple[str, Forked]]:
    """Runs an edge as a process. Yields its address once it is ready."""
    port = free_port()
    given = settings.model_dump(include=settings.model_fields_set, mode="json") | {"port": port, "jwt_secret": SECRET}
    process = fork_server.start(
        [str(EDGE_PROCESS), *arguments],
        env=os.environ | {f"ATTN_{name.upper()}": str(value) for name, value in given.items()})
    base = f"http://127.0.0.1:{port}"

    async def ready() -> bool:
        assert process.poll() is None, "the edge has exited"
        return (await curl(base + "/readyz")).status == 200

    try:
        await eventually(ready, "the edge is ready")
        yield base, process
    finally:
        kill(process)


async def test_an_edge_that_dies_before_it_answers_loses_and_repeats_nothing(tmp_path: Path) -> None:
    async with stack(tmp_path) as settings, worker(settings):
        text = json.dumps(event("w")).encode()
        async with edge_process(settings, "acknowledged") as (base, process):
            secret = (await make_key(base))["secret"]
            answer = await post(base, secret, text, *STRUCTURED)
            assert (answer.code, answer.status) == (52, 0), "curl: empty reply from server"
            assert process.wait(90) != 0
        async with edge_process(settings) as (base, _):
            for _ in range(2):  # the client got no answer, so it sends the event again
                assert (await post(base, secret, text, *STRUCTURED)).status == 202
            sent = await asyncio.to_thread(records, settings, "waitpoints", lambda count: count >= 3)
            assert [record.value() for record in sent] == [text] * 3

            async def there() -> Any:
                return await shown(base)

            assert set(await eventually(there, "the inbox has the item")) == {"w"}
            seen = await look(settings)
            facts = [fact.type for fact in seen.unique_facts() if isinstance(fact, Fact)]
            assert facts.count("waitpoint.created") == 1


async def test_a_revoked_key_is_refused_by_two_edges(tmp_path: Path) -> None:
    async with stack(tmp_path) as settings, worker(settings), AsyncExitStack() as edges:
        first, second = [await edges.enter_async_context(edge(settings, write_seconds=30)) for _ in range(2)]
        made = await make_key(first)

        async def status(base: str) -> int:
            return (await post(base, made["secret"], json.dumps(event("w")).encode(), *STRUCTURED)).status

        async def statuses_are(wanted: int) -> bool:
            return [await status(first), await status(second)] == [wanted, wanted]

        await eventually(lambda: statuses_are(202), "both edges know the key")
        answer = await curl(f"{first}/org/me/keys/{made['key']['id']}", "--request", "DELETE",
                            "--header", f"Authorization: Bearer {owner()}")
        assert answer.status == 200
        assert await status(first) == 401, "the edge that revoked the key must refuse it at once"
        await eventually(lambda: statuses_are(401), "both edges refuse the key")


async def test_without_kafka_the_answer_is_503_and_then_it_works_again(own_broker: EmbeddedBroker | Cluster) -> None:
    broker: Any = own_broker
    settings = Settings(_env_file=None, kafka=broker.bootstrap, log_partitions=2, source_partitions=2)
    await topics.ensure_topics(settings)
    async with edge(settings, event_seconds=2) as base:
        assert (await post(base, owner(), json.dumps(event("before")).encode(), *STRUCTURED)).status == 202
        await broker.stop()
        text = json.dumps(event("during")).encode()
        answer = await post(base, owner(), text, *STRUCTURED)
        assert answer.status == 503, answer
        assert "\r\nretry-after: 1" in answer.headers
        await broker.start()

        async def accepted() -> bool:
            return (await post(base, owner(), text, *STRUCTURED)).status == 202

        await eventually(accepted, "the edge accepts events again", 180)
    sent = await asyncio.to_thread(records, settings, "waitpoints", lambda count: count >= 2)
    assert {json.loads(record.value())["subject"] for record in sent} == {"before", "during"}
