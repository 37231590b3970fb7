"""Candidates of the recovery bench that read the rows of a topic, each in its own process."""

from __future__ import annotations

import os
import resource
import sys
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from bench.harness.subprocesses import Meter, run

__all__ = ["STOCK"]

STOCK = "bench.table"


async def raw(bootstrap: str, topic: str, partitions: int) -> None:
    """Reads the topic to its ends and counts bytes: the lower bound of every reader."""
    assigned = [TopicPartition(topic, number) for number in range(partitions)]
    async with AIOKafkaConsumer(
        bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest"
    ) as consumer:
        ends = await consumer.end_offsets(assigned)
        consumer.assign(assigned)
        meter, size, left = Meter(), 0, {partition for partition in assigned if ends[partition]}
        while left:
            for partition, records in (await consumer.getmany(timeout_ms=500)).items():
                for record in records:
                    size += len(record.key or b"") + len(record.value or b"")
                if records[-1].offset + 1 >= ends[partition]:
                    left.discard(partition)
        meter.tell(size / 1e6)


def table(bootstrap: str, topic: str, partitions: int, datadir: str) -> None:
    """Runs a stock Faust worker with one table in memory until the table is recovered. Then ends the process."""
    import faust

    app = faust.App(
        "bench-recovery", broker=[f"kafka://{host}" for host in bootstrap.split(",")], store="memory://",
        topic_partitions=partitions, web_enabled=False, topic_disable_leader=True, topic_allow_declare=False,
        datadir=datadir, stream_recovery_delay=0.0,
    )
    raw: dict[str, Any] = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
    changelog = app.topic(topic, partitions=partitions, **raw)
    rows = app.Table("rows", partitions=partitions, changelog_topic=changelog, key_type=bytes, value_type=bytes)
    meter: Meter | None = None

    async def idle(stream: Any) -> None:
        async for _ in stream:
            pass

    async def assigned(*_: Any, **__: Any) -> None:
        nonlocal meter
        meter = meter or Meter()

    async def recovered() -> None:
        assert meter is not None
        meter.tell(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        os._exit(0)

    app.agent(app.topic(f"{topic}.source", partitions=partitions, **raw), name="idle")(idle)
    app.on_partitions_assigned.connect(assigned)
    rows.on_recover(recovered)
    app.finalize()
    faust.Worker(app, loglevel="ERROR").execute_from_commandline()


if __name__ == "__main__":
    role, bootstrap, topic, partitions, *rest = sys.argv[1:]
    if role == "raw":
        run(raw(bootstrap, topic, int(partitions)))
    else:
        table(bootstrap, topic, int(partitions), *rest)
