"""A rebuild's hold on the writers' group: it is a member with all partitions, so no writer has one.

Who joins a group gets partitions once its members have joined again, or did not within their own rebalance timeout.
The rebuild does not before it has ended: a writer that starts meanwhile waits, also through the swap. A rebuild that is
killed leaves the group when its session ends.
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
_ANSWER = 30.0  # seconds, of Kafka
_GONE = 15  # seconds: a static member that ended counts for its session, ten (streams.history.main)
_SESSION, _BEAT = 10_000, 2_000  # ms
_LONGEST = 30 * 60_000  # ms that a writer which starts meanwhile is kept waiting


class RebuildError(Exception):
    """It would lose rows, or somebody writes; `str(error)` is for the operator."""


class GroupLock(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self) -> None:
        self._held, self._over = asyncio.Event(), asyncio.Event()
        self._wanted = False

    def check(self) -> None:
        """Cannot: a writer wants to begin, or the group has forgotten us."""
        if self._wanted:
            raise RebuildError("`attn history` was started meanwhile: nothing was changed; stop it first")

    async def held(self) -> None:
        await self._held.wait()

    def release(self) -> None:
        self._over.set()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._held.set()

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        if self._held.is_set():
            self._wanted = True
            await self._over.wait()  # its heartbeats go on


@contextlib.asynccontextmanager
async def hold_group(settings: Settings) -> AsyncIterator[GroupLock]:
    """Cannot: a writer runs. KafkaError, TimeoutError."""
    await wait_until_group_empty(settings)
    claim = GroupLock()
    consumer = AIOKafkaConsumer(
        **client_arguments(settings), group_id=GROUP, client_id="attn-history-rebuild", enable_auto_commit=False,
        session_timeout_ms=_SESSION, heartbeat_interval_ms=_BEAT, rebalance_timeout_ms=_LONGEST,
        max_poll_interval_ms=2**31 - 1,
    )
    async with asyncio.timeout(_ANSWER):
        await consumer.start()
    try:
        consumer.subscribe([FACTS], listener=claim)
        async with asyncio.timeout(_ANSWER):
            await claim.held()
        consumer.pause(*consumer.assignment())
        if len(consumer.assignment()) < settings.log_partitions:
            raise RebuildError(
                f"`attn history` runs: a member of group {GROUP} has some of the partitions; stop it first")
        yield claim
    finally:
        claim.release()
        await close_client(consumer)


async def wait_until_group_empty(settings: Settings, seconds: float = _GONE) -> None:
    """Return once no writer is a member of the group any more. Cannot: one still is after so many seconds."""
    admin = AIOKafkaAdminClient(**client_arguments(settings))
    async with asyncio.timeout(_ANSWER):
        await admin.start()
    try:
        for tries in itertools.count(1):
            async with asyncio.timeout(_ANSWER):
                answers = await admin.describe_consumer_groups([GROUP])
            members = sum(len(group[5]) for answer in answers for group in answer.groups)
            if not members:
                return
            if tries > seconds:
                raise RebuildError(f"`attn history` runs ({members} in group {GROUP}): stop it first")
            await asyncio.sleep(1)
    finally:
        await close_client(admin)
