"""Records of other Kafka clients, and invalid bytes, on the embedded broker and on Apache Kafka: valid records arrive,
others become dead letters, and no worker stops.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from confluent_kafka import Producer
from support.kafka import raw_produce
from support.kafka.brokers import KAFKA_ONLY
from support.kafka.pipeline import Seen, Stack, eventually, kill, look, spawn, worker
from support.kafka.record_batches import CODECS, Batch, Rec

from schemas.settings import Settings
from schemas.topics import DEAD_LETTERS
from streams.kafka import topics
from streams.kafka.records.batches import MAX_BODY


def event(number: int | str, **changes: object) -> bytes:
    return json.dumps({
        "specversion": "1.0", "id": f"e{number}", "source": "/s", "type": "plan.proposed", "subject": f"p{number}",
        "time": "2026-05-20T08:14:00Z", "workspaceid": "ws_01", "data": {"title": "Go?", "steps": []}, **changes,
    }).encode()


def ids(seen: Seen) -> set[str]:
    return {one.id for one in seen.events}


async def arrived(settings: Settings, numbers: Iterable[object], task: asyncio.Task[None] | None = None) -> Seen:
    """Waits until the log has the events e<number>. Fails if it has others, or if the worker's `task` ends."""
    wanted = {f"e{number}" for number in numbers}

    async def there() -> Seen | None:
        if task is not None and task.done():
            task.result()
            raise AssertionError("the worker ended")
        seen = await look(settings)
        return seen if wanted <= ids(seen) else None

    seen: Seen = await eventually(there, f"{sorted(wanted)} are in the log")
    assert ids(seen) == wanted
    return seen


NOT_LEADER = (5, 6)  # LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER: returned right after a topic is created
SECONDS = 30


def put(settings: Settings, batch: Batch, partition: int = 0) -> int:
    """Sends a batch to the topic `plans`. Returns the error code of the broker; retries while there is no leader."""
    deadline, bytes_ = time.monotonic() + SECONDS, batch.encode()
    while (code := raw_produce.produce(settings.kafka, "plans", bytes_, partition)[0]) in NOT_LEADER:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return code


async def with_admin(settings: Settings, does: Callable[[AIOKafkaAdminClient], Any]) -> Any:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
    await admin.start()
    try:
        return await does(admin)
    finally:
        await admin.close()


async def test_all_codecs_of_librdkafka_and_of_the_broker(stack: Stack) -> None:
    """librdkafka compresses records with each codec, and the worker reads all of them."""
    async with stack() as settings:
        await topics.ensure_topics(settings)
        async with worker(settings) as task:
            for number, codec in enumerate(("none", "gzip", "snappy", "lz4", "zstd")):
                producer = Producer({"bootstrap.servers": settings.kafka, "compression.type": codec, "linger.ms": 50})
                for step in range(3):
                    producer.produce("plans", event(f"{codec}{step}"), key=b"\xff\xfe\x00", headers=[("x", b"\xff")],
                                     partition=number % 2)
                producer.flush(30)
            expected = [f"{codec}{step}" for codec in ("none", "gzip", "snappy", "lz4", "zstd") for step in range(3)]
            seen = await arrived(settings, expected, task)
        assert seen.letters == []


@KAFKA_ONLY
@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_the_topic_decides_how_records_are_compressed(stack: Stack, codec: str) -> None:
    async with stack() as settings:
        await with_admin(settings, lambda admin: admin.create_topics(
            [NewTopic("plans", 1, 1, topic_configs={"compression.type": codec})]))
        await topics.ensure_topics(settings)
        async with worker(settings) as task:
            Producer({"bootstrap.servers": settings.kafka}).produce("plans", event(1))
            producer = Producer({"bootstrap.servers": settings.kafka})
            producer.produce("plans", event(1))
            producer.flush(30)
            await arrived(settings, [1], task)


