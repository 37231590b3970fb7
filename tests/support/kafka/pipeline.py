"""A broker, workers on it (in this process or as processes), and the records of its topics."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from support.kafka import brokers
from support.processes import fork_server, version1_data
from support.processes.fork_server import Forked

from schemas.dead_letters import DeadLetter, parse_record
from schemas.facts import Fact, Outcome, decode_fact
from schemas.log import Event, decode_pack
from schemas.settings import Settings
from schemas.topics import DEAD_LETTERS, FACTS, LOG, VIEWS
from schemas.views import PositionRow, apply_changes, decode_row, fence_key, position_key
from streams.core.config import FoldConfig
from streams.core.fold.fold import Fold
from streams.worker.main import run

Line = dict[str, Any]
Records = dict[int, list[ConsumerRecord]]
Stack = Callable[..., contextlib.AbstractAsyncContextManager[Settings]]  # the fixture `stack`
PROCESS = Path(__file__).parents[1] / "processes" / "worker_process.py"


@contextlib.asynccontextmanager
async def stack(tmp_path: Path, kafka: str | None = None, **given: Any) -> AsyncIterator[Settings]:
    """Yields the settings of a running broker, with few partitions: workspaces share them.

    The broker is the Kafka at the address `kafka`, wiped first, or an embedded one. Tests use the fixture `stack`: it
    sets the first two arguments.
    """
    few = {"log_partitions": 3, "source_partitions": 2, "_env_file": None} | given
    if kafka is not None:
        await brokers.wipe(kafka)
        yield Settings(kafka=kafka, **few)
        return
    async with brokers.own("embedded", tmp_path) as broker:
        yield Settings(kafka=broker.bootstrap, **few)


@contextlib.asynccontextmanager
async def worker(settings: Settings) -> AsyncIterator[asyncio.Task[None]]:
    """Runs a worker in this process and stops it cleanly. The stop has no time limit, which would exit pytest."""
    stop = asyncio.Event()
    task = asyncio.create_task(run(settings, stop, stop_seconds=None))
    try:
        yield task
    finally:
        stop.set()
        await task


def spawn(settings: Settings, crash: str = "") -> Forked:
    """Starts a worker process. `crash` "POINT:N": the process kills itself at the Nth pass of POINT, by
    worker_process.py."""
    given = {
        f"ATTN_{name.upper()}": json.dumps(value) if isinstance(value, list | dict) else str(value)
        for name, value in settings.model_dump(include=settings.model_fields_set, mode="json").items()
    }
    return fork_server.start([str(PROCESS), crash], env=os.environ | given)


def handles_sigterm(process: Forked) -> bool:
    """Returns whether the process has a handler for SIGTERM. Before, during its imports, the signal kills it."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(re.search(r"^SigCgt:\s*(\w+)", status, re.MULTILINE)[1], 16)  # type: ignore[index]
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def kill(process: Forked) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


async def send(settings: Settings, lines: Iterable[Line | tuple[str, bytes | None]]) -> int:
    """Sends source events or raw values to their topics and waits for the acknowledgements. Returns their number."""
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka, max_request_size=32 << 20) as producer:
        sent = []
        for line in lines:
            if isinstance(line, tuple):
                topic, value, key = line[0], line[1], b"k"
            else:
                topic, value = line["topic"], json.dumps(line["value"]).encode()
                key = None if line["key"] is None else line["key"].encode()
            sent.append(await producer.send(topic, value, key=key))
        await asyncio.gather(*sent)
    return len(sent)


async def read(settings: Settings, topic: str) -> Records:
    """Returns all records of a topic by partition."""
    records_of: Records = {}
    async with AIOKafkaConsumer(
        topic, bootstrap_servers=settings.kafka, enable_auto_commit=False, auto_offset_reset="earliest",
        max_partition_fetch_bytes=32 << 20,
    ) as consumer:
        assigned = sorted(consumer.assignment())
        ends = await consumer.end_offsets(assigned)
        records_of = {each.partition: [] for each in assigned}
        for each in assigned:
            while await consumer.position(each) < ends[each]:
                for records in (await consumer.getmany(each, timeout_ms=1000)).values():
                    records_of[each.partition] += records
    return records_of


async def eventually(check: Callable[[], Any], what: str, seconds: float = 120.0) -> Any:
    """Calls `check` (may be async) until its result is true, and returns that result.

    Raises AssertionError after `seconds`. Pauses as long as the last check took, at least 0.1 s: checks that read whole
    topics leave CPU to the worker that they wait for.
    """
    deadline = time.monotonic() + seconds
    while True:
        started = time.monotonic()
        result = check()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return result
        now = time.monotonic()
        if now > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        await asyncio.sleep(max(0.1, now - started))


@dataclass
class Seen:
    """Records that the worker wrote to its topics."""

    log: Records
    views: Records
    facts: Records
    letters: list[DeadLetter]
    rows: dict[int, dict[bytes, bytes]] = field(default_factory=dict)

    @property
    def events(self) -> list[Any]:
        """Returns the events in the log, repeats included."""
        return [entry for records in self.log.values() for record in records for entry in packed(record)]

    def unique_facts(self, *partitions: int) -> list[Fact | Outcome]:
        """Returns the facts without repeats: a fact that is not beyond the last position is a repeat."""
        return [fact for partition in partitions or self.facts for fact, _ in self.unique_facts_with_times(partition)]

    def unique_facts_with_times(self, partition: int) -> list[tuple[Fact | Outcome, int]]:
        """Returns the same facts, each with the broker's timestamp in ms."""
        facts: list[tuple[Fact | Outcome, int]] = []
        last = (-1, -1)
        for record in self.facts[partition]:
            fact = decode_fact(record.value)
            if (fact.pos, fact.index) > last:
                last = (fact.pos, fact.index)
                facts.append((fact, record.timestamp))
        return facts


