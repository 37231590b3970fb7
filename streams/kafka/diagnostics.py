"""What is wrong with Kafka, in one line for an operator. Its clients only tell that something took too long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError, KafkaError

from schemas.settings import Settings
from schemas.topics import TOPICS
from streams.kafka.connection import client_arguments, close_client

__all__ = ["Partition", "diagnose", "find_problems", "order_by_reachability"]

_SECONDS = 6.0  # for all questions together
_ANSWER_MS = 2000
_CONNECT_SECONDS = 1.0
_SHOWN = 3  # of what there may be hundreds
_PAUSE = 0.05  # seconds

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Partition:
    """`leader` -1: nobody; `needed`: replicas in sync without which nothing is acknowledged."""

    name: str
    leader: int
    replicas: Collection[int]
    in_sync: Collection[int]
    needed: int


async def order_by_reachability(settings: Settings) -> str:
    """The same hosts, those that answer first. Each client of ours asks them in turn, and would wait ten seconds for
    one that takes connections and says nothing: a dozen clients, longer than a role may take to start."""
    hosts = [host.strip() for host in settings.kafka.split(",") if host.strip()]
    if len(hosts) < 2:
        return settings.kafka
    answers = await asyncio.gather(*(_answers(settings.model_copy(update={"kafka": host})) for host in hosts))
    return ",".join(host for _, host in sorted(zip(answers, hosts, strict=True), key=lambda pair: not pair[0]))


async def _answers(settings: Settings) -> bool:
    client = AIOKafkaClient(**client_arguments(settings), client_id="attn-first", request_timeout_ms=_ANSWER_MS)
    try:
        async with asyncio.timeout(_ANSWER_MS / 1000):
            await client.bootstrap()
        return True
    except (KafkaError, OSError, TimeoutError):
        return False
    finally:
        await close_client(client)


async def diagnose(settings: Settings, topics: Iterable[str] | None = None) -> str | None:
    """Why some of these topics (attn's, if not given) can't be written or read at the moment; None: they can, as far as
    the brokers know."""
    names = set(topics) if topics is not None else {topic.name for topic in TOPICS}
    try:
        async with asyncio.timeout(_SECONDS):
            return await _ask(settings, names)
    except KafkaConnectionError:
        return f"no Kafka broker answers at {settings.kafka}"
    except (KafkaError, OSError, TimeoutError) as error:
        return f"Kafka at {settings.kafka} does not answer ({type(error).__name__})"


async def _ask(settings: Settings, names: set[str]) -> str | None:
    admin = AIOKafkaAdminClient(**client_arguments(settings), client_id="attn-trouble", request_timeout_ms=_ANSWER_MS)
    try:
        await admin.start()
        partitions = await _partitions(admin, names)
        cluster = await _answered(admin.describe_cluster)
    finally:
        await close_client(admin)
    listed = {broker["node_id"]: (broker["host"], broker["port"]) for broker in cluster["brokers"]}
    answers = await asyncio.gather(*(_listens(*address) for address in listed.values()))
    alive = {number for number, yes in zip(listed, answers, strict=True) if yes}
    told = find_problems(partitions, alive)
    return f"Kafka at {settings.kafka}: {'; '.join(told)}" if told else None


async def _answered(question: Callable[[], Awaitable[_T]]) -> _T:
    """The client asks any broker that it has heard of, be it one that is away: then another one."""
    while True:
        try:
            return await question()
        except KafkaError as error:
            if not error.retriable:
                raise
            await asyncio.sleep(_PAUSE)


async def _partitions(admin: AIOKafkaAdminClient, names: set[str]) -> list[Partition]:
    found = [topic for topic in await _answered(admin.describe_topics) if topic["topic"] in names]
    if not found:
        return []
    needed = await _needed(admin, [topic["topic"] for topic in found])
    return [
        Partition(f"{topic['topic']}/{part['partition']}", part["leader"], part["replicas"], part["isr"],
                  min(needed.get(topic["topic"], 1), len(part["replicas"])))  # as the brokers reckon
        for topic in found for part in topic["partitions"]
    ]


async def _needed(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, int]:
    wanted = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    answers = await _answered(lambda: admin.describe_configs(wanted))
    entries: list[tuple[str, Any]] = [
        (resource[3], entry) for answer in answers for resource in answer.resources for entry in resource[4]]
    return {name: int(entry[1]) for name, entry in entries if entry[0] == "min.insync.replicas"}


async def _listens(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def find_problems(partitions: Collection[Partition], alive: Collection[int]) -> list[str]:
    """Each thing that is wrong; a broker that is away is none by itself. One that died a moment ago is still listed as
    a leader and as in sync: so what counts is who is alive."""
    known = {number for part in partitions for number in part.replicas}
    away = sorted(known - set(alive))
    leaderless = [part.name for part in partitions if part.leader not in alive]
    few = [part for part in partitions if len(set(part.in_sync) & set(alive)) < part.needed]
    told = []
    if away and (leaderless or few):
        told.append(f"broker{'s' * (len(away) > 1)} {', '.join(map(str, away))} of {len(known)} away")
    if leaderless:
        told.append(f"{_some(leaderless)} without a leader")
    if few:
        part = few[0]
        holding = len(set(part.in_sync) & set(alive))
        told.append(
            f"{_some([part.name for part in few])} with {holding} of {len(part.replicas)} replicas in sync, "
            f"{part.needed} needed to write (min.insync.replicas)")
    return told


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
