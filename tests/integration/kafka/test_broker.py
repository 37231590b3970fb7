"""The embedded broker starts, keeps its data over a clean stop, detects that it crashed, and counts its crashes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from ops.embedded.broker import BrokerError, EmbeddedBroker, binary
from ops.process import identity

pytestmark = [pytest.mark.broker, pytest.mark.skipif(binary() is None, reason="noida-db is not installed")]


async def put(bootstrap: str, topic: str, *values: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        for value in values:
            await producer.send_and_wait(topic, value, partition=0)


async def end_offset(bootstrap: str, topic: str) -> int:
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap) as consumer:
        partition = TopicPartition(topic, 0)
        return (await consumer.end_offsets([partition]))[partition]


async def test_a_clean_stop_keeps_all(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path)
    await broker.start()
    await put(broker.bootstrap, "t", *(b"%d" % n for n in range(100)))
    assert await broker.stop()
    again = EmbeddedBroker(tmp_path, broker.port)
    await again.start()
    try:
        assert not again.unclean
        assert again.incarnation == 0
        assert await end_offset(again.bootstrap, "t") == 100
    finally:
        await again.stop()


async def test_a_killed_broker_is_seen_and_counted(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path)
    await broker.start()
    assert broker.alive
    broker.kill()
    assert await broker.wait() == -signal.SIGKILL
    assert not broker.alive
    assert not await broker.stop()
    await broker.start()
    assert broker.unclean
    assert broker.incarnation == 1
    assert await broker.stop()
    await broker.start()
    assert not broker.unclean
    assert broker.incarnation == 1
    await broker.stop()


async def test_a_used_port_is_an_error_that_names_it(tmp_path: Path) -> None:
    first = EmbeddedBroker(tmp_path / "a")
    await first.start()
    try:
        second = EmbeddedBroker(tmp_path / "b", first.port)
        with pytest.raises(BrokerError, match=f"port {first.port} is already in use"):
            await second.start()
        assert not second.alive
    finally:
        await first.stop()


async def test_the_broker_saves_and_ends_with_its_parent(tmp_path: Path) -> None:
    restarted = EmbeddedBroker(tmp_path)  # started below, once the first broker has ended
    code = f"""
import asyncio
from ops.embedded.broker import EmbeddedBroker
async def main():
    broker = EmbeddedBroker({str(tmp_path)!r})
    await broker.start()
    print(broker.port, broker.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        kafka_port, pid = map(int, parent.stdout.readline().split())
        await put(f"127.0.0.1:{kafka_port}", "t", b"1", b"2")
        child = identity.identify(pid)
        assert child is not None
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    restarted.port = kafka_port
    await restarted.start()
    try:
        assert not identity.is_alive(child)
        assert not restarted.unclean
        assert await end_offset(restarted.bootstrap, "t") == 2
    finally:
        await restarted.stop()


async def test_a_leftover_broker_is_replaced(tmp_path: Path) -> None:
    """On systems without a parent-death signal an old broker may still run and hold the port and the directory."""
    old = EmbeddedBroker(tmp_path)
    await old.start()
    new = EmbeddedBroker(tmp_path, old.port)
    await new.start()
    try:
        assert not old.alive
        assert new.alive
        assert not new.unclean
    finally:
        await new.stop()
