"""Records that attn of version 1 left in Kafka (tests/data/v1): reads them, and writes them to a broker."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from schemas.facts import Fact, Outcome
from schemas.settings import Settings
from schemas.topics import VIEWS
from schemas.views import ActivityRow, decode_row, encode_row
from streams.core.config import FoldConfig
from streams.kafka.producer import idempotent_producer

HOME = Path(__file__).parents[2] / "data" / "v1"
Record = tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]  # key, value, headers


@dataclass
class Yesterday:
    """`topics`: records by topic and partition, in the order of their offsets, which begin with 0."""

    settings: dict[str, Any]
    committed: dict[str, dict[str, dict[str, int]]]  # group -> topic -> partition -> offset
    sent: list[dict[str, Any]]  # source events that its topics hold
    later: list[dict[str, Any]]  # source events to go on with
    feeds: list[dict[str, Any]]
    topics: dict[str, dict[int, list[Record]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))

    @property
    def rules(self) -> FoldConfig:
        return FoldConfig.from_settings(Settings(_env_file=None, **self.settings))

    def rows(self, partition: int) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for key, value, _ in self.topics[VIEWS][partition]:
            assert key is not None
            if value is None:
                found.pop(key, None)
            else:
                found[key] = value
        return found


@lru_cache(1)
def yesterday() -> Yesterday:
    state = json.loads((HOME / "state.json").read_text())
    lines = _lines("sources.jsonl.gz")
    found = Yesterday(
        state["settings"], state["committed"], [line for line in lines if line["sent"]],
        [line for line in lines if not line["sent"]], _lines("feeds.json.gz")[0],
    )
    for one in _lines("topics.jsonl.gz"):
        headers = [(name, raw(value) or b"") for name, value in one["headers"]]
        found.topics[one["topic"]][one["partition"]].append((raw(one["key"]), raw(one["value"]), headers))
    return found


def _lines(name: str) -> list[Any]:
    return [json.loads(line) for line in gzip.decompress((HOME / name).read_bytes()).splitlines()]


def raw(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


async def put_back(settings: Settings) -> None:
    """Into topics that are there and empty: every record at its offset, every group where it was."""
    data = yesterday()
    out = idempotent_producer(settings, "test")
    await out.start()
    try:
        for topic, partitions in sorted(data.topics.items(), key=lambda one: one[0] == VIEWS):  # facts come before rows
            for partition, records in partitions.items():
                await _write(out, topic, partition, records)
    finally:
        await out.stop()
    for group, topics in data.committed.items():
        places = {TopicPartition(topic, int(number)): offset
                  for topic, offsets in topics.items() for number, offset in offsets.items()}
        consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka, group_id=group, enable_auto_commit=False)
        await consumer.start()
        consumer.assign(list(places))
        await consumer.commit(places)
        await consumer.stop()


async def _write(out: AIOKafkaProducer, topic: str, partition: int, records: list[Record]) -> None:
    sent = [await out.send(topic, value, key, partition, headers=headers) for key, value, headers in records]
    for offset, one in enumerate(sent):
        assert (await one).offset == offset


def as_kept(rows: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Rows without what activity rows, which go after a day, took from their items later, and when."""
    found = dict(rows)
    for key, value in rows.items():
        row = decode_row(key, value)
        if isinstance(row, ActivityRow):
            found[key] = encode_row(msgspec.structs.replace(row, session_id=None, by=None, rev=0, item=""))
    return found


def as_told(fact: Fact | Outcome, today: Fact | Outcome) -> Fact | Outcome:
    """A fact of then without what changed within version 1: optional fields (decision 0017), and who may read it where
    its item was not shown yet or it is older than what the item shows (decision 0041)."""
    if not isinstance(fact, Fact) or not isinstance(today, Fact):
        return fact
    about = {"opened": today.opened}
    readers = [(one.target_user_id, one.target_role) for one in (fact, today)]
    if fact.item is not None and today.item is None:
        about |= {"item": None, "priority": None, "kind": today.kind}
    if readers[0] != readers[1]:
        about |= {name: getattr(today, name) for name in (
            "target_user_id", "target_role", "title", "cluster", "stack", "case_id", "session_id")}
    return msgspec.structs.replace(fact, **about)
