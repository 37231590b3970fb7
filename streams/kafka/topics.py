"""Creates the topics of `schemas.topics` where they are missing, and refuses to run on topics that don't fit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    InvalidReplicationFactorError,
    KafkaError,
    LeaderNotAvailableError,
    TopicAlreadyExistsError,
    for_code,
)

from schemas.settings import Settings
from schemas.topics import (
    DEAD_LETTERS,
    MAX_DEAD_LETTER_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_SOURCE_BYTES,
    TOPICS,
    VIEWS,
    Topic,
)
from streams.kafka.connection import client_arguments, close_client
from streams.kafka.diagnostics import diagnose

__all__ = [
    "BrokerUnavailable", "TopicError", "configs", "dead_letter_bytes", "ensure_topics", "ensure_topics_or_stop",
    "partitions",
]


# What the broker takes as a dead letter: `max.message.bytes` of the topic, as it was when this process checked it.
_dead_letter_bytes = MAX_DEAD_LETTER_BYTES

_HOUR_MS = 3_600_000
_PATIENCE = 30.0  # seconds for the brokers to answer, and for new topics to have leaders
_PAUSE = 0.5  # seconds

log = logging.getLogger(__name__)


class TopicError(Exception):
    """The broker's topics don't fit the settings, or can't be created; `str(error)` is for the operator."""


class BrokerUnavailable(TopicError):
    """There is nobody to ask, or not yet: it may be tried again."""


def partitions(topic: Topic, settings: Settings) -> int:
    return {"log": settings.log_partitions, "source": settings.source_partitions, "one": 1}[topic.partitions]


def dead_letter_bytes() -> int:
    """The largest record batch that the topic dead-letters accepts, in bytes; at most MAX_DEAD_LETTER_BYTES."""
    return _dead_letter_bytes


def configs(topic: Topic, settings: Settings) -> dict[str, str]:
    """The topic's configuration. Kafka stamps times itself: retention must not depend on the clock of a producer."""
    limit = {"source": MAX_SOURCE_BYTES, "dead-letters": MAX_DEAD_LETTER_BYTES}.get(topic.retention, MAX_MESSAGE_BYTES)
    found = {
        "cleanup.policy": topic.cleanup,
        "max.message.bytes": str(limit),
        "message.timestamp.type": "LogAppendTime",
        # One replica may be away and acks=all still means that two hold the record.
        "min.insync.replicas": str(max(1, settings.replication - 1)),
    }
    if topic.cleanup == "compact":
        lag = int(settings.resume_hours * _HOUR_MS)
        # Kafka compacts closed segments only, so they are closed often: recovery and new edges read what is left.
        return found | {
            "min.compaction.lag.ms": str(lag), "segment.ms": str(max(lag, _HOUR_MS)), "segment.bytes": str(128 << 20),
            "min.cleanable.dirty.ratio": "0.2",
        }
    hours = {
        "source": settings.source_retention_hours, "log": settings.log_retention_hours,
        "facts": settings.facts_retention_hours, "dead-letters": settings.dead_letter_retention_hours,
    }[topic.retention]
    return found | {"retention.ms": str(hours * _HOUR_MS)}


async def ensure_topics(settings: Settings, patience: float = _PATIENCE) -> None:
    """Create what is missing, wait until it can be used, check what was there. May run in many processes at once.

    Brokers that are away or still starting are waited for, `patience` seconds. BrokerUnavailable: they don't
    come, or too few. TopicError: they refuse, or a topic there does not fit the settings.
    """
    deadline = asyncio.get_running_loop().time() + patience
    while True:
        try:
            return await _ensured(settings, deadline)
        except KafkaError as error:
            if asyncio.get_running_loop().time() > deadline:
                said = error if isinstance(error, InvalidReplicationFactorError) else await diagnose(settings)
                raise BrokerUnavailable(str(said) if said else f"topics at {settings.kafka}: {error!r}") from error
        await asyncio.sleep(_PAUSE)


