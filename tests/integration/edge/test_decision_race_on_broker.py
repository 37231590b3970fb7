"""Three hundred people answer one question at the same time on two edges, with a broker and a worker."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from aiokafka import AIOKafkaConsumer, TopicPartition
from support.edge.edge_on_broker import edge
from support.edge.edges import SECRET, bearer
from support.kafka.pipeline import Stack, eventually, send, worker

from schemas.asking.decision_event import DecisionEvent, decode_decision
from schemas.settings import Settings
from schemas.topics import DECISIONS
from streams.core.domain.keys import item_id
from streams.kafka import topics

WS = "ws_race"
ITEM = item_id(WS, "waitpoint", "wp_1")
PEOPLE = 300


def asked() -> dict[str, Any]:
    at = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    return {"topic": "waitpoints", "key": None, "value": {
        "specversion": "1.0", "id": "e1", "source": "/pipelines/deploy", "type": "waitpoint.created",
        "subject": "wp_1", "time": at, "workspaceid": WS,
        "data": {"title": "Deploy?", "ask": {"reply": {"token": "secret"}}}}}


async def records(settings: Settings) -> list[DecisionEvent]:
    """Returns all records of the topic `decisions`."""
    partitions = [TopicPartition(DECISIONS, number) for number in range(settings.log_partitions)]
    async with AIOKafkaConsumer(bootstrap_servers=settings.kafka) as reader:
        reader.assign(partitions)
        await reader.seek_to_beginning(*partitions)
        ends = await reader.end_offsets(partitions)
        decisions: list[DecisionEvent] = []
        while any([await reader.position(partition) < ends[partition] for partition in partitions]):
            for batch in (await reader.getmany(timeout_ms=500)).values():
                decisions += [decode_decision(record.value) for record in batch]
        return decisions


async def test_one_of_hundreds_decides_and_the_topic_has_one_decision(stack: Stack) -> None:
    async with stack(jwt_secret=SECRET) as settings, AsyncExitStack() as parts:
        await topics.ensure_topics(settings)
        await parts.enter_async_context(worker(settings))
        bases = [await parts.enter_async_context(edge(settings, write_seconds=120)) for _ in range(2)]
        http = await parts.enter_async_context(httpx.AsyncClient(
            timeout=300, limits=httpx.Limits(max_connections=200, max_keepalive_connections=200)))
        await send(settings, [asked()])

        async def digest() -> str | None:
            answers = [await http.get(f"{base}/api/v1/inbox/{ITEM}", headers=bearer(ws=WS)) for base in bases]
            shown = {answer.json()["digest"] for answer in answers if answer.status_code == 200}
            return shown.pop() if len(shown) == 1 and all(answer.status_code == 200 for answer in answers) else None

        seen = await eventually(digest, "both edges show the question")

        async def answer(number: int) -> tuple[int, Any]:
            response = await http.post(
                f"{bases[number % 2]}/api/v1/inbox/{ITEM}/decision", headers=bearer(f"u{number}", ws=WS),
                json={"option": "reject" if number % 3 == 2 else "approve", "digest": seen})
            return response.status_code, response.json()

        answers = await asyncio.gather(*map(answer, range(PEOPLE)))
        assert Counter(status for status, _ in answers) == {201: 1, 409: PEOPLE - 1}
        [winner] = [number for number, (status, _) in enumerate(answers) if status == 201]
        decision = answers[winner][1]["decision"]
        assert {json.dumps(body["decision"], sort_keys=True) for _, body in answers if body["decision"][
            "state"] == "made"} == {json.dumps(decision, sort_keys=True)}
        assert {body["decision"]["id"] for _, body in answers} == {decision["id"]}
        assert [actor["user"] for actor in decision["actors"]] == [f"u{winner}"]

        async def made() -> list[DecisionEvent]:
            return [record for record in await records(settings) if record.type == "decision.made"]

        [record] = await eventually(made, "the topic has the decision")
        assert (record.data.decision, record.data.question.digest) == (decision["id"], seen)
        assert [actor.user for actor in record.data.actors] == [f"u{winner}"]
        assert record.data.reply is not None
        assert record.data.reply.token == "secret"