def _odd() -> dict[str, Batch]:
    bomb = bytes(MAX_BODY + (1 << 20))
    one = Rec(value=event("odd"))
    return {
        "header name of any bytes": Batch([Rec(value=event("name"), headers=[(b"\xff\xfe", b"x")])]),
        "rejected, with a header of 12 MiB": Batch([Rec(value=b"no", headers=[(b"h", os.urandom(12 << 20))])]),
        "rejected, with a header that unpacks to 20 MiB": Batch(
            [Rec(b"k" * (2 << 20), b"no", [(b"h", bytes(20 << 20))])], codec=1),
        "rejected, a header name of any bytes": Batch([Rec(value=b"no", headers=[(b"\xff", b"x")])]),
        "a bomb of gzip": Batch([Rec(value=bomb)], codec=1),
        "a bomb of zstd": Batch([Rec(value=bomb)], codec=4),
        "the CRC": Batch([one], crc=5),
        "no such codec": Batch([one], codec=7),
        "codec cut off": Batch([one], codec=3, packed=CODECS[3](b"x" * 99)[:-5]),
        "a varint that never ends": Batch([one, one], body=b"\xff" * 40),
        "a record beyond its batch": Batch([Rec(length=5000), one]),
        "minus one header": Batch([Rec(header_count=-1)]),
        "format 1": Batch([one], magic=1),
        "no records": Batch([], last_delta=0),
        "control of no known type": Batch([Rec(struct.pack(">HH", 0, 9), b"")], attributes=0x30, producer=(5, 0, -1)),
        "the end of time": Batch([Rec(value=event("late"))], timestamps=(2**63 - 1, 2**63 - 1)),
        "before all time": Batch([Rec(value=event("early"))], timestamps=(-(2**62), -(2**62))),
        "a tombstone": Batch([Rec(b"k", None)]),
    }


async def test_malformed_batches_do_not_stop_a_worker(stack: Stack) -> None:
    """The broker may refuse a malformed batch. A batch that it accepts yields an event, a dead letter or nothing. Valid
    events around it arrive, and a worker that starts at its offset continues after it."""
    async with stack(source_partitions=1) as settings:
        await topics.ensure_topics(settings)
        async with worker(settings) as task:
            accepted, good = {}, []
            for number, (name, batch) in enumerate(_odd().items()):
                accepted[name] = put(settings, batch) == 0
                assert put(settings, Batch([Rec(value=event(number))], codec=number % 5)) == 0
                good.append(number)
            named = {"name": "header name of any bytes", "late": "the end of time", "early": "before all time"}
            good += [short for short, name in named.items() if accepted[name]]

            async def settled() -> Seen | None:
                assert not task.done(), task.exception()
                seen = await look(settings)
                return seen if {f"e{number}" for number in good} <= ids(seen) else None

            seen = await eventually(settled, f"the log has the events {good}; accepted by the broker: {accepted}")
        assert accepted["header name of any bytes"]
        assert accepted["a bomb of zstd"]
        by_cause: dict[str, int] = {}
        for letter in seen.letters:
            by_cause[letter.cause] = by_cause.get(letter.cause, 0) + 1
        assert by_cause.get("fault") is None
        assert by_cause["unreadable"] >= accepted["a bomb of gzip"] + accepted["a bomb of zstd"]
        large = {letter.headers_size >> 20: letter.truncated for letter in seen.letters if letter.cut}
        assert large.get(20, True)
        process = spawn(settings)  # reads the malformed batches again if the first worker committed no offset
        try:
            assert put(settings, Batch([Rec(value=event("after"))])) == 0
            await eventually(lambda: _has(settings, "eafter"), "the next worker reads an event after the batches")
        finally:
            kill(process)


async def _has(settings: Settings, name: str) -> bool:
    return name in ids(await look(settings))


async def test_a_worker_killed_at_an_unreadable_offset_continues_after_it(stack: Stack) -> None:
    async with stack(source_partitions=1) as settings:
        await topics.ensure_topics(settings)
        bomb = Batch([Rec(value=bytes(MAX_BODY + 1))], codec=4)
        for _ in range(2):
            assert put(settings, bomb) == 0
        process = spawn(settings)
        try:
            await eventually(lambda: _letters(settings, 1), "the first unreadable batch is a dead letter")
            kill(process)
            process = spawn(settings)
            assert put(settings, Batch([Rec(value=event("good"))])) == 0
            await eventually(lambda: _has(settings, "egood"), "the event after the unreadable batches is in the log")
            assert process.poll() is None
        finally:
            kill(process)


async def _letters(settings: Settings, count: int) -> bool:
    return len((await look(settings)).letters) >= count