def packed(record: ConsumerRecord) -> Sequence[Any]:
    """Returns the entries of a record of attn.log; none if the record is no pack."""
    try:
        return decode_pack(record.value or b"").entries
    except ValueError:
        return ()


async def look(settings: Settings) -> Seen:
    """Reads all topics of the worker and computes the rows of each partition."""
    log, views, facts, letters = [await read(settings, topic) for topic in (LOG, VIEWS, FACTS, DEAD_LETTERS)]
    words = (parse_record(record.key, record.value, record.headers) for record in letters.get(0, []))
    seen = Seen(log, views, facts, [word for word in words if isinstance(word, DeadLetter)])
    for partition, records in views.items():
        rows = seen.rows[partition] = {}
        for record in records:
            if record.key == fence_key(partition):
                continue
            if record.value is None:
                rows.pop(record.key, None)
            else:
                rows[record.key] = record.value
    return seen


async def caught_up(settings: Settings, sources: int) -> Seen | None:
    """Returns all records once `sources` records are in the log or rejected, and the log is folded; else None."""
    log, views = await read(settings, LOG), await read(settings, VIEWS)
    distinct = {
        (event.ws, event.source, event.id) for records in log.values() for record in records
        for event in packed(record) if isinstance(event, Event)
    }
    if len(distinct) + await count(settings, DEAD_LETTERS) < sources:
        return None
    for partition, records in log.items():
        key = position_key(partition)
        done = next((record.value for record in reversed(views[partition]) if record.key == key), None)
        if records and (done is None or decode_row(key, done).next <= records[-1].offset):
            return None
    return await look(settings)


async def count(settings: Settings, topic: str) -> int:
    """Returns the sum of the end offsets of a topic."""
    async with AIOKafkaConsumer(topic, bootstrap_servers=settings.kafka, enable_auto_commit=False) as consumer:
        return sum((await consumer.end_offsets(list(consumer.assignment()))).values())


def position(rows: dict[bytes, bytes], partition: int) -> PositionRow:
    raw = rows.get(position_key(partition))
    return decode_row(position_key(partition), raw) if raw else PositionRow(next=0)


def check(seen: Seen, settings: Settings, rules: FoldConfig | None = None, older: bool = False) -> None:
    """Fails unless view and facts equal those of one fold of the log, and positions of batches increase.

    `older`: part of the view was written by version 1.
    """
    as_rows, as_fact = (
        (version1_data.comparable_rows, version1_data.comparable_fact) if older else (dict, lambda fact, _: fact))
    for partition, records in seen.log.items():
        rows, facts = refolded(records, partition, settings, rules)
        assert as_rows(seen.rows[partition]) == as_rows(rows)
        written = seen.unique_facts(partition)
        assert len(written) == len(facts)
        assert list(map(as_fact, written, facts)) == facts
        _check_batches(partition, seen)


def refolded(
    records: list[ConsumerRecord], partition: int, settings: Settings, rules: FoldConfig | None = None
) -> tuple[dict[bytes, bytes], list[Fact | Outcome]]:
    """Returns rows and facts of one fold of a partition of the log."""
    rows: dict[bytes, bytes] = {}
    fold = Fold(rows, partition, rules or FoldConfig.from_settings(settings))
    facts: list[Fact | Outcome] = []
    for record in records:
        _refold(fold, rows, facts, record)
    return rows, facts


def _refold(fold: Fold, rows: dict[bytes, bytes], facts: list[Any], record: ConsumerRecord) -> None:
    try:
        pack = decode_pack(record.value or b"")
    except ValueError:
        fold.skip(record.offset)
        rows[position_key(fold.state.partition)] = fold.pending_batch().rows[-1][1] or b""
        return
    whole = False
    while not whole:
        whole = fold.apply(pack, record.offset)
        batch = fold.pending_batch()
        facts += batch.facts
        apply_changes(rows, batch.rows)
        fold.mark_durable()


def _check_batches(partition: int, seen: Seen) -> None:
    """Fails unless positions increase, the last record is a position row, and facts were written before their batch."""
    last, facts = -1, deque(seen.unique_facts_with_times(partition))
    records = [record for record in seen.views[partition] if record.key != fence_key(partition)]
    assert not records or records[-1].key == position_key(partition)
    for record in records:
        if record.key == position_key(partition):
            row = decode_row(record.key, record.value)
            assert row.position > last
            last = row.position
            while facts and facts[0][0].pos < last:
                assert facts.popleft()[1] <= record.timestamp
    assert not facts


async def caught_up_events(settings: Settings, ids: set[str], process: Forked) -> bool:
    """Returns whether the events of these ids reach the log within 60 s while the worker runs."""
    async def all_arrived() -> bool | None:
        if process.poll() is not None:
            return True
        log = await read(settings, LOG)
        left.intersection_update(ids - {
            event.id for records in log.values() for record in records for event in packed(record)
            if isinstance(event, Event)})
        return not left or None

    left = set(ids)
    try:
        await eventually(all_arrived, "the events are in the log", 60)
    except AssertionError:
        print(f"not in the log: {sorted(left)}")
        return False
    return process.poll() is None
