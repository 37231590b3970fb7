"""Locks the consumer group of the history during a rebuild: the rebuild is a member with all partitions, so no history
process has one.

A process that joins the group gets partitions when all members have rejoined, or their rebalance timeout has passed.
The rebuild rejoins only after it has ended. So a history process that starts meanwhile waits, also during the swap. If
the rebuild is killed, its membership ends with its session, after 10 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Collection

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from schemas.settings import Settings
from schemas.topics import FACTS
from streams.kafka.connection import client_arguments, close_client

__all__ = ["GROUP", "GroupLock", "RebuildError", "hold_group", "wait_until_group_empty"]

GROUP = "attn-history"
_REQUEST_TIMEOUT = 30.0  # seconds; of requests to Kafka
_MAX_WAIT = 15  # seconds; a static member that ended stays in the group for its session of 10 s (streams.history.main)
_SESSION, _HEARTBEAT = 10_000, 2_000  # ms
_REBALANCE_TIMEOUT = 30 * 60_000  # ms; how long a history process that starts meanwhile waits


class RebuildError(Exception):
    """The rebuild would lose rows, or a history process runs. `str(error)` is for the operator."""


class GroupLock(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Rebalance listener that keeps the partitions until `release` is called."""

    def __init__(self) -> None:
        self._acquired, self._released = asyncio.Event(), asyncio.Event()
        self._is_contested = False

    def check(self) -> None:
        """Raises RebuildError if a history process has joined the group, or the rebuild is no member any more."""
        if self._is_contested:
            raise RebuildError("`attn history` was started meanwhile: nothing was changed; stop it and rebuild again")

    async def wait_acquired(self) -> None:
        """Waits for the partitions."""
        await self._acquired.wait()

    def release(self) -> None:
        """Lets a pending rebalance continue."""
        self._released.set()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._acquired.set()

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        if self._acquired.is_set():
            self._is_contested = True
            await self._released.wait()  # heartbeats continue meanwhile


@contextlib.asynccontextmanager
async def hold_group(settings: Settings) -> AsyncIterator[GroupLock]:
    """Holds all partitions of the group while the body runs. Raises RebuildError if a history process runs; KafkaError,
    TimeoutError."""
    await wait_until_group_empty(settings)
    lock = GroupLock()
    consumer = AIOKafkaConsumer(
        **client_arguments(settings), group_id=GROUP, client_id="attn-history-rebuild", enable_auto_commit=False,
        session_timeout_ms=_SESSION, heartbeat_interval_ms=_HEARTBEAT, rebalance_timeout_ms=_REBALANCE_TIMEOUT,
        max_poll_interval_ms=2**31 - 1,
    )
    async with asyncio.timeout(_REQUEST_TIMEOUT):
        await consumer.start()
    try:
        consumer.subscribe([FACTS], listener=lock)
        async with asyncio.timeout(_REQUEST_TIMEOUT):
            await lock.wait_acquired()
        consumer.pause(*consumer.assignment())
        if len(consumer.assignment()) < settings.log_partitions:
            raise RebuildError(
                f"`attn history` runs: a member of group {GROUP} has some of the partitions; stop it first")
        yield lock
    finally:
        lock.release()
        await close_client(consumer)


async def wait_until_group_empty(settings: Settings, seconds: float = _MAX_WAIT) -> None:
    """Waits until the group has no members. Raises RebuildError if it still has one after `seconds`."""
    admin = AIOKafkaAdminClient(**client_arguments(settings))
    async with asyncio.timeout(_REQUEST_TIMEOUT):
        await admin.start()
    try:
        for attempt in itertools.count(1):
            async with asyncio.timeout(_REQUEST_TIMEOUT):
                responses = await admin.describe_consumer_groups([GROUP])
            members = sum(len(group[5]) for response in responses for group in response.groups)
            if not members:
                return
            if attempt > seconds:
                raise RebuildError(f"`attn history` runs ({members} in group {GROUP}): stop it first")
            await asyncio.sleep(1)
    finally:
        await close_client(admin)