@KAFKA_ONLY
async def test_only_committed_records_are_read_and_an_open_transaction_delays_its_partition_only(stack: Stack) -> None:
    async with stack(source_partitions=2, stall_seconds=3) as settings:
        await topics.ensure_topics(settings)
        async with worker(settings) as task:
            open_one = Producer({
                "bootstrap.servers": settings.kafka, "transactional.id": "a", "compression.type": "lz4",
                "transaction.timeout.ms": 600_000})  # on a busy machine the test takes longer than the default of 60 s
            open_one.init_transactions()
            open_one.begin_transaction()
            open_one.produce("plans", event("open"), partition=0)
            open_one.flush(30)
            other = Producer({"bootstrap.servers": settings.kafka, "transactional.id": "b"})
            other.init_transactions()
            for number in range(6):
                other.begin_transaction()
                other.produce("plans", event(f"aborted{number}"), partition=number % 2)
                other.flush(30)
                other.abort_transaction()
                other.begin_transaction()
                other.produce("plans", event(number), partition=1)
                other.produce("plans", event(f"behind{number}"), partition=0)
                other.commit_transaction()
                await asyncio.sleep(1.1)  # longer than the interval of the watchdog
            await arrived(settings, range(6), task)
            assert not task.done()
            open_one.commit_transaction()
            await arrived(settings, ["open", *range(6), *(f"behind{number}" for number in range(6))], task)
            other.begin_transaction()
            other.produce("plans", event("never"), partition=0)
            other.flush(30)
            other.abort_transaction()
            producer = Producer({"bootstrap.servers": settings.kafka})
            producer.produce("plans", event("last"), partition=0)
            producer.flush(30)
            await arrived(settings, ["open", "last", *range(6), *(f"behind{number}" for number in range(6))], task)


async def test_partitions_that_are_added_are_read(stack: Stack) -> None:
    async with stack(source_partitions=1) as settings:
        await topics.ensure_topics(settings)
        async with worker(settings) as task:
            assert put(settings, Batch([Rec(value=event(0))])) == 0
            await arrived(settings, [0], task)
            answer = await with_admin(settings, lambda admin: admin.create_partitions({"plans": NewPartitions(3)}))
            assert all(code == 0 for _, code, *_ in answer.topic_errors), answer
            await eventually(
                lambda: put(settings, Batch([Rec(value=event(2))]), 2) == 0, "the broker takes records for partition 2")
            await arrived(settings, [0, 2], task)


@pytest.mark.parametrize("before", [40])
async def test_a_topic_that_is_deleted_and_created_again_is_read_from_its_beginning(stack: Stack, before: int) -> None:
    """The old topic had more records than the new one, so the old offset is beyond its end."""
    async with stack(source_partitions=1) as settings:
        await topics.ensure_topics(settings)
        async with worker(settings) as task:
            old = [f"old{number}" for number in range(before)]
            assert put(settings, Batch([Rec(value=event(name)) for name in old])) == 0
            await arrived(settings, old, task)
            await asyncio.sleep(1.5)  # the worker commits its offset within this time

            async def again(admin: AIOKafkaAdminClient) -> None:
                async def made() -> bool:
                    # Deleted before each attempt: the consumer may ask for the topic between both requests, and the
                    # embedded broker then creates it.
                    await admin.delete_topics(["plans"])
                    # The records below have old timestamps: retention by these would delete them.
                    stamped = {"message.timestamp.type": "LogAppendTime"}
                    answer = await admin.create_topics([NewTopic("plans", 1, 1, topic_configs=stamped)])
                    return answer.topic_errors[0][1] == 0

                await eventually(made, "the topic is created again")

            await with_admin(settings, again)
            new = [f"new{number}" for number in range(10)]
            batch = Batch([Rec(value=event(name)) for name in new])
            await eventually(lambda: put(settings, batch) == 0, "the broker accepts records for the topic")
            await arrived(settings, old + new, task)
            assert put(settings, Batch([Rec(value=event("last"))])) == 0
            await arrived(settings, [*old, *new, "last"], task)


async def test_dead_letters_fit_a_topic_of_the_default_size(stack: Stack) -> None:
    async with stack(source_partitions=1) as settings:
        await with_admin(settings, lambda admin: admin.create_topics(
            [NewTopic(DEAD_LETTERS, 1, 1, topic_configs={"max.message.bytes": "1048588"})]))
        await topics.ensure_topics(settings)
        async with AIOKafkaProducer(bootstrap_servers=settings.kafka, max_request_size=16 << 20) as producer:
            for number in range(4):
                # Names differ: of several large headers with one name the embedded broker (noida-db 0.2.3) keeps one.
                await producer.send_and_wait("plans", os.urandom(3 << 20), key=os.urandom(1 << 20), headers=[
                    (f"h{index}", os.urandom(1 << 20)) for index in range(number)])
        async with worker(settings) as task:
            assert put(settings, Batch([Rec(value=event(1))])) == 0
            seen = await arrived(settings, [1], task)
        assert [letter.size for letter in seen.letters] == [3 << 20] * 4
        assert [letter.cut for letter in seen.letters] == [("key",), *[("key", "headers")] * 3]
        assert all(letter.truncated for letter in seen.letters)
        assert [letter.header_count for letter in seen.letters] == [0, 1, 2, 3]
