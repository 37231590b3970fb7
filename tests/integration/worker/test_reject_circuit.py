"""Circuit breaker of a source topic, where one is configured: it opens when most records are rejected. Other topics
continue, and no record is lost (decisions 0015, 0027).
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

LEAST = 20  # ATTN_REJECT_MIN_RECORDS: records before the ratio is evaluated
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


def is_open() -> bool:
    return REGISTRY.get_sample_value("attn_ingest_circuit_open", {"topic": "waitpoints"}) == 1


async def folded(settings: Settings, lines: list[dict[str, Any]], exactly: bool = True) -> bool:
    """Returns whether these events are in the facts, each once, and no others unless `exactly` is False."""
    wanted = {f"{line['value']['source']} {line['value']['id']}" for line in lines}
    event_ids = [fact.event_id for fact in (await look(settings)).unique_facts()]
    return sorted(name for name in event_ids if exactly or name in wanted) == sorted(wanted)


async def test_rejects_open_no_circuit_by_default(stack: Stack) -> None:
    async with stack() as settings:
        await topics.ensure_topics(settings)
        async with worker(settings):
            behind = waitpoints(*range(20))
            await send(settings, [*bad(500), *behind])
            await eventually(lambda: folded(settings, behind), "the events after the rejected records are folded")
        assert len((await look(settings)).letters) == 500


async def test_a_bad_deployment_opens_the_circuit_of_its_topic_until_a_probe_succeeds(stack: Stack) -> None:
    async with stack(reject_ratio=0.5, reject_min_records=LEAST, reject_retry_seconds=4.0) as settings:
        await topics.ensure_topics(settings)
        async with worker(settings):
            await send(settings, bad(LEAST))
            await eventually(is_open, "the circuit is open")
            others = escalations(*range(50))
            waiting = waitpoints(*range(40))
            await send(settings, [*bad(3), *waiting, *others])
            # On a busy machine the probes may succeed before all events of the other topic are folded.
            await eventually(lambda: folded(settings, others, exactly=False), "the other topic is folded")
            await eventually(lambda: not is_open(), "the circuit is closed")
            await eventually(lambda: folded(settings, others + waiting), "the waiting events are folded")
            later = waitpoints(*range(100, 120))
            await send(settings, later)
            await eventually(lambda: folded(settings, others + waiting + later), "events after the probe are folded")
        letters = (await look(settings)).letters
        assert len(letters) == LEAST + 3
        assert {letter.cause for letter in letters} == {"json"}


async def test_an_operator_can_resume_a_stopped_topic(stack: Stack) -> None:
    async with stack(reject_ratio=0.5, reject_min_records=LEAST, reject_retry_seconds=600.0) as settings:
        await topics.ensure_topics(settings)
        async with worker(settings):
            begun = time.monotonic()
            await send(settings, bad(300))
            await eventually(is_open, "the circuit is open")
            waiting = waitpoints(*range(10))
            await send(settings, waiting)
            await send(settings, others := escalations(*range(10)))
            await eventually(lambda: folded(settings, others), "the other topic is folded")
            assert len((await look(settings)).letters) == LEAST

            async def resume() -> bool:
                """Sends the marker of `--resume-topic`. Repeated: a worker ignores markers from before the stop."""
                headers = ResumeTopicMarker("waitpoints").record_headers()
                async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as producer:
                    await producer.send_and_wait(DEAD_LETTERS, None, b"go-on", headers=headers)
                return not is_open()

            await eventually(resume, "the circuit is closed")
            await eventually(lambda: folded(settings, others + waiting), "all events are folded")
            assert time.monotonic() - begun < 600
        assert len([letter for letter in await letters_of(settings) if letter.topic == "waitpoints"]) == 300


async def test_an_open_circuit_ends_with_its_worker_and_no_record_is_skipped(stack: Stack) -> None:
    async with stack(reject_ratio=0.5, reject_min_records=LEAST, reject_retry_seconds=600.0) as settings:
        await topics.ensure_topics(settings)
        await send(settings, bad(30))
        for seen in (LEAST, 30):  # the second worker reads only ten records, fewer than the minimum
            async with worker(settings):
                await eventually(lambda seen=seen: has_letters(settings, seen), f"{seen} dead letters")
                assert is_open() is (seen == LEAST)
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
            await eventually(lambda: folded(settings, lines), "the valid events are folded")
            await eventually(lambda: has_letters(settings, 1), "the record is a dead letter")


async def has_letters(settings: Settings, count: int) -> bool:
    return len(await letters_of(settings)) == count


async def letters_of(settings: Settings) -> list[DeadLetter]:
    """Returns the dead letters, without the markers of operators."""
    records = (await read(settings, DEAD_LETTERS))[0]
    parsed = [parse_record(record.key, record.value, record.headers) for record in records]
    return [letter for letter in parsed if isinstance(letter, DeadLetter)]
