"""Generates `server.properties` of a node: Kafka's defaults, adapted to one small machine and to attn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from schemas.topics import MAX_DEAD_LETTER_BYTES

__all__ = ["HOST", "Ports", "properties"]

HOST = "127.0.0.1"  # loopback only: the listeners have no authentication
Ports = tuple[int, int]  # of clients, of the quorum


def properties(number: int, ports: Sequence[Ports], data: Path, overrides: Mapping[str, str]) -> str:
    """Returns the file for node `number` (from 1). `ports`: those of all nodes. `overrides` replace the values here."""
    clients, quorum = ports[number - 1]
    copies = len(ports)
    min_isr = str(min(2, copies))  # 2 of 3 nodes hold each acknowledged record, so one node may be down
    settings = {
        "process.roles": "broker,controller",
        "node.id": str(number),
        "controller.quorum.voters": ",".join(
            f"{voter}@{HOST}:{port}" for voter, (_, port) in enumerate(ports, start=1)),
        "listeners": f"PLAINTEXT://{HOST}:{clients},CONTROLLER://{HOST}:{quorum}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{clients}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(data),
        "default.replication.factor": str(copies),
        "min.insync.replicas": min_isr,
        "offsets.topic.replication.factor": str(copies),
        "transaction.state.log.replication.factor": str(copies),
        "transaction.state.log.min.isr": min_isr,
        "share.coordinator.state.topic.replication.factor": str(copies),
        "share.coordinator.state.topic.min.isr": min_isr,
        # The default of 50 suits large clusters; each partition means files to open at each start.
        "offsets.topic.num.partitions": "8",
        "transaction.state.log.num.partitions": "8",
        "unclean.leader.election.enable": "false",
        "auto.create.topics.enable": "false",  # attn creates its topics with their own settings
        "group.initial.rebalance.delay.ms": "0",
        "message.max.bytes": str(MAX_DEAD_LETTER_BYTES),
        "replica.fetch.max.bytes": str(MAX_DEAD_LETTER_BYTES),
        # The default of 128 MiB is too much for the small heap. 32 MiB hold a million keys per pass.
        "log.cleaner.dedupe.buffer.size": str(32 << 20),
    }
    return "".join(f"{name}={value}\n" for name, value in (settings | dict(overrides)).items())
