"""Runs an Apache Kafka cluster of one or three nodes on this machine. One directory holds its state."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from aiokafka.client import AIOKafkaClient

from ops.errors import UserError
from ops.kafka import jars
from ops.kafka.node import Node
from ops.kafka.properties import Ports
from ops.process.ports import free_port
from streams.runtime import private_files

__all__ = ["Cluster", "Plan"]

SIZES = (1, 3)


class Plan:
    """The cluster's id and each node's ports. `cluster.json` stores them, so a restart uses the same ones."""

    def __init__(self, cluster_id: str, ports: Sequence[Ports]) -> None:
        self.cluster_id = cluster_id
        self.ports = tuple(ports)

    @classmethod
    def read(cls, directory: Path) -> Plan | None:
        """Reads the plan of a directory. Returns None if it has none; raises UserError if its plan is invalid."""
        try:
            stored = json.loads((directory / "cluster.json").read_text())
            return cls(stored["id"], [(int(client), int(quorum)) for client, quorum in stored["ports"]])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{directory / 'cluster.json'} is not readable ({error!r})") from None

    @classmethod
    def of(cls, directory: Path, brokers: int | None, port: int) -> Plan:
        """Reads the plan of the directory, or creates it.

        Raises UserError if the existing plan has another number of brokers, or another port, than the caller wants.
        """
        plan = cls.read(directory)
        if plan is None:
            plan = cls(_new_id(), _ports(brokers or 1, port))
            plan._write(directory)
        if brokers is not None and len(plan.ports) != brokers:
            raise UserError(f"{directory} holds a cluster of {len(plan.ports)}, not of {brokers}; take another one")
        if port and plan.ports[0][0] != port:
            raise UserError(f"the cluster in {directory} is at port {plan.ports[0][0]} and stays there")
        return plan

    def _write(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        with private_files.replace_atomically(directory / "cluster.json") as draft:
            draft.write_text(json.dumps({"id": self.cluster_id, "ports": self.ports}))


def _new_id() -> str:
    while (cluster_id := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass  # Kafka's storage tool would parse an id with a leading "-" as a flag
    return cluster_id


def _ports(brokers: int, port: int) -> list[Ports]:
    """Returns two adjacent ports per node: for clients and for the quorum. `port`: the first one; 0: free ports."""
    if brokers not in SIZES:
        raise UserError(f"a cluster here has 1 or 3 brokers, not {brokers}", code=2)
    if port:
        return [(port + 2 * number, port + 2 * number + 1) for number in range(brokers)]
    pairs: dict[int, Ports] = {}
    while len(pairs) < brokers:
        client = free_port()
        if not {client - 1, client + 1} & pairs.keys():
            pairs[client] = (client, client + 1)
    return list(pairs.values())


class Cluster:
    """Starts and stops all nodes together. A restart uses the same data and ports.

        async with Cluster(directory, brokers=3) as kafka:
            kafka.nodes[0].kill()

    `brokers`: number of nodes; None: as many as the directory has, or one if it has none. `port`: client port of the
    first node; 0: free ports. `overrides`: lines of server.properties for all nodes. `tied`: the nodes end with this
    process. `jvm`: additional flags for java. The end of the block stops the nodes cleanly. Raises UserError if Kafka
    cannot run on this machine or does not start.
    """

    def __init__(
        self, directory: Path | str, brokers: int | None = 1, *, port: int = 0,
        overrides: Mapping[str, str] = {}, tied: bool = True, jvm: Sequence[str] = (),
    ) -> None:
        self.directory = Path(directory)
        plan = Plan.of(self.directory, brokers, port)
        self.nodes = [
            Node(self.directory / f"node-{number}", number, plan.ports, plan.cluster_id, overrides, tied, jvm)
            for number in range(1, len(plan.ports) + 1)
        ]

    @property
    def bootstrap(self) -> str:
        return ",".join(node.address for node in self.nodes)

    @property
    def copies(self) -> int:
        """The highest possible replication factor: the number of nodes."""
        return len(self.nodes)

    async def __aenter__(self) -> Cluster:
        try:
            await self.start()
        except BaseException:
            self.kill()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, timeout: float = 180.0) -> None:  # noqa: ASYNC109
        """Starts the nodes that do not run. Returns when each node knows all the others."""
        await asyncio.to_thread(jars.java)
        await asyncio.to_thread(jars.resolve)  # once, before three nodes need the jars at the same time
        await asyncio.gather(*(node.spawn() for node in self.nodes))
        await self.wait_ready(timeout)

    async def wait_ready(self, timeout: float = 180.0) -> None:  # noqa: ASYNC109
        """Returns when each node answers and knows all the others. Raises UserError after `timeout` seconds."""
        numbers = {node.number for node in self.nodes}
        until = asyncio.get_running_loop().time() + timeout
        await asyncio.gather(*(node.wait_ready(timeout) for node in self.nodes))
        while any([await node.members() != numbers for node in self.nodes]):
            if asyncio.get_running_loop().time() > until:
                raise UserError(f"the Kafka nodes in {self.directory} don't see each other after {timeout:.0f} s")
            await asyncio.sleep(0.1)

    async def stop(self, timeout: float = 30.0) -> bool:  # noqa: ASYNC109
        """Stops all nodes, and kills those that still run after `timeout` seconds. Returns whether all stopped cleanly.

        Killing a node loses no acknowledged record.
        """
        return all(await asyncio.gather(*(node.stop(timeout) for node in self.nodes)))

    def kill(self) -> None:
        """Kills all nodes with SIGKILL."""
        for node in self.nodes:
            node.kill()

    async def leaders(self, topic: str) -> dict[int, Node | None]:
        """Returns the leader of each partition of the topic; None if it has none."""
        return {
            partition: self.nodes[number - 1] if number > 0 else None
            for partition, (number, _) in (await self._partitions(topic)).items()
        }

    async def leader_of(self, topic: str, partition: int) -> Node | None:
        return (await self.leaders(topic))[partition]

    async def in_sync(self, topic: str) -> dict[int, set[int]]:
        """Returns the numbers of the in-sync replicas of each partition."""
        return {partition: replicas for partition, (_, replicas) in (await self._partitions(topic)).items()}

    async def _partitions(self, topic: str) -> dict[int, tuple[int, set[int]]]:
        """Returns each partition's leader (-1 if it has none) and in-sync replicas, by the metadata of any node.

        Raises KafkaError if no node answers, UserError if the topic does not exist.
        """
        client = AIOKafkaClient(bootstrap_servers=self.bootstrap, request_timeout_ms=5000)
        try:
            await client.bootstrap()
            metadata = await client.fetch_all_metadata()
        finally:
            await client.close()
        if topic not in metadata.topics():
            raise UserError(f"no topic {topic} at {self.bootstrap}")
        return {number: (part.leader, set(part.isr)) for number, part in metadata._partitions[topic].items()}
