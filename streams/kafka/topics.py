"""Creates missing topics of `schemas.topics`, and refuses topics that do not match the settings."""

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


# `max.message.bytes` of the topic dead-letters, as read when this process checked its topics.
_dead_letter_bytes = MAX_DEAD_LETTER_BYTES

_HOUR_MS = 3_600_000
_WAIT_SECONDS = 30.0  # for the brokers to answer, and for new topics to have leaders
_RETRY_SECONDS = 0.5
_LEADER_CHECK_SECONDS = 0.1

log = logging.getLogger(__name__)


class TopicError(Exception):
    """The broker's topics do not match the settings or cannot be created. The message is for the operator."""


class BrokerUnavailable(TopicError):
    """No broker answers, or too few are available. A later try may succeed."""


def partitions(topic: Topic, settings: Settings) -> int:
    """Returns the number of partitions to create a topic with."""
    return {"log": settings.log_partitions, "source": settings.source_partitions, "one": 1}[topic.partitions]


def dead_letter_bytes() -> int:
    """The largest record batch that the topic dead-letters accepts, in bytes; at most MAX_DEAD_LETTER_BYTES."""
    return _dead_letter_bytes


def configs(topic: Topic, settings: Settings) -> dict[str, str]:
    """Returns the configuration to create a topic with. Timestamps are LogAppendTime: retention must not depend on the
    clock of a producer."""
    limit = {"source": MAX_SOURCE_BYTES, "dead-letters": MAX_DEAD_LETTER_BYTES}.get(topic.retention, MAX_MESSAGE_BYTES)
    values = {
        "cleanup.policy": topic.cleanup,
        "max.message.bytes": str(limit),
        "message.timestamp.type": "LogAppendTime",
        # With one of three replicas down, acks=all still means that two replicas have the record.
        "min.insync.replicas": str(max(1, settings.replication - 1)),
    }
    if topic.cleanup == "compact":
        lag = int(settings.resume_hours * _HOUR_MS)
        # Kafka compacts only closed segments. Small segments keep the topic short for recovery and for new edges.
        return values | {
            "min.compaction.lag.ms": str(lag), "segment.ms": str(max(lag, _HOUR_MS)), "segment.bytes": str(128 << 20),
            "min.cleanable.dirty.ratio": "0.2",
        }
    hours = {
        "source": settings.source_retention_hours, "log": settings.log_retention_hours,
        "facts": settings.facts_retention_hours, "dead-letters": settings.dead_letter_retention_hours,
    }[topic.retention]
    return values | {"retention.ms": str(hours * _HOUR_MS)}


