"""Explains in one line why Kafka cannot be read or written. Kafka's clients only report a timeout."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import stamina
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError, KafkaError

from schemas.settings import Settings
from schemas.topics import TOPICS
from streams.kafka.connection import client_arguments, close_client

__all__ = ["Partition", "diagnose", "find_problems", "order_by_reachability"]

_TOTAL_SECONDS = 6.0  # for all requests of one diagnosis
_REQUEST_MS = 2000
_CONNECT_SECONDS = 1.0
_MAX_NAMES = 3  # partitions named in a message; hundreds may be affected
_RETRY = stamina.AsyncRetryingCaller(attempts=None, timeout=None, wait_initial=0.05, wait_max=0.5, wait_jitter=0.05)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Partition:
    """`leader`: -1 if there is none. `needed`: the in-sync replicas that a write needs (min.insync.replicas)."""

    name: str
    leader: int
    replicas: Collection[int]
    in_sync: Collection[int]
    needed: int


async def order_by_reachability(settings: Settings) -> str:
    """Returns the bootstrap hosts, with those that answer first.

    Each client tries the hosts in order and waits 10 s for a host that accepts connections but does not answer. A
    process starts about a dozen clients, so it would exceed its time limit for the start.
    """
    hosts = [host.strip() for host in settings.kafka.split(",") if host.strip()]
    if len(hosts) < 2:
        return settings.kafka
    answers = await asyncio.gather(*(_answers(settings.model_copy(update={"kafka": host})) for host in hosts))
    return ",".join(host for _, host in sorted(zip(answers, hosts, strict=True), key=lambda pair: not pair[0]))


async def _answers(settings: Settings) -> bool:
    client = AIOKafkaClient(**client_arguments(settings), client_id="attn-first", request_timeout_ms=_REQUEST_MS)
    try:
        async with asyncio.timeout(_REQUEST_MS / 1000):
            await client.bootstrap()
        return True
    except (KafkaError, OSError, TimeoutError):
        return False
    finally:
        await close_client(client)


async def diagnose(settings: Settings, topics: Iterable[str] | None = None) -> str | None:
    """Returns why some of the topics (default: all topics of attn) cannot be written or read, or None if the brokers
    report no problem. Takes at most 6 s and does not raise."""
    names = set(topics) if topics is not None else {topic.name for topic in TOPICS}
    try:
        async with asyncio.timeout(_TOTAL_SECONDS):
            return await _diagnose_cluster(settings, names)
    except KafkaConnectionError:
        return f"no Kafka broker answers at {settings.kafka}"
    except (KafkaError, OSError, TimeoutError) as error:
        return f"Kafka at {settings.kafka} does not answer ({type(error).__name__})"


async def _diagnose_cluster(settings: Settings, names: set[str]) -> str | None:
    admin = AIOKafkaAdminClient(**client_arguments(settings), client_id="attn-trouble", request_timeout_ms=_REQUEST_MS)
    try:
        await admin.start()
        partitions = await _partitions(admin, names)
        cluster = await _retry(admin.describe_cluster)
    finally:
        await close_client(admin)
    addresses = {broker["node_id"]: (broker["host"], broker["port"]) for broker in cluster["brokers"]}
    reachable = await asyncio.gather(*(_accepts_connections(*address) for address in addresses.values()))
    alive = {broker for broker, yes in zip(addresses, reachable, strict=True) if yes}
    problems = find_problems(partitions, alive)
    return f"Kafka at {settings.kafka}: {'; '.join(problems)}" if problems else None


async def _retry(request: Callable[[], Awaitable[_T]]) -> _T:
    """Repeats a request until it succeeds: the client may choose a broker that is down. The caller sets a time
    limit."""
    result: _T = await _RETRY(_is_retriable, request)
    return result


def _is_retriable(error: Exception) -> bool:
    return isinstance(error, KafkaError) and bool(error.retriable)


async def _partitions(admin: AIOKafkaAdminClient, names: set[str]) -> list[Partition]:
    topics = [topic for topic in await _retry(admin.describe_topics) if topic["topic"] in names]
    if not topics:
        return []
    needed = await _min_in_sync(admin, [topic["topic"] for topic in topics])
    return [
        Partition(f"{topic['topic']}/{part['partition']}", part["leader"], part["replicas"], part["isr"],
                  min(needed.get(topic["topic"], 1), len(part["replicas"])))  # the brokers cap it in the same way
        for topic in topics for part in topic["partitions"]
    ]


async def _min_in_sync(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, int]:
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    answers = await _retry(lambda: admin.describe_configs(resources))
    entries: list[tuple[str, Any]] = [
        (resource[3], entry) for answer in answers for resource in answer.resources for entry in resource[4]]
    return {name: int(entry[1]) for name, entry in entries if entry[0] == "min.insync.replicas"}


async def _accepts_connections(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def find_problems(partitions: Collection[Partition], alive: Collection[int]) -> list[str]:
    """Returns the problems of the partitions: no leader, or too few in-sync replicas.

    `alive`: ids of brokers that accept connections. A broker that died a moment ago is still listed as leader and as in
    sync, so only `alive` counts. A dead broker is a problem only if it causes one of these two.
    """
    known = {broker for part in partitions for broker in part.replicas}
    dead = sorted(known - set(alive))
    leaderless = [part.name for part in partitions if part.leader not in alive]
    under_replicated = [part for part in partitions if len(set(part.in_sync) & set(alive)) < part.needed]
    problems = []
    if dead and (leaderless or under_replicated):
        problems.append(f"broker{'s' * (len(dead) > 1)} {', '.join(map(str, dead))} of {len(known)} unreachable")
    if leaderless:
        problems.append(f"{_some(leaderless)} without a leader")
    if under_replicated:
        part = under_replicated[0]
        in_sync = len(set(part.in_sync) & set(alive))
        problems.append(
            f"{_some([part.name for part in under_replicated])} with {in_sync} of {len(part.replicas)} replicas in "
            f"sync, {part.needed} needed to write (min.insync.replicas)")
    return problems


def _some(names: list[str]) -> str:
    more = len(names) - _MAX_NAMES
    return ", ".join(names[:_MAX_NAMES]) + (f" and {more} more" if more > 0 else "")
