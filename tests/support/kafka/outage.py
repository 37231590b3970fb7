"""The stack of the broker fault tests: three brokers, supervised workers and edges, a producer and feed readers. Also
the checks of its results."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import statistics
import subprocess
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import httpx
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError
from support.edge.edges import SECRET
from support.events.generator import SLOT, SLOTS, generate
from support.kafka import brokers
from support.kafka.pipeline import Records, Seen, caught_up, check, eventually, read
from support.kafka.steady_producer import PATIENCE, Producer
from support.model import Model, Reader
from support.processes.cli import attn

from chaos.checks.verify import check_edges
from chaos.environment.edge_client import EdgeClient
from chaos.workload.feed_readers import Follower
from chaos.workload.load import beating
from ops.kafka import Cluster, Node
from ops.process.ports import free_port
from ops.process.supervisor import SupervisedProcess, role_command
from schemas.settings import Settings
from schemas.topics import LOG, TOPICS, VIEWS
from schemas.views import position_key
from streams.kafka import topics

__all__ = ["PARTITIONS", "Rig", "rig"]

PARTITIONS = 3
READER = Reader("nobody", "OWNER")

log = logging.getLogger(__name__)


class Rig:
    """The running stack. `ops.process.supervisor` restarts `parts` by its own policy and collects `log_lines`."""

    def __init__(self, kafka: Cluster, home: Path, workers: int, edges: int) -> None:
        self.kafka, self.home = kafka, home
        self.settings = Settings(
            _env_file=None, kafka=kafka.bootstrap, log_partitions=PARTITIONS, source_partitions=2,
            replication=kafka.copies, heartbeat_seconds=1.0, data_dir=home,
        )
        self.workspaces = beating(PARTITIONS)  # one in each partition
        self.urls: dict[str, str] = {}
        self.log_lines: dict[str, list[str]] = {}
        self.followers: list[Follower] = []
        self.edge_clients: list[EdgeClient] = []
        self.parts = {name: self._part(name) for name in (
            *(f"worker-{number + 1}" for number in range(workers)), *(f"edge-{number + 1}" for number in range(edges)))}
        self._tasks: list[asyncio.Task[None]] = []
        self.lines: list[dict[str, Any]] = []
        self._events = iter(self._load())

    def _load(self) -> list[dict[str, Any]]:
        """Returns events of the last days, of every type, in every workspace. Some items get due during the tests."""
        start = datetime.now(UTC).replace(second=0, microsecond=0) - SLOTS * SLOT - timedelta(minutes=45)
        return generate(7, 20_000, subjects=25, workspaces=tuple(self.workspaces), start=start)

    def _part(self, name: str) -> SupervisedProcess:
        role, _, number = name.partition("-")
        given = self.settings.model_dump(include=self.settings.model_fields_set, mode="json")
        env = {f"ATTN_{field.upper()}": str(value) for field, value in given.items()}
        env |= {"ATTN_INSTANCE": number, "ATTN_LOG_FORMAT": "json", "ATTN_JWT_SECRET": SECRET}
        env["ATTN_PORT" if role == "edge" else "ATTN_METRICS_PORT"] = str(port := free_port())
        self.urls[name] = f"http://127.0.0.1:{port}"
        return SupervisedProcess(name, role_command(role), env, self.home / "run", self._echo)

    def _echo(self, name: str, line: str) -> None:
        self.log_lines.setdefault(name, []).append(line)
        with (self.home / f"{name}.log").open("a") as file:
            file.write(line + "\n")

    async def start(self) -> None:
        (self.home / "run").mkdir(parents=True, exist_ok=True)
        (self.home / "secret").write_text(SECRET)
        await topics.ensure_topics(self.settings)
        self._tasks = [asyncio.create_task(part.run_forever(), name=name) for name, part in self.parts.items()]
        await eventually(self.ready, "all are ready", PATIENCE)
        for number, name in enumerate(self.edges):
            self.edge_clients.append(edge_client := EdgeClient(url := self.urls[name], self.home))
            # Each follows a single edge: another edge could hide an error of its feed.
            self.followers.append(Follower(edge_client, [url], self.workspaces[number], READER, 500, number))
        self._tasks += [asyncio.create_task(follower.run(), name=follower.name) for follower in self.followers]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(part.stop(8.0) for part in self.parts.values()))
        for edge_client in self.edge_clients:
            edge_client.client.close()

    async def ready(self) -> bool:
        async with httpx.AsyncClient(timeout=5.0, trust_env=False) as client:
            try:
                return all([(await client.get(f"{url}/readyz")).status_code == 200 for url in self.urls.values()])
            except httpx.HTTPError:
                return False

    # --- load and faults ---

    @asynccontextmanager
    async def fed(self, rate: float = 25.0, without: str = "") -> AsyncIterator[Producer]:
        """Runs a producer for all topics except `without`. Waits at the end until all its records are acknowledged.

        `proven` checks that they are folded.
        """
        producer = Producer(self.settings, (line for line in self._events if line["topic"] != without), rate)
        try:
            async with producer.running():
                yield producer
        finally:
            self.lines += producer.lines

    async def replayed(self, lines: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
        """Runs `attn replay` with events that the log may already have."""
        text = "".join(json.dumps(line) + "\n" for line in lines)
        return await asyncio.to_thread(
            attn, "replay", "-", "--kafka", self.kafka.bootstrap, cwd=self.home, stdin=text, timeout=PATIENCE)

    def more(self, count: int) -> list[dict[str, Any]]:
        """Returns events that were not sent yet."""
        return list(islice(self._events, count))

    async def configured(self, name: str, **more: str) -> None:
        """Sets attn's topic settings, changed by `more`. Names have `_` in place of `.`."""
        (topic,) = (topic for topic in TOPICS if topic.name == name)
        config = topics.configs(topic, self.settings) | {word.replace("_", "."): value for word, value in more.items()}
        admin = AIOKafkaAdminClient(bootstrap_servers=self.settings.kafka)
        try:
            await admin.start()
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, config)])
        finally:
            await admin.close()

    async def everything(self) -> dict[str, list[dict[str, Any]]]:
        """Returns the partitions of all topics, internal ones included, as a broker describes them."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.settings.kafka, request_timeout_ms=5_000)
        try:
            await admin.start()
            return {topic["topic"]: topic["partitions"] for topic in await admin.describe_topics()}
        finally:
            await admin.close()

    async def in_sync(self) -> None:
        """Waits until all replicas of every partition are in sync. Operators stop the next broker only then."""
        async def look() -> bool:
            try:
                partitions = await self.everything()
            except (KafkaError, OSError, TimeoutError):
                return False
            return all(set(part["isr"]) == set(part["replicas"]) for parts in partitions.values() for part in parts)

        await eventually(look, "all replicas are in sync", PATIENCE)

    async def led_by(self, names: Iterable[str]) -> dict[tuple[str, int], int]:
        """Returns the leader of each partition of these topics."""
        partitions = await self.everything()
        return {(name, part["partition"]): part["leader"] for name in names for part in partitions[name]}

    def node(self, number: int) -> Node:
        return self.kafka.nodes[number - 1]

    def controller(self) -> Node:
        """Returns the leader of the quorum: that of the newest epoch in the nodes' state files."""
        newest = (-1, -1)
        for node in self.kafka.nodes:
            with suppress(OSError, ValueError, KeyError):
                state = json.loads((node.directory / "data" / "__cluster_metadata-0" / "quorum-state").read_text())
                newest = max(newest, (int(state["leaderEpoch"]), int(state["leaderId"])))
        return self.node(newest[1])

    async def led_elsewhere(self, dead: Node) -> None:
        """Waits until other nodes lead the partitions of this node."""
        async def look() -> bool:
            try:
                return dead.number not in (await self.led_by([LOG, VIEWS])).values()
            except (KafkaError, OSError, TimeoutError):
                return False

        await eventually(look, "other nodes lead", PATIENCE)

    async def back(self, *nodes: Node) -> None:
        """Starts nodes again and waits until all replicas are in sync."""
        await asyncio.gather(*(node.spawn() for node in nodes))
        await self.kafka.wait_ready(PATIENCE)
        await self.in_sync()

    def kill(self, name: str) -> None:
        """Sends SIGKILL to a process. The supervisor restarts it."""
        if (pid := self.parts[name].pid) is not None:
            os.kill(pid, signal.SIGKILL)

    @property
    def pids(self) -> dict[str, int | None]:
        return {name: part.pid for name, part in self.parts.items()}

    @property
    def edges(self) -> dict[str, int | None]:
        return {name: pid for name, pid in self.pids.items() if name.startswith("edge")}

    def has_logged(self, words: str, since: dict[str, int]) -> bool:
        """Returns whether any process logged `words` after its first `since[name]` lines."""
        return any(words in line for name, count in since.items() for line in self.log_lines[name][count:])

    # --- checks ---

    async def proven(self) -> Seen:
        """Fails unless all acknowledged events are folded exactly once, and edges and feeds equal the model."""
        for task in self._tasks:
            assert not task.done(), f"{task.get_name()} has exited: {task}"
        seen = await eventually(self._folded, "everything acknowledged is folded", PATIENCE)
        check(seen, self.settings)
        event_ids = [fact.event_id for fact in seen.unique_facts() if not fact.derived]
        assert len(event_ids) == len(set(event_ids)), "an event was folded twice"
        sent = {f"{line['value']['source']} {line['value']['id']}" for line in self.lines}
        assert set(event_ids) == sent, f"{len(sent - set(event_ids))} lost, {len(set(event_ids) - sent)} never sent"
        assert not seen.letters
        await self._edges_proven()
        return seen

    async def _folded(self) -> Seen | None:
        with suppress(KafkaError, TimeoutError):
            return await caught_up(self.settings, len(self.lines))
        return None

    async def _edges_proven(self) -> None:
        await eventually(self.ready, "all are ready", PATIENCE)
        differences = [await follower.difference(self.edge_clients, PATIENCE) for follower in self.followers]
        assert not any(differences), differences
        model = Model(self.lines)
        wrong = await check_edges(model, self.edge_clients, self.workspaces, 1, log.info)
        assert not wrong, "\n".join(wrong)

    def silences(self, views: Records, begun: float, ended: float) -> dict[int, float]:
        """Returns, by partition, the longest time in seconds without a new batch in attn.views, by the brokers' clock.

        Counts only gaps that overlap the time from `begun` to `ended` (time.time()).
        """
        gaps = {}
        for partition, records in views.items():
            at = [record.timestamp / 1000 for record in records if record.key == position_key(partition)]
            gaps[partition] = max(
                (later - earlier for earlier, later in pairwise(at) if later > begun and earlier < ended), default=0.0)
        return gaps

    async def report(self, fault: str, begun: float, ended: float) -> list[float]:
        """Logs the longest gaps of the view and of the readers during a fault. Returns those of the view, sorted."""
        lengths = sorted(self.silences(await read(self.settings, VIEWS), begun, ended).values())
        shift = time.time() - time.monotonic()
        feeds = [
            max((b - a for a, b in pairwise(follower.seen) if b + shift > begun and a + shift < ended), default=0.0)
            for follower in self.followers
        ]
        line = (f"{fault}: nothing new in attn.views for p50 {statistics.median(lengths):.1f} s, "
                f"max {lengths[-1]:.1f} s; at readers {max(feeds):.1f} s")
        log.warning(line)
        with (self.home / "report.txt").open("a") as file:
            file.write(line + "\n")
        return lengths


@asynccontextmanager
async def rig(home: Path, workers: int = 2, edges: int = 2) -> AsyncIterator[Rig]:
    """Starts the whole stack and yields it once all processes are ready."""
    async with brokers.cluster(home, 3) as kafka:
        running = Rig(kafka, home, workers, edges)
        try:
            await running.start()
            yield running
        finally:
            await running.stop()
