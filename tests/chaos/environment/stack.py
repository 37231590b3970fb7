"""Kafka, workers, edges and history as processes, kept alive by `ops.process.supervisor`, as `attn up` does."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import IO

import httpx
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError
from support.delivery.records import endpoints_file

from chaos.workload import receiver
from ops.kafka import Cluster, Node
from ops.process import identity
from ops.process.ports import free_port
from ops.process.supervisor import RestartLimitReached, RestartPolicy, SupervisedProcess, role_command
from schemas.settings import Settings
from schemas.topics import TOPICS, VIEWS
from streams.kafka import topics

__all__ = ["RECEIVERS", "Stack"]

_STOP = 15.0  # seconds until a stopped process is killed
_START = 600.0  # seconds until everything is ready; the machine may be busy
# As `attn up` restarts, but without a limit: the harness kills processes repeatedly.
_POLICY = RestartPolicy(max_delay=2.0, max_failures=1 << 30)
RECEIVERS = "chaos-sources"  # consumer group of the receiver
_BROKER = {
    # Flush often, so that a slow disk has an effect.
    "log.flush.interval.messages": "20",
    "log.cleaner.backoff.ms": "3000",
    # As docs/operations.md recommends: the leaders of a dead broker are replaced after 5 s instead of 9 s.
    "broker.session.timeout.ms": "5000",
    "broker.heartbeat.interval.ms": "1000",
    # A write with acks=all to a new leader waits until its followers fetch: they pause for 1 s after an error, and an
    # empty fetch waits for 0.5 s.
    "replica.fetch.backoff.ms": "100",
    "replica.fetch.wait.max.ms": "100",
}


class Stack:
    """`async with Stack(home, ...) as stack` starts all processes, waits until they are ready, stops them last."""

    def __init__(
        self, home: Path, brokers: int, workers: int, edges: int, partitions: int, often: bool = False
    ) -> None:
        """`often`: brokers are restarted so often that half a minute is spent to make their start cheaper."""
        self.home = home
        self._often = often
        self.kafka = Cluster(home / "kafka", brokers=brokers, overrides=_BROKER)
        self.data_dir = home / "data"
        self.secret = secrets.token_hex(24)
        self.settings = Settings(
            kafka=self.kafka.bootstrap, data_dir=self.data_dir, log_partitions=partitions, source_partitions=2,
            replication=brokers, heartbeat_seconds=1.0, resume_hours=0.05, max_streams=1000,
            undo_seconds=2.0, decision_confirm=timedelta(seconds=25), endpoints=home / "endpoints.toml",
        )
        self.hook_port = free_port()
        self.ledger = home / "receiver.ledger"
        endpoints_file(home / "endpoints.toml", hook=f"http://127.0.0.1:{self.hook_port}/decisions")
        self.parts: dict[str, SupervisedProcess] = {}
        self.ports: dict[str, int] = {}  # of edges: of HTTP; of others: of metrics
        self._keeping: dict[str, asyncio.Task[None]] = {}
        self._logs: dict[str, IO[str]] = {}
        self._first = [*self._names("worker", workers), *self._names("edge", edges), "history-1", "deliver-1",
                       "receiver-1"]

    @staticmethod
    def _names(role: str, count: int) -> list[str]:
        return [f"{role}-{number}" for number in range(1, count + 1)]

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for name, port in sorted(self.ports.items()) if name.startswith("edge")]

    def running(self, role: str) -> list[str]:
        return sorted(name for name in self._keeping if name.startswith(role))

    async def __aenter__(self) -> Stack:
        for directory in (self.data_dir, self.home / "run", self.home / "logs"):
            directory.mkdir(parents=True, exist_ok=True)
        (self.data_dir / "secret").write_text(self.secret)
        try:
            os.environ["JAVA_TOOL_OPTIONS"] = await self._java()
            await self.kafka.start(_START)
            await self._compacting()
            for name in self._first:
                self.add(name)
            await self.ready(_START)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for name in list(self._keeping):
            self.resume(name)
        await asyncio.gather(*(self.remove(name) for name in list(self._keeping)), return_exceptions=True)
        for node in self.kafka.nodes:
            node.resume()
        await self.kafka.stop(10.0)
        for file in self._logs.values():
            file.close()

    async def _java(self) -> str:
        """Returns options for JVMs that run for seconds: no late optimisation, and an archive of loaded classes, which
        one JVM writes before the run."""
        options = os.environ.get("JAVA_TOOL_OPTIONS", "") + " -XX:TieredStopAtLevel=1"
        if not self._often:
            return options
        archive = self.home / "kafka.jsa"
        os.environ["JAVA_TOOL_OPTIONS"] = f"{options} -XX:ArchiveClassesAtExit={archive}"
        async with Cluster(self.home / "archive"):
            pass
        return f"{options} -XX:SharedArchiveFile={archive}"

    async def _compacting(self) -> None:
        """Creates attn.views as attn does, but with segments that are compacted during the run, so that workers, edges
        and checks read a topic with gaps."""
        topic = next(topic for topic in TOPICS if topic.name == VIEWS)
        often = {"segment.ms": "30000", "min.cleanable.dirty.ratio": "0.01"}
        admin = AIOKafkaAdminClient(bootstrap_servers=self.settings.kafka, request_timeout_ms=30_000)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(
                VIEWS, topics.partitions(topic, self.settings), self.settings.replication,
                topic_configs=topics.configs(topic, self.settings) | often)])
        finally:
            await admin.close()

    def add(self, name: str) -> None:
        """Starts a process, and restarts it whenever it ends."""
        role, _, number = name.partition("-")
        port = self.ports.setdefault(name, free_port())
        part = self.parts[name] = SupervisedProcess(
            name, self._command(role), self._env(role, number, port), self.home / "run", self._echo, _POLICY)
        self._keeping[name] = asyncio.create_task(part.run_forever(), name=name)

    def _command(self, role: str) -> list[str]:
        """Starts the receiver. It is a source: attn gives it only the address of Kafka."""
        if role != "receiver":
            return role_command(role)
        return [sys.executable, "-P", receiver.__file__, self.settings.kafka, RECEIVERS, str(self.ledger)]

    def _env(self, role: str, number: str, port: int) -> dict[str, str]:
        given = self.settings.model_dump(include=self.settings.model_fields_set, mode="json")
        found = {f"ATTN_{name.upper()}": str(value) for name, value in given.items()}
        own = {"ATTN_PORT": str(port)} if role == "edge" else {"ATTN_METRICS_PORT": str(port)}
        return found | own | {"ATTN_INSTANCE": number, "ATTN_JWT_SECRET": self.secret, "ATTN_LOG_FORMAT": "json"}

    def _echo(self, name: str, line: str) -> None:
        if name not in self._logs:
            self._logs[name] = (self.home / "logs" / f"{name}.log").open("a", buffering=1)
        self._logs[name].write(line + "\n")

    async def remove(self, name: str) -> bool:
        """Stops a process without a restart. Returns whether it ended within its time."""
        keeping = self._keeping.pop(name)
        keeping.cancel()
        with suppress(asyncio.CancelledError, RestartLimitReached):
            await keeping
        return await self.parts[name].stop(_STOP)

    def signal(self, name: str, signum: int) -> identity.ProcessIdentity | None:
        """Sends a signal to the process if it runs."""
        pid = self.parts[name].pid
        found = identity.identify(pid) if pid is not None else None
        if found is not None:
            with suppress(ProcessLookupError):
                os.kill(found.pid, signum)
        return found

    def resume(self, name: str) -> None:
        self.signal(name, signal.SIGCONT)

    def check(self) -> None:
        """Raises the error of a supervisor task."""
        for task in self._keeping.values():
            if task.done():
                task.result()

    def controller(self) -> Node | None:
        """Returns the leader of the quorum from the files of the nodes."""
        newest: tuple[int, int] = (-1, -1)
        for node in self.kafka.nodes:
            path = node.directory / "data" / "__cluster_metadata-0" / "quorum-state"
            with suppress(OSError, ValueError, KeyError):
                state = json.loads(path.read_text())
                newest = max(newest, (int(state["leaderEpoch"]), int(state["leaderId"])))
        return next((node for node in self.kafka.nodes if node.number == newest[1]), None)

    async def in_sync(self) -> bool:
        """Returns whether all replicas of all partitions are in sync. False also if no broker answers."""
        try:
            async with asyncio.timeout(15.0):
                admin = AIOKafkaAdminClient(bootstrap_servers=self.settings.kafka, request_timeout_ms=5_000)
                try:
                    await admin.start()
                    found = await admin.describe_topics()
                finally:
                    await admin.close()
        except (KafkaError, OSError, TimeoutError):
            return False
        parts = [part for topic in found for part in topic["partitions"]]
        return bool(parts) and all(set(part["isr"]) == set(part["replicas"]) for part in parts)

    async def ready(self, seconds: float) -> None:
        """Returns when every process is ready by /readyz. Raises TimeoutError with the names of the others."""
        waiting = {name for name in self._keeping if not name.startswith("receiver")}
        async with httpx.AsyncClient(timeout=2.0, trust_env=False) as client:
            until = asyncio.get_running_loop().time() + seconds
            while waiting:
                self.check()
                waiting -= {name for name in waiting if await self._is_ready(client, name)}
                if waiting and asyncio.get_running_loop().time() > until:
                    raise TimeoutError(f"not ready after {seconds:.0f} s: {', '.join(sorted(waiting))}")
                await asyncio.sleep(0.3)

    async def _is_ready(self, client: httpx.AsyncClient, name: str) -> bool:
        try:
            return (await client.get(f"http://127.0.0.1:{self.ports[name]}/readyz")).status_code == 200
        except httpx.HTTPError:
            return False
