"""A vote of a user reaches the receiver, and its response reaches attn, with a real worker and `attn deliver`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from pydantic import SecretStr
from standardwebhooks.webhooks import Webhook
from support.delivery.receiver import Answer, Post, Receiver, answer, receiver
from support.delivery.records import HMAC_SECRET, decision, deliver, endpoints_file, send_decisions
from support.kafka.brokers import EMBEDDED_ONLY
from support.kafka.pipeline import Stack, eventually, look, read, send, worker
from support.processes.cli import attn

from schemas.asking.question import DecisionRow
from schemas.log import Decide, TakeBack
from schemas.scalars import SECOND, format_timestamp
from schemas.settings import Settings
from schemas.topics import DECISIONS, LOG, TOPICS
from schemas.views import ItemRow, decode_row
from streams.core.packs import Packer
from streams.kafka.topics import ensure_topics

pytestmark = pytest.mark.timeout(180)
TOKEN = "reply-token-4711-of-the-source"
UNDO = 1.0


@contextlib.asynccontextmanager
async def running(
    stack: Stack, tmp_path: Path, choose: Callable[[Post], Answer] | None = None
) -> AsyncIterator[tuple[Settings, Receiver]]:
    path = tmp_path / "endpoints.toml"
    given = {"endpoints": path, "undo_seconds": UNDO, "jwt_secret": SecretStr("s" * 40)}
    async with stack(**given) as settings, receiver(choose) as server:
        endpoints_file(path, receiver=server.url)
        await ensure_topics(settings)
        async with worker(settings), deliver(settings):
            yield settings, server


def ask(subject: str, to: str = "receiver", confirm: bool = True) -> dict[str, Any]:
    value = {
        "specversion": "1.0", "id": f"ask-{subject}", "source": "/payments", "type": "waitpoint.created",
        "subject": subject, "time": format_timestamp(int(time.time() * SECOND)), "workspaceid": "ws_01",
        "data": {"title": "Pay?", "ask": {
            "options": [{"id": "pay", "does": "approve"}, {"id": "no", "does": "reject"}],
            "reply": {"to": to, "token": TOKEN, "confirm": confirm}}},
    }
    return {"topic": "waitpoints", "key": None, "value": value}


async def item_of(settings: Settings, subject: str) -> ItemRow | None:
    for rows in (await look(settings)).rows.values():
        for key, value in rows.items():
            if key.startswith(b"i:"):
                row = decode_row(key, value)
                if isinstance(row, ItemRow) and row.source_id == subject and row.question is not None:
                    return row
    return None


async def decision_of(settings: Settings, subject: str) -> DecisionRow | None:
    for rows in (await look(settings)).rows.values():
        for key, value in rows.items():
            if key.startswith(b"c:"):
                row = decode_row(key, value)
                if isinstance(row, DecisionRow) and row.subject == subject:
                    return row
    return None


async def append(settings: Settings, *commands: Any) -> None:
    packer = Packer(settings.log_partitions)
    for command in commands:
        packer.add(command)
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as producer:
        for pack in packer.drain(int(time.time() * SECOND)):
            await producer.send_and_wait(LOG, pack.value, partition=pack.partition)


async def decide(settings: Settings, subject: str) -> ItemRow:
    """Waits for the item of `subject`, and appends a vote for "pay" to the log, as an edge does. Returns the item."""
    row: ItemRow = await eventually(lambda: item_of(settings, subject), f"{subject} has an item")
    assert row.question is not None
    await append(settings, Decide(
        ws="ws_01", id=f"decide-{subject}", time=int(time.time() * SECOND), user="ann", roles=("MEMBER",), item=row.id,
        option="pay", digest=row.question.digest, role="MEMBER"))
    return row


async def in_state(settings: Settings, subject: str, *states: str) -> DecisionRow:
    """Waits until the decision of `subject` is in one of these states. Returns its row."""
    async def reached() -> DecisionRow | None:
        row = await decision_of(settings, subject)
        return row if row is not None and row.state in states else None

    row: DecisionRow = await eventually(reached, f"the decision of {subject} is in {states}")
    return row


async def verbs_of(settings: Settings, decision: str) -> list[str]:
    events = [json.loads(record.value) for records in (await read(settings, DECISIONS)).values() for record in records]
    return [event["type"].removeprefix("decision.") for event in events if event["data"]["decision"] == decision]


async def assert_token_only_in_sources_and_decisions(settings: Settings) -> None:
    for topic in TOPICS:
        with_token = [record for records in (await read(settings, topic.name)).values() for record in records
                      if TOKEN.encode() in (record.value or b"")]
        assert bool(with_token) == (topic.name == DECISIONS or topic.name == "waitpoints"), topic.name


@EMBEDDED_ONLY
async def test_a_vote_arrives_at_the_receiver_and_its_acceptance_comes_back(stack: Stack, tmp_path: Path) -> None:
    async with running(stack, tmp_path) as (settings, server):
        await send(settings, [ask("wp_1", confirm=False)])
        await decide(settings, "wp_1")
        row = await in_state(settings, "wp_1", "applied")
        post, = server.posts
        assert post.id == row.id
        assert (post.event["subject"], post.event["data"]["option"]) == ("wp_1", "pay")
        assert post.event["data"]["reply"] == {"to": "receiver", "token": TOKEN}
        assert await verbs_of(settings, row.id) == ["made", "delivered", "applied"]
        made = next(record for records in (await read(settings, DECISIONS)).values() for record in records)
        assert made.value == post.body
        headers = {name: value.decode() for name, value in made.headers}
        assert headers["webhook-id"] == row.id
        Webhook(HMAC_SECRET).verify(made.value, headers)
        await assert_token_only_in_sources_and_decisions(settings)


@EMBEDDED_ONLY
async def test_a_refusal_brings_the_item_back_with_the_reason(stack: Stack, tmp_path: Path) -> None:
    def choose(post: Post) -> bytes:
        return answer(422, json.dumps({"error": f"unusable: {post.body.decode()[-90:]}"}))

    async with running(stack, tmp_path, choose) as (settings, server):
        await send(settings, [ask("wp_1")])
        item = await decide(settings, "wp_1")
        row = await in_state(settings, "wp_1", "refused")
        assert (row.reason or "").startswith("unusable: ")
        back = await item_of(settings, "wp_1")
        assert back is not None
        assert back.question is not None
        assert (back.id, back.question.returned) == (item.id, "refused")
        assert len(server.posts) == 1
        await assert_token_only_in_sources_and_decisions(settings)


@EMBEDDED_ONLY
async def test_a_decision_that_was_taken_back_is_never_posted(stack: Stack, tmp_path: Path) -> None:
    async with running(stack, tmp_path) as (settings, server):
        await send(settings, [ask("wp_1"), ask("wp_2", confirm=False)])
        item = await decide(settings, "wp_1")
        await append(settings, TakeBack(
            ws="ws_01", id="undo", time=int(time.time() * SECOND), user="ann", roles=("MEMBER",), item=item.id))
        await in_state(settings, "wp_1", "taken_back")
        await decide(settings, "wp_2")
        await in_state(settings, "wp_2", "applied")
        assert [post.event["subject"] for post in server.posts] == ["wp_2"]


@EMBEDDED_ONLY
async def test_an_operator_sends_an_undeliverable_decision_again(stack: Stack, tmp_path: Path) -> None:
    async with running(stack, tmp_path) as (settings, server):
        environment = {
            "ATTN_LOG_PARTITIONS": "3", "ATTN_ENDPOINTS": str(settings.endpoints), "ATTN_KAFKA": settings.kafka}

        def command(*arguments: str) -> list[dict[str, Any]]:
            done = attn("decisions", *arguments, "--json", cwd=tmp_path, env=environment)
            assert done.returncode == 0, done.stderr
            assert TOKEN not in done.stdout + done.stderr
            return [json.loads(line) for line in done.stdout.splitlines()]

        await send(settings, [ask("wp_1", to="later", confirm=False)])
        await decide(settings, "wp_1")
        row = await in_state(settings, "wp_1", "undeliverable")
        assert row.reason == 'no endpoint "later" is configured for this workspace'
        listed, = await asyncio.to_thread(command, "list", "--state", "undeliverable")
        assert (listed["id"], listed["reply_to"], listed["option"]) == (row.id, "later", "pay")
        assert "sealed" not in listed
        assert await asyncio.to_thread(command, "list", "--workspace", "another") == []
        endpoints_file(settings.endpoints or Path(), receiver=server.url, later=server.url)
        assert [each["name"] for each in await asyncio.to_thread(command, "endpoints")] == ["receiver", "later"]
        await asyncio.sleep(2.5)  # `attn deliver` checks the file every 2 s
        assert await asyncio.to_thread(command, "send-again", row.id) == [{"decision": row.id, "workspace": "ws_01"}]
        await in_state(settings, "wp_1", "applied")
        assert server.ids() == [row.id]
        shown, = await asyncio.to_thread(command, "show", row.id)
        assert [event["type"] for event in shown["records"]] == [
            f"decision.{verb}" for verb in ("made", "made", "delivered", "applied")]
        again = attn("decisions", "send-again", row.id, cwd=tmp_path, env=environment)
        assert (again.returncode, again.stdout) == (1, "")
        assert again.stderr == f"attn: decision {row.id} is applied and cannot be sent again; nothing was sent\n"


@EMBEDDED_ONLY
async def test_an_idle_worker_answers_the_tick_that_a_held_decision_needs(stack: Stack, tmp_path: Path) -> None:
    """The view has no row of this decision, so no timer of the fold advances the log's clock."""
    async with running(stack, tmp_path) as (settings, server):
        await send(settings, [ask("wp_1", confirm=False)])
        await decide(settings, "wp_1")
        await in_state(settings, "wp_1", "applied")
        await send_decisions(settings, [decision(1, undo=0.5)])
        await eventually(lambda: len(server.posts) == 2, "the decision without a row is posted", 60)
