"""Apache Kafka for tests: one broker per pytest process, emptied before each test, and clusters for single tests."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import for_code
from aiokafka.protocol.admin import DeleteGroupsRequest
from aiokafka.protocol.group import LeaveGroupRequest

from ops.embedded.broker import EmbeddedBroker, binary
from ops.kafka import Cluster, jars, missing
from schemas.topics import TOPICS

__all__ = ["BOTH", "EMBEDDED_ONLY", "KAFKA_ONLY", "cluster", "only", "own", "shared", "wipe"]

# Parameters of fixtures such as `stack`: a test runs on both brokers, or on one.
EMBEDDED = pytest.param("embedded", marks=pytest.mark.skipif(
    binary() is None, reason="noida-db is not installed (pip install 'attn[embedded]')"))
KAFKA = pytest.param("kafka", marks=pytest.mark.kafka)
BOTH = (EMBEDDED, KAFKA)


def only(kind: Any, fixture: str = "stack") -> pytest.MarkDecorator:
    return pytest.mark.parametrize(fixture, [kind], indirect=True)


EMBEDDED_ONLY, KAFKA_ONLY = only(EMBEDDED), only(KAFKA)

ADDRESS = "ATTN_TEST_KAFKA"
IMAGE = "confluentinc/cp-kafka:8.1.0"  # Apache Kafka 4.1, in a packaging that testcontainers supports
# Test brokers run briefly: without Java's optimising compiler they use less CPU.
JVM = ("-XX:TieredStopAtLevel=1",)
# Other nodes drop a killed node after 3 s instead of 9: many tests wait for this. The cleaner polls every 0.2 s instead
# of 15.
QUICK = {
    "broker.session.timeout.ms": "3000", "broker.heartbeat.interval.ms": "500", "log.cleaner.backoff.ms": "200",
}
OURS = frozenset(topic.name for topic in TOPICS)
NOT_THERE = 3  # UNKNOWN_TOPIC_OR_PARTITION


@asynccontextmanager
async def shared(directory: Path) -> AsyncIterator[str]:
    """Yields the address of a Kafka: that of ATTN_TEST_KAFKA, or one in Docker, or one of `ops.kafka`. If none can run,
    skips the test."""
    if address := os.environ.get(ADDRESS):
        yield address
    elif _docker_answers():
        from testcontainers.community.kafka import KafkaContainer  # imports for half a second; needed with Docker only

        container = KafkaContainer(IMAGE).with_kraft()
        container.with_env("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false")
        with container:
            yield container.get_bootstrap_server()
    else:
        async with cluster(directory, 1) as kafka:
            yield kafka.bootstrap


def _docker_answers() -> bool:
    # In a child process: the client leaves its socket open if Docker does not answer.
    probe = [sys.executable, "-c", "import docker; docker.from_env(timeout=5).ping()"]
    return subprocess.run(probe, capture_output=True, check=False, timeout=60).returncode == 0


@asynccontextmanager
async def cluster(directory: Path, brokers: int = 3, overrides: Mapping[str, str] = {}) -> AsyncIterator[Cluster]:
    """Runs a cluster of `ops.kafka` for one test, which may kill nodes. Skips the test where Kafka cannot run."""
    if why := missing():
        pytest.skip(f"no Apache Kafka here: {why}; {ADDRESS} may name one for tests that need no own cluster")
    jvm = (*JVM, f"-XX:SharedArchiveFile={await _class_archive()}")
    kafka = Cluster(directory / "kafka", brokers, overrides=QUICK | dict(overrides), jvm=jvm)
    try:
        await kafka.start()
        yield kafka
    finally:
        kafka.kill()  # no clean stop: its data is not used again


async def _class_archive() -> Path:
    """Returns the archive of Kafka's parsed classes (Java's AppCDS), created once per machine.

    With the archive a node starts with 2.9 s of CPU instead of 4.4. Java ignores an archive of other versions of Java
    or of the jars.
    """
    version = hashlib.sha256(Path(jars.java()).resolve().read_bytes()).hexdigest()[:8]
    jar_directory = await asyncio.to_thread(jars.resolve)
    archive = jar_directory.with_name(f"{jar_directory.name}-{version}.jsa")
    if archive.exists():
        return archive
    with archive.with_suffix(".lock").open("w") as lock:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        if not archive.exists():
            with TemporaryDirectory() as directory:
                made = Path(directory) / "classes.jsa"
                node = Cluster(Path(directory) / "kafka", 1, jvm=(*JVM, f"-XX:ArchiveClassesAtExit={made}"))
                await node.start()
                await node.stop(60.0)  # Java writes the archive when it exits
                if made.exists():
                    shutil.move(made, archive)
    return archive


@asynccontextmanager
async def own(kind: str, directory: Path) -> AsyncIterator[EmbeddedBroker | Cluster]:
    """Runs a broker for one test. The test may call `start`, `stop` and `kill` any number of times."""
    if kind == "kafka":
        async with cluster(directory, 1) as kafka:
            yield kafka
        return
    broker = EmbeddedBroker(directory / "broker")
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


async def wipe(bootstrap: str, patience: float = 30.0) -> None:
    """Deletes attn's topics and groups. Returns once they are deleted and their names can be used again."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=10_000)
    await admin.start()
    try:
        deadline = time.monotonic() + patience
        while left := [*await _drop_groups(admin), *await _drop_topics(admin)]:
            assert time.monotonic() < deadline, f"still there after {patience:.0f} s: {left}"
            await asyncio.sleep(0.05)
    finally:
        await admin.close()


def _is_ours(name: str) -> bool:
    return name in OURS or name.startswith("attn")


async def _drop_topics(admin: AIOKafkaAdminClient) -> list[str]:
    """Requests the deletion of attn's topics. Returns those that still existed: the broker deletes them later."""
    names = [topic["topic"] for topic in await admin.describe_topics() if _is_ours(topic["topic"])]
    if names:
        for name, code, *_ in (await admin.delete_topics(names)).topic_error_codes:
            assert code in (0, NOT_THERE), f"{name}: {for_code(code)}"
    return names


async def _drop_groups(admin: AIOKafkaAdminClient) -> list[str]:
    """Removes members and groups. Returns the groups that still existed: a killed consumer stays a member until its
    session timeout."""
    names = [name for name, _ in await admin.list_consumer_groups() if _is_ours(name)]
    for name in names:
        node = await admin.find_coordinator(name)
        for answer in await admin.describe_consumer_groups([name], node):
            for group in answer.groups:
                for member in _members(group):
                    await _ask(admin, node, LeaveGroupRequest(name, member))
        await _ask(admin, node, DeleteGroupsRequest([name]))  # fails while the group has members: `wipe` repeats it
    return names


def _members(group: tuple[Any, ...]) -> list[str]:
    members: list[tuple[Any, ...]] = group[5]
    return [member[0] for member in members]


async def _ask(admin: AIOKafkaAdminClient, node: int, request: Any) -> Any:
    return await admin._client.send(node, request)  # the admin client has no public method for these requests
