"""The relay beside which `bench.latency.bench` measures attn: three bare aiokafka hops in one process.

Each hop reads a topic with `getmany`, sends every record on with an idempotent producer and `acks=all`, waits for the
acknowledgements and reads again: the least that a Python program does for the same guarantee.
"""

from __future__ import annotations

import asyncio
import itertools
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from bench.harness.subprocesses import ready, run

__all__ = ["TOPICS"]

TOPICS = ("bench.relay-source", "bench.relay-1", "bench.relay-2", "bench.relay-3")


async def _hop(bootstrap: str, source: str, target: str, partitions: int, started: asyncio.Barrier) -> None:
    async with (
        AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False) as consumer,
        AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, linger_ms=0) as producer,
    ):
        consumer.assign([TopicPartition(source, number) for number in range(partitions)])
        await consumer.seek_to_end()
        await started.wait()
        while True:
            fetched = await consumer.getmany(timeout_ms=500)
            await asyncio.gather(*[
                await producer.send(target, record.value, record.key, partition=tp.partition)
                for tp, records in fetched.items() for record in records])


async def _relay(bootstrap: str, partitions: int) -> None:
    """Runs until its stdin ends."""
    started = asyncio.Barrier(len(TOPICS))
    hops = [asyncio.create_task(_hop(bootstrap, source, target, partitions, started))
            for source, target in itertools.pairwise(TOPICS)]
    await started.wait()
    ready()
    end = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    done, _ = await asyncio.wait([end, *hops], return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    for hop in hops:
        hop.cancel()
    await asyncio.gather(*hops, return_exceptions=True)


if __name__ == "__main__":
    run(_relay(sys.argv[1], int(sys.argv[2])))
