"""`ops.kafka` and `attn kafka`: they keep data and ports, recognise a running broker, end with their parent process,
and report missing software.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from support.kafka import brokers
from support.kafka.pipeline import eventually
from support.processes.cli import COMMAND, attn, clean_env
from support.processes.up import wait_for

from ops.errors import UserError
from ops.kafka import Cluster, missing
from ops.process import identity


async def make(bootstrap: str, topic: str, copies: int, partitions: int = 1) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        answer = await admin.create_topics([NewTopic(topic, partitions, copies)])
        assert all(error[1] == 0 for error in answer.topic_errors), answer
    finally:
        await admin.close()


async def put(bootstrap: str, topic: str, *values: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True) as producer:
        for value in values:
            await producer.send_and_wait(topic, value, partition=0)


async def values(bootstrap: str, topic: str) -> list[bytes]:
    """Returns all values of partition 0 of the topic."""
    partition = TopicPartition(topic, 0)
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([partition])
        end, read = (await consumer.end_offsets([partition]))[partition], []
        while len(read) < end:
            read += [record.value for record in (await consumer.getmany(timeout_ms=500)).get(partition, [])]
        return read


class Command:
    """Runs `attn kafka` with one data directory."""

    def __init__(self, home: Path) -> None:
        self.home, self.directory = home, home / "kafka"

    def __call__(self, name: str, *flags: str) -> subprocess.CompletedProcess[str]:
        return attn("kafka", name, "--data-dir", str(self.directory), *flags, cwd=self.home, timeout=240)

    @property
    def process(self) -> identity.ProcessIdentity:
        process = identity.read(self.directory / "node-1" / "pid")
        assert process is not None
        return process


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    if why := missing():
        pytest.skip(f"no Apache Kafka here: {why}")
    kafka = Command(tmp_path)
    yield kafka
    if (kafka.directory / "cluster.json").exists():
        Cluster(kafka.directory, None).kill()


@pytest.mark.kafka
async def test_start_stop_status_in_the_background(command: Command) -> None:
    started = command("start", "--port", "0")
    assert started.returncode == 0, started.stderr
    address = started.stdout.strip()
    assert address.startswith("127.0.0.1:")
    await make(address, "t", 1)
    await put(address, "t", b"1", b"2")
    status = command("status")
    assert (status.returncode, "ready" in status.stdout) == (0, True)
    again = command("start")  # the broker runs: `start` changes nothing
    assert (again.returncode, again.stdout.strip()) == (0, address)

    os.kill(command.process.pid, signal.SIGKILL)
    wait_for(lambda: not identity.is_alive(command.process), 30, "the end of the broker")
    assert command("status").returncode == 1
    assert command("start").stdout.strip() == address
    assert await values(address, "t") == [b"1", b"2"]

    before = command.process
    stopped = command("stop")
    assert (stopped.returncode, stopped.stderr) == (0, "stopped\n")
    assert not identity.is_alive(before)
    assert command("stop").stderr == "no broker runs\n"
    assert command("status").returncode == 1
    other = command("start", "--brokers", "3")
    assert (other.returncode, "holds a cluster of 1, not of 3" in other.stderr) == (1, True)


@pytest.mark.kafka
@pytest.mark.parametrize("end", ["signal", "death", "orphan"])
def test_in_the_foreground(command: Command, end: str) -> None:
    process = subprocess.Popen(
        [*COMMAND, "kafka", "start", "--foreground", "--port", "0", "--data-dir", str(command.directory)],
        cwd=command.home, env=clean_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"127.0.0.1:")
        second = command("start")
        assert (second.returncode, "another `attn kafka` uses" in second.stderr) == (1, True)
        node = command.process
        if end == "signal":
            process.terminate()
            assert process.wait(60) == 0
        elif end == "death":
            os.kill(node.pid, signal.SIGKILL)
            assert process.wait(60) == 1
        else:
            process.kill()
        wait_for(lambda: not identity.is_alive(node), 60, "the end of the broker")
        _, errors = process.communicate(timeout=60)
        assert (b"attn: Kafka node 1 has ended" in errors) == (end == "death")
    finally:
        process.kill()
        process.wait()


@pytest.mark.kafka
async def test_three_brokers_outlive_the_leader(tmp_path: Path) -> None:
    async with brokers.cluster(tmp_path, 3) as kafka:
        assert kafka.copies == 3
        await make(kafka.bootstrap, "t", 3)
        await put(kafka.bootstrap, "t", b"1")
        leader = await kafka.leader_of("t", 0)
        assert leader is not None
        leader.kill()
        assert not leader.alive

        async def another() -> bool:
            return await kafka.leader_of("t", 0) not in (None, leader)

        await eventually(another, "another broker leads the partition")
        await put(kafka.bootstrap, "t", b"2")  # two replicas are in sync, which is enough for a write
        assert leader.number not in (await kafka.in_sync("t"))[0]
        await leader.start()

        async def whole() -> bool:
            return (await kafka.in_sync("t"))[0] == {1, 2, 3}

        await eventually(whole, "all replicas are in sync")
        assert await values(kafka.bootstrap, "t") == [b"1", b"2"]
        pids = [node.process for node in kafka.nodes]
        await asyncio.gather(*(node.stop() for node in kafka.nodes))
        assert not any(node.alive for node in kafka.nodes)
        assert not [pid for pid in pids if pid is not None and identity.is_alive(pid)]


@pytest.mark.parametrize(("have", "message"), [
    ((), "Apache Kafka needs Java 17, and there is no java"), (("java",), "there is no mvn (Debian: maven)"),
])
def test_a_missing_program_is_an_error_that_names_it(have: tuple[str, ...], message: str, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in have:
        if (program := shutil.which(name)) is None:
            pytest.skip(f"there is no {name}")
        (programs / name).symlink_to(program)
    env = {"PATH": str(programs), "JAVA_HOME": "", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = attn("kafka", "start", "--port", "0", cwd=tmp_path, env=env)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.startswith("attn: ")
    assert done.stderr.count("\n") == 1, done.stderr


def test_a_cluster_has_one_or_three_brokers(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 or 3 brokers, not 2"):
        Cluster(tmp_path, 2)
    assert attn("kafka", "status", cwd=tmp_path).returncode == 1
