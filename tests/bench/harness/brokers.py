"""The broker of a bench: embedded, an own Apache Kafka of one or three nodes, or a running Kafka."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from ops.embedded.broker import EmbeddedBroker
from ops.kafka import Cluster
from schemas.topics import TOPICS

__all__ = ["Ground", "add_options", "admin", "ground", "make"]

EMBEDDED = "embedded"
_SECONDS = 60.0


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kafka", nargs="?", const="1", default=EMBEDDED, metavar="1|3|HOST:PORT[,...]",
                        help="use Apache Kafka: an own cluster of 1 or 3 nodes, or a running one without topics of "
                             "attn (default: the embedded broker)")
    parser.add_argument("--replication", type=int, default=1, help="with --kafka HOST:PORT: replicas of each topic")


class Ground:
    """A broker for several measurements. `fresh()` deletes what earlier ones left, and returns the address."""

    def __init__(self, bootstrap: str = "", replication: int = 1) -> None:
        self.bootstrap = bootstrap
        self.replication = replication

    async def fresh(self) -> str:
        async with admin(self.bootstrap) as client:
            await _forget(client)
        return self.bootstrap


class _Embedded(Ground):
    """Starts a new embedded broker for each measurement: it keeps all records in memory."""

    def __init__(self) -> None:
        super().__init__()
        self._running: EmbeddedBroker | None = None

    async def fresh(self) -> str:
        await self.stop()
        self._running = EmbeddedBroker(Path(tempfile.mkdtemp(prefix="attn-bench-")))
        await self._running.start()
        return self._running.bootstrap

    async def stop(self) -> None:
        if self._running is not None:
            await self._running.stop()
            shutil.rmtree(self._running.data_dir)
            self._running = None


@asynccontextmanager
async def ground(kafka: str, replication: int = 1) -> AsyncIterator[Ground]:
    """Yields the broker that `--kafka` names. Raises SystemExit if a running Kafka has topics of attn: a bench would
    delete them."""
    async with AsyncExitStack() as stack:
        if kafka == EMBEDDED:
            chosen: Ground = _Embedded()
            stack.push_async_callback(chosen.stop)
        elif kafka.isdigit():
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="attn-bench-"))
            cluster = await stack.enter_async_context(Cluster(directory, brokers=int(kafka)))
            chosen = Ground(cluster.bootstrap, cluster.copies)
        else:
            chosen = Ground(kafka, replication)
            async with admin(kafka) as client:
                if used := _ours(await client.list_topics()):
                    raise SystemExit(f"{kafka} has topics of attn, which a bench would delete: {', '.join(used)}")
        try:
            yield chosen
        finally:
            if kafka not in (EMBEDDED, "1", "3"):
                await chosen.fresh()


@asynccontextmanager
async def admin(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def make(ground: Ground, bootstrap: str, names: Iterable[str], partitions: int, **configs: str) -> None:
    """Creates topics with the same `min.insync.replicas` as those of attn."""
    safe = {"min.insync.replicas": str(max(1, ground.replication - 1)), **configs}
    async with admin(bootstrap) as client:
        await client.create_topics([
            NewTopic(name, partitions, ground.replication, topic_configs=safe) for name in names
        ])


def _ours(names: Iterable[str]) -> list[str]:
    attn = {topic.name for topic in TOPICS}
    return sorted(name for name in names if name in attn or "bench" in name)


async def _forget(client: AIOKafkaAdminClient) -> None:
    """Deletes the topics of attn and of benches, with the offsets committed for them. Returns when they are gone."""
    async with asyncio.timeout(_SECONDS):
        while names := _ours(await client.list_topics()):
            await client.delete_topics(names)
            await asyncio.sleep(0.5)
