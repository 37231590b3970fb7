"""The worker on a real broker: source events in; log, views, facts and dead letters out."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from support import events
from support.kafka import pipeline
from support.kafka.pipeline import Stack, caught_up, check, eventually, look, send, worker

from schemas.log import Pack, encode_pack
from schemas.settings import Settings
from schemas.topics import LOG, SOURCE_TYPES, VIEWS
from schemas.views import ItemRow, decode_row, position_key
from streams.kafka import topics
from streams.runtime.task_supervisor import WorkerFailed


def items(seen: pipeline.Seen) -> list[ItemRow]:
    return [decode_row(key, raw) for rows in seen.rows.values() for key, raw in rows.items() if key[:2] == b"i:"]


def waitpoint(number: int, **data: object) -> events.Line:
    return {"topic": "waitpoints", "key": None, "value": {
        "specversion": "1.0", "id": f"w-{number}", "source": "/w", "type": "waitpoint.created",
        "subject": f"wp_{number}", "time": datetime.now(UTC).isoformat(), "workspaceid": f"ws_{number % 5}",
        "data": {"title": "T"} | data,
    }}


ODD = rb'{"n": [1e400, 0.10, 9007199254740993, -7%b], "half": "\ufffd"}' % (b"7" * 5000)


async def test_events_become_facts_then_rows(stack: Stack) -> None:
    lines = events.generate(7, 1500, workspaces=("ws_01", "ws_02", "ws_03", "ws_04"))
    async with stack() as settings:
        await topics.ensure_topics(settings)
        half = len(lines) // 2
        await send(settings, lines[:half])  # sent before the worker starts; the other half while it runs
        async with worker(settings):
            await send(settings, lines[half:])
            seen = await eventually(lambda: caught_up(settings, len(lines)), "all folded")
        check(seen, settings)
        event_ids = [fact.event_id for fact in seen.unique_facts() if not fact.derived]
        sent = {f"{line['value']['source']} {line['value']['id']}" for line in lines}
        assert len(event_ids) == len(set(event_ids)) == len(lines)
        assert set(event_ids) == sent
        assert not seen.letters
        assert sum(len(records) for records in seen.log.values()) < len(lines) / 5  # several events in each pack


async def test_a_restarted_worker_continues_at_its_position(stack: Stack) -> None:
    lines = events.generate(8, 400)
    async with stack() as settings:
        await topics.ensure_topics(settings)
        for part in (lines[:150], lines[150:300], lines[300:]):
            await send(settings, part)
            so_far = lines.index(part[-1]) + 1
            async with worker(settings):
                seen = await eventually(lambda n=so_far: caught_up(settings, n), "all events are folded")
        check(seen, settings)
        assert len(seen.events) == len(lines)  # a clean stop commits the offsets: no record is read twice


async def test_invalid_events_are_dead_letters_with_reasons(stack: Stack) -> None:
    """Rejected values include empty, binary and 10 MiB ones. Valid events among them keep their content, odd JSON
    included (CONTRACT §10)."""
    odd = [
        json.dumps(waitpoint(0, title="<half>", payload="<odd>")["value"] | {"id": name, "subject": name})
        .replace('"<half>"', r'"\ud83d"').replace('"<odd>"', ODD.decode().replace("\\ufffd", r"\ud83d"))
        for name in ("odd0", "odd1")
    ]
    bad: list[tuple[str, bytes | None]] = list(events.garbage())
    for topic in SOURCE_TYPES:
        bad += [(topic, odd[0].encode("utf-16"))]
        bad += [(topic, b"\x00\xff" * 200), (topic, b""), (topic, None), (topic, b"x" * (10 << 20))]
    good = [waitpoint(number) for number in range(60)]
    async with stack() as settings:
        await topics.ensure_topics(settings)
        async with worker(settings):
            await send(settings, good[:30])
            await send(settings, bad[: len(bad) // 2])
            await send(settings, good[30:])
            await send(settings, [("waitpoints", odd[0].encode()), ("waitpoints", b"\xef\xbb\xbf" + odd[1].encode())])
            await send(settings, bad[len(bad) // 2:])
            seen = await eventually(
                lambda: caught_up(settings, len(bad) + len(good) + len(odd)), "every event is folded or rejected")
        check(seen, settings)
        assert len(seen.letters) == len(bad)
        assert all(letter.reason and not letter.truncated for letter in seen.letters)
        assert not [letter.reason for letter in seen.letters if "attn failed" in letter.reason]
        assert sorted((letter.topic, letter.value or b"") for letter in seen.letters) == sorted(
            (topic, value or b"") for topic, value in bad
        )
        payloads = {item.source_id: bytes(item.data.payload) for item in items(seen)}
        assert payloads == {line["value"]["subject"]: b"" for line in good} | {"odd0": ODD, "odd1": ODD}


async def test_invalid_records_in_the_log_are_skipped(stack: Stack) -> None:
    """Only attn writes the log. Records of another writer that are no packs must not stop the partition."""
    good = [waitpoint(number) for number in range(20)]
    junk = [b"", b"\xff\xfe", b"[" * 5000, b'{"at":"now"}', b'{"at":99999999999999999999}', b"x" * (7 << 20), b"null",
            b'{"at":1,"entries":[{"t":"what"}]}']
    async with stack() as settings:
        await topics.ensure_topics(settings)
        raw = AIOKafkaProducer(bootstrap_servers=settings.kafka, max_request_size=8 << 20)
        async with worker(settings), raw as out:
            await send(settings, good[:10])
            for partition in range(settings.log_partitions):
                for value in junk:
                    await out.send_and_wait(LOG, value, partition=partition)
                await out.send_and_wait(LOG, None, key=b"k", partition=partition)
            await send(settings, good[10:])
            bad = (len(junk) + 1) * settings.log_partitions
            seen = await eventually(lambda: caught_up(settings, len(good) + bad), "all events are folded")
        assert len(seen.letters) == bad
        assert {letter.topic for letter in seen.letters} == {LOG}
        assert len(items(seen)) == len(good)
        assert pipeline.position(seen.rows[0], 0).next == len(seen.log[0])


async def test_items_become_overdue_without_any_event(stack: Stack) -> None:
    """An item becomes overdue on time while the worker runs, and at the start of a worker that was stopped then."""
    def due(number: int, seconds: float) -> tuple[float, events.Line]:
        at = datetime.now(UTC) + timedelta(seconds=seconds)
        return at.timestamp(), waitpoint(number, due_at=at.isoformat())

    async with stack() as settings:
        await topics.ensure_topics(settings)

        async def overdue() -> set[str]:
            return {item.source_id for item in items(await look(settings)) if item.overdue}

        async with worker(settings):
            await send(settings, [waitpoint(0)])
            await eventually(lambda: caught_up(settings, 1), "the worker has folded an event")
            first, line = due(1, 4)
            await send(settings, [line])
            seen = await eventually(lambda: caught_up(settings, 2), "the first item is folded")
            assert time.time() > first or not any(item.overdue for item in items(seen))
            await eventually(overdue, "the first item is overdue")
            assert first <= time.time() < first + 60
            second, line = due(2, 4)
            await send(settings, [line])
            await eventually(lambda: caught_up(settings, 3), "the second item is folded")
        await asyncio.sleep(max(0, second - time.time()))
        async with worker(settings):
            await eventually(lambda: _has(overdue, "wp_2"), "the second item is overdue")
        seen = await look(settings)
        check(seen, settings)
        ticks = [record for records in seen.log.values() for record in records if not pipeline.packed(record)]
        assert 1 <= len(ticks) <= 4  # the worker writes ticks only when a timer is due


async def _has(subjects, subject: str) -> bool:  # type: ignore[no-untyped-def]
    return subject in await subjects()


async def test_rows_of_a_fenced_worker_are_replaced(stack: Stack) -> None:
    """The view has rows of a worker that lost the partition and an incomplete batch of a killed worker. A worker that
    loads the view ignores them and writes the correct rows again. A running worker stops at its next write."""
    async with stack(log_partitions=1) as settings:
        await topics.ensure_topics(settings)
        await send(settings, [waitpoint(1)])
        async with worker(settings):
            old = await eventually(lambda: caught_up(settings, 1), "the first event is folded")
            await send(settings, [waitpoint(number) for number in range(2, 6)])
            before = await eventually(lambda: caught_up(settings, 5), "five events are folded")
        last, key = position_key(0), next(key for key in old.rows[0] if key[:2] == b"i:")
        zombie = [(key, b'{"out of turn":true}'), (b"i:nobody", b'{"out of turn":true}'), (last, old.rows[0][last])]
        torn = [(key, b'{"torn":true}')]
        await _write(settings, [*zombie, *torn, (b"garbage", b"not a row at all")])
        async with worker(settings):
            after = await eventually(_loaded(settings, len(before.views[0]) + 8), "the correct rows are written again")
            assert {k: v for k, v in after.rows[0].items() if k not in (b"garbage", last)} == {
                k: v for k, v in before.rows[0].items() if k != last}
            now, then = pipeline.position(after.rows[0], 0), pipeline.position(before.rows[0], 0)
            assert now.position == then.position + 1, "readers ignore a batch whose position is not higher"

        async def duel() -> None:
            async with asyncio.timeout(90), worker(settings) as task:
                await send(settings, [waitpoint(6)])
                await eventually(lambda: caught_up(settings, 6), "the worker owns the partition")
                await _write(settings, zombie)
                await send(settings, [waitpoint(7)])
                await task

        with pytest.raises(WorkerFailed, match="UnexpectedWrite"):
            await duel()
        async with worker(settings):
            await send(settings, [waitpoint(8)])
            seen = await eventually(lambda: caught_up(settings, 8), "all events are folded")
        seen.rows[0].pop(b"garbage")
        assert {item.source_id for item in items(seen)} == {f"wp_{number}" for number in range(1, 9)}
        assert seen.rows[0][key] == old.rows[0][key]


async def _write(settings: Settings, rows: list[tuple[bytes, bytes]]) -> None:
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as out:
        for name, value in rows:
            await out.send_and_wait(VIEWS, value, key=name, partition=0)


def _loaded(settings: Settings, records: int):  # type: ignore[no-untyped-def]
    """Returns a check: all records of the topics, once the view of partition 0 has more than `records`."""
    async def loaded() -> pipeline.Seen | None:
        seen = await look(settings)
        return seen if len(seen.views[0]) > records else None
    return loaded


async def test_a_truncated_log_makes_the_position_jump(stack: Stack) -> None:
    """A broker that lost its last records assigns their offsets again. The new incarnation raises positions by 2^24, so
    new events never have the position of old ones."""
    async with stack(log_partitions=1) as settings:
        await topics.ensure_topics(settings)
        await send(settings, [waitpoint(number) for number in range(5)])
        async with worker(settings):
            seen = await eventually(lambda: caught_up(settings, 5), "five events are folded")
        before = pipeline.position(seen.rows[0], 0)
        again = settings.model_copy(update={"incarnation": 1})
        async with worker(again):
            await send(again, [waitpoint(7)])
            seen = await eventually(lambda: caught_up(again, 6), "all events are folded")
        after = pipeline.position(seen.rows[0], 0)
        assert after.position > before.position + (1 << 24)
        assert after.incarnation == 1
        assert len(items(seen)) == 6
        # The worker reads all source topics again: they may hold events that the log has lost.
        assert len(seen.events) == 11
        event_ids = [fact.event_id for fact in seen.unique_facts()]
        assert len(event_ids) == len(set(event_ids)) == 6


async def test_a_fault_ends_the_worker_with_its_reason(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> int:
        raise OSError("disk on fire")

    monkeypatch.setattr("streams.kafka.fencing.write_records", fail)
    async with stack() as settings:
        await topics.ensure_topics(settings)
        await send(settings, [waitpoint(1)])
        with pytest.raises(WorkerFailed, match="disk on fire"):
            async with asyncio.timeout(90), worker(settings) as task:
                await task


async def test_a_stop_during_a_rebalance_ends_the_worker(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The callback of the rebalance waits for offsets until its time limit, which is 30 s without this patch."""
    asked = threading.Event()

    async def unanswered(self: AIOKafkaConsumer, partitions: object) -> None:
        asked.set()
        await asyncio.sleep(3600)

    monkeypatch.setattr(AIOKafkaConsumer, "beginning_offsets", unanswered)
    monkeypatch.setattr("streams.kafka.reader._READ_SECONDS", 5.0)
    async with stack() as settings:
        await topics.ensure_topics(settings)
        async with asyncio.timeout(120), worker(settings):
            assert await asyncio.to_thread(asked.wait, 60)


async def test_partition_counts_must_fit(stack: Stack) -> None:
    async with stack() as settings:
        await asyncio.gather(*(topics.ensure_topics(settings) for _ in range(4)))
        await topics.ensure_topics(settings)
        with pytest.raises(topics.TopicError, match=r"attn\.log has 3 partitions.*is 8"):
            await topics.ensure_topics(Settings(kafka=settings.kafka, log_partitions=8))


async def test_a_tick_alone_is_folded(stack: Stack) -> None:
    async with stack(log_partitions=1) as settings:
        await topics.ensure_topics(settings)
        async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as out:
            await out.send_and_wait(LOG, encode_pack(Pack(at=1_800_000_000_000_000)), partition=0)
        async with worker(settings):
            seen = await eventually(lambda: caught_up(settings, 0), "the tick is folded")
        assert json.loads(seen.rows[0][position_key(0)])["clock"] == 1_800_000_000_000_000
