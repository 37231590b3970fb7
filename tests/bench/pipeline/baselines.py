"""Baselines of the pipeline bench, each in its own process.

`bare`: aiokafka getmany → send, the lower bound for Python. `naive`: a stock Faust agent that writes a table row and
sends one record for every event, the obvious first design. `quix`: the same on Quix Streams, with its RocksDB state and
changelog topic.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import orjson

from bench.harness.subprocesses import Meter, run

__all__ = ["EVENTS"]

EVENTS = "bench.events"


def _row(before: dict[str, Any] | None, event: dict[str, Any]) -> dict[str, Any]:
    """Returns the new row of a subject: the last state, updated by the event."""
    return {**(before or {}), **event["data"], "time": event["time"], "id": event["id"]}


async def bare(bootstrap: str, target: str, events: int, acks: str) -> None:
    """Consumes `events` records and sends each to `target`. `acks` "all": idempotent; "1": not idempotent."""
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

    safe = {"acks": "all", "enable_idempotence": True} if acks == "all" else {"acks": 1}
    async with (
        AIOKafkaConsumer(EVENTS, bootstrap_servers=bootstrap, auto_offset_reset="earliest",
                         enable_auto_commit=False) as consumer,
        AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=5, **safe) as producer,
    ):
        meter, seen = Meter(), 0
        while seen < events:
            sent = []
            for records in (await consumer.getmany(timeout_ms=500, max_records=1000)).values():
                sent += [await producer.send(target, record.value, key=record.key) for record in records]
                seen += len(records)
            await asyncio.gather(*sent)
        meter.tell()


def naive(bootstrap: str, target: str, events: int, partitions: int, replication: int, datadir: str) -> None:
    """Runs a stock Faust worker until it has seen `events`, then ends the process."""
    import faust

    app = faust.App(
        f"bench-naive-{target}", broker=[f"kafka://{host}" for host in bootstrap.split(",")], store="memory://",
        topic_partitions=partitions, topic_replication_factor=replication, web_enabled=False, topic_disable_leader=True,
        consumer_auto_offset_reset="earliest", datadir=datadir, stream_recovery_delay=0.0,
    )
    table = app.Table(f"table-{target}", default=dict, partitions=partitions)
    raw = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
    source_topic = app.topic(EVENTS, partitions=partitions, **raw)
    target_topic = app.topic(target, value_serializer="raw", partitions=partitions)
    meter: Meter | None = None
    seen = 0

    async def fold(stream: Any) -> None:
        nonlocal seen, meter
        async for value in stream:
            meter = meter or Meter()
            event = orjson.loads(value)
            row = table[event["subject"]] = _row(table[event["subject"]], event)
            await target_topic.send(value=orjson.dumps(row))
            seen += 1
            if seen == events:
                meter.tell()
                os._exit(0)  # without a clean shutdown, which is not measured

    app.agent(source_topic, name="naive")(fold)
    app.finalize()
    faust.Worker(app, loglevel="ERROR").execute_from_commandline()


def quix(bootstrap: str, target: str, events: int, replication: int, datadir: str, guarantee: str) -> None:
    """Runs Quix Streams until it has processed `events` and committed its last checkpoint. `guarantee`: at-least-once,
    or exactly-once as in attn."""
    from quixstreams import Application, State
    from quixstreams.models import TopicConfig

    meter: Meter | None = None

    def fold(event: dict[str, Any], state: State) -> dict[str, Any]:
        nonlocal meter
        meter = meter or Meter()
        row = _row(state.get(event["subject"]), event)  # state of the record's key, the workspace
        state.set(event["subject"], row)
        return row

    app = Application(
        bootstrap, consumer_group=f"bench-quix-{target}", auto_offset_reset="earliest", state_dir=datadir,
        processing_guarantee=guarantee, loglevel="ERROR", auto_create_topics=True,
        producer_extra_config={"acks": "all", "linger.ms": 5},
    )
    source = app.topic(EVENTS, key_deserializer="bytes", value_deserializer="json")
    sink = app.topic(target, value_serializer="json", key_serializer="bytes",
                     config=TopicConfig(num_partitions=1, replication_factor=replication))
    app.dataframe(source).apply(fold, stateful=True).to_topic(sink)
    app.run(count=events, collect=False)
    assert meter is not None
    meter.tell()


if __name__ == "__main__":
    role, bootstrap, target, events, *rest = sys.argv[1:]
    if role == "bare":
        run(bare(bootstrap, target, int(events), *rest))
    elif role == "naive":
        naive(bootstrap, target, int(events), int(rest[0]), int(rest[1]), rest[2])
    else:
        quix(bootstrap, target, int(events), int(rest[0]), rest[1], rest[2])
