"""Appends a command to `attn.log` and waits for its outcome; reads rows of one kind from `attn.views`."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaTimeoutError

from ops.cli.data.kafka import open_consumer, open_producer, read_to_end
from ops.errors import UserError
from schemas.facts import Outcome, decode_fact
from schemas.log import Command, Pack, encode_pack
from schemas.settings import Settings
from schemas.topics import FACTS, LOG, VIEWS, partition_of
from schemas.views import Row, apply_changes, decode_row

__all__ = ["read_rows", "run_command"]

_WAIT_SECONDS = 30.0  # for a worker: it may start, or take over the partition


async def run_command(settings: Settings, command: Command) -> Outcome:
    """Returns the outcome of a command. Raises UserError if Kafka is unreachable, or no worker answers in 30 s."""
    async with open_consumer(settings, FACTS) as facts:
        _read_partition(facts, FACTS, command.ws)
        await facts.seek_to_end()
        await asyncio.gather(*(facts.position(part) for part in facts.assignment()))
        async with open_producer(settings, [LOG]) as log:
            await log.send(LOG, encode_pack(Pack(command.time, [command])),  # type: ignore[list-item]
                           partition=next(iter(facts.assignment())).partition)
            await log.finish()
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                return await _outcome_of(facts, command)
        except TimeoutError:
            raise UserError(f"no worker has answered for {_WAIT_SECONDS:.0f} s: is `attn worker` running? "
                            "The command may still take effect") from None


async def _outcome_of(facts: AIOKafkaConsumer, command: Command) -> Outcome:
    while True:
        for records in (await facts.getmany(timeout_ms=500)).values():
            for record in records:
                fact = decode_fact(record.value) if record.value is not None else None
                if isinstance(fact, Outcome) and fact.command == command.id:
                    return fact


async def read_rows(settings: Settings, ws: str, prefix: bytes) -> list[Row]:
    """Returns the current rows of a kind in the partition of a workspace. Raises UserError if Kafka does not answer."""
    rows: dict[bytes, bytes] = {}
    async with open_consumer(settings, VIEWS) as views:
        _read_partition(views, VIEWS, ws)
        await views.seek_to_beginning()
        try:
            async for record in read_to_end(views):
                if record.key is not None and record.key[:2] == prefix:
                    apply_changes(rows, [(record.key, record.value)])
        except KafkaTimeoutError:
            raise UserError(f"Kafka at {settings.kafka} does not answer") from None
    return [decode_row(key, raw) for key, raw in rows.items()]


def _read_partition(reader: AIOKafkaConsumer, topic: str, ws: str) -> None:
    """Assigns the partition of a workspace, by the number of partitions that the topic has."""
    reader.assign([TopicPartition(topic, partition_of(ws, len(reader.assignment())))])
