"""Generates `server.properties` of a node: Kafka's defaults, adapted to one small machine and to attn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from schemas.topics import MAX_DEAD_LETTER_BYTES

__all__ = ["HOST", "Ports", "properties"]

HOST = "127.0.0.1"  # never another: it knows no callers
Ports = tuple[int, int]  # for clients, for the quorum


def properties(number: int, ports: Sequence[Ports], data: Path, overrides: Mapping[str, str]) -> str:
    """The file's text for node `number` (from 1) of the cluster whose nodes listen on `ports`; `overrides` win."""
    clients, quorum = ports[number - 1]
    copies = len(ports)
    safe = str(min(2, copies))  # one of three may be away, and still two hold each record
    given = {
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
        "min.insync.replicas": safe,
        "offsets.topic.replication.factor": str(copies),
        "transaction.state.log.replication.factor": str(copies),
        "transaction.state.log.min.isr": safe,
        "share.coordinator.state.topic.replication.factor": str(copies),
        "share.coordinator.state.topic.min.isr": safe,
        # Fifty each is for large clusters; here they are files to open at each start.
        "offsets.topic.num.partitions": "8",
        "transaction.state.log.num.partitions": "8",
        "unclean.leader.election.enable": "false",
        "auto.create.topics.enable": "false",  # attn creates its topics as they must be
        "group.initial.rebalance.delay.ms": "0",
        "message.max.bytes": str(MAX_DEAD_LETTER_BYTES),
        "replica.fetch.max.bytes": str(MAX_DEAD_LETTER_BYTES),
        "log.cleaner.dedupe.buffer.size": str(32 << 20),  # of 128 MiB: the heap is small; a million keys a pass
    }
    return "".join(f"{name}={value}\n" for name, value in (given | dict(overrides)).items())
