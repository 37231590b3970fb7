"""Reads the records that version 1 of attn wrote to Kafka (tests/data/v1), and writes them to a broker."""

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
from schemas.views import ActivityRow, ItemRow, PositionRow, decode_row, encode_row
from streams.core.config import FoldConfig
from streams.kafka.producer import idempotent_producer

HOME = Path(__file__).parents[2] / "data" / "v1"
Record = tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]  # key, value, headers


@dataclass
class Version1State:
    """The state of an installation of version 1. `topics`: records by topic and partition, in order of offsets from 0.
    """

    settings: dict[str, Any]
    committed: dict[str, dict[str, dict[str, int]]]  # group -> topic -> partition -> offset
    sent: list[dict[str, Any]]  # source events in its topics
    later: list[dict[str, Any]]  # source events to send after the upgrade
    feeds: list[dict[str, Any]]
    topics: dict[str, dict[int, list[Record]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))

    @property
    def rules(self) -> FoldConfig:
        return FoldConfig.from_settings(Settings(_env_file=None, **self.settings))

    def rows(self, partition: int) -> dict[bytes, bytes]:
        rows: dict[bytes, bytes] = {}
        for key, value, _ in self.topics[VIEWS][partition]:
            assert key is not None
            if value is None:
                rows.pop(key, None)
            else:
                rows[key] = value
        return rows


@lru_cache(1)
def version1_state() -> Version1State:
    state = json.loads((HOME / "state.json").read_text())
    lines = _lines("sources.jsonl.gz")
    data = Version1State(
        state["settings"], state["committed"], [line for line in lines if line["sent"]],
        [line for line in lines if not line["sent"]], _lines("feeds.json.gz")[0],
    )
    for line in _lines("topics.jsonl.gz"):
        headers = [(name, raw(value) or b"") for name, value in line["headers"]]
        data.topics[line["topic"]][line["partition"]].append((raw(line["key"]), raw(line["value"]), headers))
    return data


def _lines(name: str) -> list[Any]:
    return [json.loads(line) for line in gzip.decompress((HOME / name).read_bytes()).splitlines()]


def raw(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


async def write_version1_data(settings: Settings) -> None:
    """Writes the records to existing, empty topics, each at its offset, and commits the offsets of all groups."""
    data = version1_state()
    out = idempotent_producer(settings, "test")
    await out.start()
    try:
        for topic, partitions in sorted(data.topics.items(), key=lambda pair: pair[0] == VIEWS):  # facts first
            for partition, records in partitions.items():
                await _write(out, topic, partition, records)
    finally:
        await out.stop()
    for group, topics in data.committed.items():
        committed = {TopicPartition(topic, int(number)): offset
                     for topic, offsets in topics.items() for number, offset in offsets.items()}
        consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka, group_id=group, enable_auto_commit=False)
        await consumer.start()
        consumer.assign(list(committed))
        await consumer.commit(committed)
        await consumer.stop()


async def _write(out: AIOKafkaProducer, topic: str, partition: int, records: list[Record]) -> None:
    sent = [await out.send(topic, value, key, partition, headers=headers) for key, value, headers in records]
    for offset, future in enumerate(sent):
        assert (await future).offset == offset


def comparable_rows(rows: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Returns the rows without their version, and without what later releases copy from items to activity rows.

    Activity rows expire after a day.
    """
    comparable = dict(rows)
    for key, value in rows.items():
        row = decode_row(key, value)
        if isinstance(row, ActivityRow):
            comparable[key] = encode_row(msgspec.structs.replace(row, session_id=None, by=None, rev=0, item=""))
        elif isinstance(row, ItemRow) and row.kind == "message":  # version 1 gave messages a due time
            comparable[key] = encode_row(msgspec.structs.replace(row, due_at=0, overdue=False, band=0, wake=None))
        elif isinstance(row, PositionRow):
            comparable[key] = encode_row(msgspec.structs.replace(row, v=1))
    return comparable


def comparable_fact(fact: Fact | Outcome, today: Fact | Outcome) -> Fact | Outcome:
    """Returns a fact of version 1 in which the fields that later releases changed have the values of the current fact.

    These are optional fields (decision 0017), and the targets of facts whose item was not visible yet, or that are
    older than the content of the item (decision 0041).
    """
    if not isinstance(fact, Fact) or not isinstance(today, Fact):
        return msgspec.structs.replace(fact, v=today.v)
    about = {"opened": today.opened, "v": today.v}
    readers = [(each.target_user_id, each.target_role) for each in (fact, today)]
    if fact.item is not None and today.item is None:
        about |= {"item": None, "priority": None, "kind": today.kind}
    if readers[0] != readers[1]:
        about |= {name: getattr(today, name) for name in (
            "target_user_id", "target_role", "title", "cluster", "stack", "case_id", "session_id")}
    return msgspec.structs.replace(fact, **about)