async def ensure_topics(settings: Settings, seconds: float = _WAIT_SECONDS) -> None:
    """Creates missing topics, waits until all have leaders, and checks the topics that existed. Several processes may
    do so at the same time.

    Waits up to `seconds` for brokers. Raises BrokerUnavailable if none answers or too few are available, and
    TopicError if the brokers refuse a topic or an existing topic does not match the settings.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            return await _ensure_topics_once(settings, deadline)
        except KafkaError as error:
            if asyncio.get_running_loop().time() > deadline:
                problem = error if isinstance(error, InvalidReplicationFactorError) else await diagnose(settings)
                text = str(problem) if problem else f"topics at {settings.kafka}: {error!r}"
                raise BrokerUnavailable(text) from error
        await asyncio.sleep(_RETRY_SECONDS)


async def ensure_topics_or_stop(settings: Settings, stop: asyncio.Event) -> bool:
    """As `ensure_topics`. Returns False as soon as `stop` is set: stopping a process must not wait for brokers."""
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


async def _ensure_topics_once(settings: Settings, deadline: float) -> None:
    admin = AIOKafkaAdminClient(**client_arguments(settings), request_timeout_ms=10_000)
    try:
        await admin.start()
        existing = await _leaders(admin)
        missing = [topic for topic in TOPICS if topic.name not in existing]
        if missing:
            await _create(admin, missing, settings)
        _check_partitions(await _wait_for_leaders(admin, deadline), settings)
        await _check_configs(admin, settings)
    finally:
        await close_client(admin)


async def _leaders(admin: AIOKafkaAdminClient) -> dict[str, list[bool]]:
    """Returns for each topic whether its partitions have leaders. Asks for all topics, because a request for one name
    may create that topic."""
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
        if code in (0, TopicAlreadyExistsError.errno):  # another process of attn may have created it
            continue
        problem = f"cannot create topic {name}: {for_code(code).__name__} {' '.join(filter(None, message))}"
        # Too few brokers are available; more may be starting.
        if for_code(code).retriable or code == InvalidReplicationFactorError.errno:
            raise for_code(code)(f"{problem} (ATTN_REPLICATION is {settings.replication})")
        raise TopicError(problem)


async def _wait_for_leaders(admin: AIOKafkaAdminClient, deadline: float) -> dict[str, list[bool]]:
    while True:
        leaders = await _leaders(admin)
        waiting = [topic.name for topic in TOPICS if not all(leaders.get(topic.name) or [False])]
        if not waiting:
            return leaders
        if asyncio.get_running_loop().time() > deadline:
            raise LeaderNotAvailableError(f"topics whose partitions have no leader: {', '.join(waiting)}")
        await asyncio.sleep(_LEADER_CHECK_SECONDS)


def _check_partitions(leaders: Mapping[str, list[bool]], settings: Settings) -> None:
    """Raises TopicError if the log, the views or the facts have another number of partitions than the settings: the
    partition of a workspace follows from that number."""
    wrong = [
        f"{topic.name} has {len(leaders[topic.name])} partitions, ATTN_LOG_PARTITIONS is {settings.log_partitions}"
        for topic in TOPICS if topic.partitions == "log" and len(leaders[topic.name]) != settings.log_partitions
    ]
    if wrong:
        raise TopicError("; ".join(wrong))


async def _check_configs(admin: AIOKafkaAdminClient, settings: Settings) -> None:
    """Raises TopicError if attn.views is not compacted: rows of the view would be deleted by time (the broker may have
    created the topic itself). Logs a warning if topics have fewer replicas, or fewer replicas in sync, than
    ATTN_REPLICATION asks for: the brokers accept such writes."""
    names = [topic.name for topic in TOPICS]
    answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
    entries: dict[str, dict[str, Any]] = {
        resource[3]: {entry[0]: entry[1] for entry in resource[4]}
        for answer in answers for resource in answer.resources
    }
    _set_dead_letter_bytes(entries.get(DEAD_LETTERS, {}).get("max.message.bytes"))
    policy = entries.get(VIEWS, {}).get("cleanup.policy", "compact")
    if policy != "compact":
        raise TopicError(
            f"topic {VIEWS} has cleanup.policy={policy}; set it to compact, otherwise rows of the view are deleted")
    replicas = {topic["topic"]: min(len(part["replicas"]) for part in topic["partitions"])
                for topic in await admin.describe_topics() if topic["topic"] in names}
    in_sync = {name: int(config.get("min.insync.replicas", 1)) for name, config in entries.items()}
    if few := [f"{name} ({count})" for name, count in sorted(replicas.items()) if count < settings.replication]:
        log.warning("topics with fewer replicas than ATTN_REPLICATION=%d: %s; acknowledged records may be lost "
                    "with a broker", settings.replication, ", ".join(few))
    if settings.replication > 1 and (weak := sorted(name for name, count in in_sync.items() if count < 2)):
        log.warning("topics with min.insync.replicas below 2: %s; acknowledged records may be lost with a broker",
                    ", ".join(weak))


def _set_dead_letter_bytes(limit: str | None) -> None:
    global _dead_letter_bytes
    _dead_letter_bytes = min(int(limit or MAX_DEAD_LETTER_BYTES), MAX_DEAD_LETTER_BYTES)
