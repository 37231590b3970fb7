"""An Apache Kafka cluster of one or three nodes on this machine, with its state in one directory."""

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
    """What stays the same over restarts, in `cluster.json`: the cluster's id and each node's ports."""

    def __init__(self, cluster_id: str, ports: Sequence[Ports]) -> None:
        self.cluster_id = cluster_id
        self.ports = tuple(ports)

    @classmethod
    def read(cls, directory: Path) -> Plan | None:
        try:
            found = json.loads((directory / "cluster.json").read_text())
            return cls(found["id"], [(int(one), int(other)) for one, other in found["ports"]])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{directory / 'cluster.json'} is not readable ({error!r})") from None

    @classmethod
    def of(cls, directory: Path, brokers: int | None, port: int) -> Plan:
        """That of the directory, else a new one. UserError: the directory's is another than the one wanted."""
        found = cls.read(directory)
        if found is None:
            found = cls(_new_id(), _ports(brokers or 1, port))
            found._write(directory)
        if brokers is not None and len(found.ports) != brokers:
            raise UserError(f"{directory} holds a cluster of {len(found.ports)}, not of {brokers}; take another one")
        if port and found.ports[0][0] != port:
            raise UserError(f"the cluster in {directory} is at port {found.ports[0][0]} and stays there")
        return found

    def _write(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        with private_files.replace_atomically(directory / "cluster.json") as draft:
            draft.write_text(json.dumps({"id": self.cluster_id, "ports": self.ports}))


def _new_id() -> str:
    while (found := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass  # a command line would take it for a flag
    return found


def _ports(brokers: int, port: int) -> list[Ports]:
    """For each node one for clients and the next one for the quorum: from `port` on, or any free ones."""
    if brokers not in SIZES:
        raise UserError(f"a cluster here has 1 or 3 brokers, not {brokers}", code=2)
    if port:
        return [(port + 2 * number, port + 2 * number + 1) for number in range(brokers)]
    found: dict[int, Ports] = {}
    while len(found) < brokers:
        one = free_port()
        if not {one - 1, one + 1} & found.keys():
            found[one] = (one, one + 1)
    return list(found.values())


class Cluster:
    """Nodes that start together, with the same data and ports each time.

        async with Cluster(directory, brokers=3) as kafka:
            kafka.nodes[0].kill()

    `brokers` None: as many as the directory holds, else one. `port` 0: free ones. `overrides`: lines of
    server.properties, for all nodes. `tied`: nodes end with this process. `jvm`: more flags for java. Leaving the block
    stops them cleanly. UserError: Kafka can't run here, or did not start.
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
        """The replication factor that uses all of it."""
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
        """Start the nodes that don't run; return when every one knows all of them."""
        await asyncio.to_thread(jars.java)
        await asyncio.to_thread(jars.resolve)  # once, before three ask for it
        await asyncio.gather(*(node.spawn() for node in self.nodes))
        await self.wait_ready(timeout)

    async def wait_ready(self, timeout: float = 180.0) -> None:  # noqa: ASYNC109
        """Return when each node answers and knows all the others."""
        everyone = {node.number for node in self.nodes}
        until = asyncio.get_running_loop().time() + timeout
        await asyncio.gather(*(node.wait_ready(timeout) for node in self.nodes))
        while any([await node.members() != everyone for node in self.nodes]):
            if asyncio.get_running_loop().time() > until:
                raise UserError(f"the Kafka nodes in {self.directory} don't see each other after {timeout:.0f} s")
            await asyncio.sleep(0.1)

    async def stop(self, timeout: float = 30.0) -> bool:  # noqa: ASYNC109
        """End all nodes. True: cleanly; who does not end in time is killed, which loses nothing acknowledged."""
        return all(await asyncio.gather(*(node.stop(timeout) for node in self.nodes)))

    def kill(self) -> None:
        """kill -9 of all of it."""
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
        """The numbers of the nodes that hold all of each partition."""
        return {partition: replicas for partition, (_, replicas) in (await self._partitions(topic)).items()}

    async def _partitions(self, topic: str) -> dict[int, tuple[int, set[int]]]:
        """Of each partition: its leader's number, -1 for none, and the numbers in sync; from any node that answers.

        KafkaError: none does. UserError: there is no such topic.
        """
        client = AIOKafkaClient(bootstrap_servers=self.bootstrap, request_timeout_ms=5000)
        try:
            await client.bootstrap()
            known = await client.fetch_all_metadata()
        finally:
            await client.close()
        if topic not in known.topics():
            raise UserError(f"no topic {topic} at {self.bootstrap}")
        return {number: (part.leader, set(part.isr)) for number, part in known._partitions[topic].items()}
