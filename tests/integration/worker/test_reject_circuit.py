"""Circuit breaker of a source topic with mostly rejected records, where it is configured: other topics continue, and no
record is lost (decisions 0015, 0027).
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from prometheus_client import REGISTRY
from support.kafka import pipeline
from support.kafka.pipeline import Stack, look, read, send, worker

from schemas.dead_letters import DeadLetter, ResumeTopicMarker, parse_record
from schemas.settings import Settings
from schemas.topics import DEAD_LETTERS
from streams.kafka import topics

pytestmark = pytest.mark.broker

LEAST = 20
eventually = partial(pipeline.eventually, seconds=90.0)


def good(topic: str, kind: str, number: int) -> dict[str, Any]:
    return {"topic": topic, "key": f"k{number}", "value": {
        "specversion": "1.0", "id": f"e{number}", "source": f"/{topic}", "type": kind, "subject": f"s{number}",
        "time": "2026-05-20T08:14:00Z", "workspaceid": f"ws_{number % 3}", "data": {"title": "Go?"},
    }}


def waitpoints(*numbers: int) -> list[dict[str, Any]]:
    return [good("waitpoints", "waitpoint.created", number) for number in numbers]


def escalations(*numbers: int) -> list[dict[str, Any]]:
    return [good("escalations", "escalation.opened", number) for number in numbers]


def bad(count: int) -> list[tuple[str, bytes]]:
    return [("waitpoints", b"{oops")] * count


def is_stopped() -> bool:
    return REGISTRY.get_sample_value("attn_ingest_circuit_open", {"topic": "waitpoints"}) == 1


async def folded(settings: Settings, lines: list[dict[str, Any]], exactly: bool = True) -> bool:
    """Returns whether these events are in the facts, each once, and no others unless `exactly` is False."""
    wanted = {f"{line['value']['source']} {line['value']['id']}" for line in lines}
    told = [fact.event_id for fact in (await look(settings)).unique_facts()]
    return sorted(one for one in told if exactly or one in wanted) == sorted(wanted)


async def test_rejects_open_no_circuit_by_default(stack: Stack) -> None:
    async with stack() as settings:
        await topics.ensure_topics(settings)
        async with worker(settings):
            behind = waitpoints(*range(20))
            await send(settings, [*bad(500), *behind])
            await eventually(lambda: folded(settings, behind), "what came behind the bad ones")
        assert len((await look(settings)).letters) == 500


async def test_a_bad_deployment_opens_the_circuit_of_its_topic_until_a_probe_succeeds(stack: Stack) -> None:
    async with stack(reject_ratio=0.5, reject_min_records=LEAST, reject_retry_seconds=4.0) as settings:
        await topics.ensure_topics(settings)
        async with worker(settings):
            await send(settings, bad(LEAST))
            await eventually(is_stopped, "stopped")
            others = escalations(*range(50))
            waiting = waitpoints(*range(40))
            await send(settings, [*bad(3), *waiting, *others])
            # On a busy machine the probes succeed before all others are folded.
            await eventually(lambda: folded(settings, others, exactly=False), "the others")
            await eventually(lambda: not is_stopped(), "it goes on")
            await eventually(lambda: folded(settings, others + waiting), "what waited")
            later = waitpoints(*range(100, 120))
            await send(settings, later)
            await eventually(lambda: folded(settings, others + waiting + later), "what came later")
        letters = (await look(settings)).letters
        assert len(letters) == LEAST + 3
        assert {letter.cause for letter in letters} == {"json"}


async def test_an_operator_can_resume_a_stopped_topic(stack: Stack) -> None:
    async with stack(reject_ratio=0.5, reject_min_records=LEAST, reject_retry_seconds=600.0) as settings:
        await topics.ensure_topics(settings)
        async with worker(settings):
            begun = time.monotonic()
            await send(settings, bad(300))
            await eventually(is_stopped, "stopped")
            waiting = waitpoints(*range(10))
            await send(settings, waiting)
            await send(settings, others := escalations(*range(10)))
            await eventually(lambda: folded(settings, others), "the others")
            assert len((await look(settings)).letters) == LEAST

            async def told() -> bool:
                """Again and again: a worker hears what is said after it has stopped, as a person would."""
                word = ResumeTopicMarker("waitpoints").record_headers()
                async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as producer:
                    await producer.send_and_wait(DEAD_LETTERS, None, b"go-on", headers=word)
                return not is_stopped()

            await eventually(told, "it goes on")
            await eventually(lambda: folded(settings, others + waiting), "all")
            assert time.monotonic() - begun < 600
        assert len([one for one in await letters_of(settings) if one.topic == "waitpoints"]) == 300


async def test_an_open_circuit_ends_with_its_worker_and_no_record_is_skipped(stack: Stack) -> None:
    async with stack(reject_ratio=0.5, reject_min_records=LEAST, reject_retry_seconds=600.0) as settings:
        await topics.ensure_topics(settings)
        await send(settings, bad(30))
        for seen in (LEAST, 30):  # ten are left for the second one: too few to stop at
            async with worker(settings):
                await eventually(lambda seen=seen: has_letters(settings, seen), f"{seen} dead letters")
                assert is_stopped() is (seen == LEAST)
        assert len(await letters_of(settings)) == 30


async def test_a_record_without_key_value_and_time_is_a_dead_letter(stack: Stack) -> None:
    async with stack() as settings:
        await topics.ensure_topics(settings)
        async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as producer:
            batch = producer.create_batch()
            batch.append(key=None, value=None, timestamp=None)
            await (await producer.send_batch(batch, "waitpoints", partition=0))
        async with worker(settings):
            await send(settings, lines := waitpoints(1, 2))
            await eventually(lambda: folded(settings, lines), "the good ones")
            await eventually(lambda: has_letters(settings, 1), "the dead letter")


async def has_letters(settings: Settings, count: int) -> bool:
    return len(await letters_of(settings)) == count


async def letters_of(settings: Settings) -> list[DeadLetter]:
    """Without what operators said."""
    records = (await read(settings, DEAD_LETTERS))[0]
    found = [parse_record(record.key, record.value, record.headers) for record in records]
    return [one for one in found if isinstance(one, DeadLetter)]