async def ensure_topics_or_stop(settings: Settings, stop: asyncio.Event) -> bool:
    """The same, unless `stop` is set before: False. Whoever stops a role need not wait for brokers to come."""
    tasks = asyncio.create_task(ensure_topics(settings)), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            tasks[0].result()
        return tasks[0].done()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _ensured(settings: Settings, deadline: float) -> None:
    admin = AIOKafkaAdminClient(**client_arguments(settings), request_timeout_ms=10_000)
    try:
        await admin.start()
        found = await _leaders(admin)
        missing = [topic for topic in TOPICS if topic.name not in found]
        if missing:
            await _create(admin, missing, settings)
        _check(await _until_ready(admin, deadline), settings)
        await _check_configs(admin, settings)
    finally:
        await close_client(admin)


async def _leaders(admin: AIOKafkaAdminClient) -> dict[str, list[bool]]:
    """Topic -> whether each partition has a leader. Asks for all topics: asking for one by name may create it."""
    return {
        topic["topic"]: [part["leader"] >= 0 for part in topic["partitions"]]
        for topic in await admin.describe_topics() if not topic["error_code"]
    }


async def _create(admin: AIOKafkaAdminClient, missing: list[Topic], settings: Settings) -> None:
    new = [
        NewTopic(topic.name, partitions(topic, settings), settings.replication, topic_configs=configs(topic, settings))
        for topic in missing
    ]
    for name, code, *message in (await admin.create_topics(new)).topic_errors:
        # Another process of ours may have been faster.
        if code in (0, TopicAlreadyExistsError.errno):
            continue
        said = f"cannot create topic {name}: {for_code(code).__name__} {' '.join(filter(None, message))}"
        # Too few brokers are there, perhaps not yet.
        if for_code(code).retriable or code == InvalidReplicationFactorError.errno:
            raise for_code(code)(f"{said} (ATTN_REPLICATION is {settings.replication})")
        raise TopicError(said)


async def _until_ready(admin: AIOKafkaAdminClient, deadline: float) -> dict[str, list[bool]]:
    while True:
        found = await _leaders(admin)
        waiting = [topic.name for topic in TOPICS if not all(found.get(topic.name) or [False])]
        if not waiting:
            return found
        if asyncio.get_running_loop().time() > deadline:
            raise LeaderNotAvailableError(f"topics whose partitions have no leader: {', '.join(waiting)}")
        await asyncio.sleep(0.1)


def _check(found: Mapping[str, list[bool]], settings: Settings) -> None:
    """A workspace's partition follows from their number, so the log, the views and the facts can't have another one."""
    wrong = [
        f"{topic.name} has {len(found[topic.name])} partitions, ATTN_LOG_PARTITIONS says {settings.log_partitions}"
        for topic in TOPICS if topic.partitions == "log" and len(found[topic.name]) != settings.log_partitions
    ]
    if wrong:
        raise TopicError("; ".join(wrong))


async def _check_configs(admin: AIOKafkaAdminClient, settings: Settings) -> None:
    """Views that are deleted by time (a broker created the topic by itself, say) would lose the state in silence. Less
    safety than was asked for is told: the brokers take what is written all the same."""
    names = [topic.name for topic in TOPICS]
    answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
    entries: dict[str, dict[str, Any]] = {
        resource[3]: {entry[0]: entry[1] for entry in resource[4]}
        for answer in answers for resource in answer.resources
    }
    _note_limit(entries.get(DEAD_LETTERS, {}).get("max.message.bytes"))
    policy = entries.get(VIEWS, {}).get("cleanup.policy", "compact")
    if policy != "compact":
        raise TopicError(f"topic {VIEWS} has cleanup.policy={policy}; it must be compact, or rows of the view are lost")
    copies = {topic["topic"]: min(len(part["replicas"]) for part in topic["partitions"])
              for topic in await admin.describe_topics() if topic["topic"] in names}
    needed = {name: int(found.get("min.insync.replicas", 1)) for name, found in entries.items()}
    if few := [f"{name} ({count})" for name, count in sorted(copies.items()) if count < settings.replication]:
        log.warning("topics with fewer replicas than ATTN_REPLICATION=%d: %s; what is acknowledged there may be lost "
                    "with a broker", settings.replication, ", ".join(few))
    if settings.replication > 1 and (weak := sorted(name for name, count in needed.items() if count < 2)):
        log.warning("topics with min.insync.replicas below 2: %s; what is acknowledged there may be lost with a broker",
                    ", ".join(weak))


def _note_limit(given: str | None) -> None:
    global _dead_letter_bytes
    _dead_letter_bytes = min(int(given or MAX_DEAD_LETTER_BYTES), MAX_DEAD_LETTER_BYTES)
