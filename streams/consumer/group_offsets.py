"""Offsets of a Faust app's consumer group: fetch, commit, leave.

attn commits offsets itself. Faust commits by its acknowledgements, one per message, and a chunk is not one record.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping

import faust
import stamina
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from faust.types import TP

from schemas.settings import Settings
from streams.kafka.connection import client_arguments, close_client
from streams.kafka.reader import partition_bounds

__all__ = ["GroupOffsets"]

log = logging.getLogger(__name__)

_ANSWER_SECONDS = 10.0
_FETCH_SECONDS = 30.0  # by then a coordinator that died has a successor
_REQUEST_MS = 5000
_RETRY = stamina.AsyncRetryingCaller(attempts=None, timeout=None, wait_initial=0.2, wait_max=1.0, wait_jitter=0.1)


class _IncompleteAnswer(Exception):
    """The coordinator answered without some of the partitions."""


class GroupOffsets:
    """Offsets of one group. Requests go through the app's consumer, so an answer also shows that this consumer is
    alive.

    Every method that asks the broker raises TimeoutError or a KafkaError if the broker does not answer in time.
    """

    def __init__(self, app: faust.App, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._committed: dict[TP, int] = {}

    @property
    def committed(self) -> Mapping[TP, int]:
        """The offsets that this member has committed and the broker has acknowledged."""
        return self._committed

    async def end_offsets(self, partitions: Iterable[TP]) -> Mapping[TP, int]:
        async with asyncio.timeout(_ANSWER_SECONDS):
            ends: Mapping[TP, int] = await self._app.consumer.highwaters(*partitions)
        return ends

    async def resume_offsets(self, partitions: Iterable[TP]) -> dict[TP, int]:
        """Returns the offset to resume from in each partition: the committed offset if the partition still has it, else
        the partition's beginning."""
        partitions = list(partitions)
        if not partitions:
            return {}
        for tp in partitions:
            self._committed.pop(tp, None)
        # Not through the app's consumer: each request to a broker would wait for the fetch before it, up to 1.5 s.
        committed, bounds = await asyncio.gather(
            self._fetch_committed(partitions), partition_bounds(self._settings, partitions))
        offsets = {}
        for tp in partitions:
            offset, (begin, end) = committed.get(tp), bounds[tp]
            if offset is not None and not begin <= offset <= end:
                log.error(
                    "%s/%d holds offsets %d to %d, but offset %d was committed: records were lost; "
                    "reading the partition from its beginning",
                    *tp, begin, end, offset,
                )
                offset = None
            offsets[tp] = begin if offset is None else offset
        return offsets

    async def _fetch_committed(self, partitions: list[TP]) -> dict[TP, int]:
        """Returns the committed offsets of partitions that have one.

        A broker that has just become coordinator may answer without the partitions. The request is then repeated, for
        up to 30 s: without committed offsets the group would read all records again.
        """
        async with asyncio.timeout(_FETCH_SECONDS):
            offsets: dict[TP, int] = await _RETRY(
                (KafkaError, _IncompleteAnswer), lambda: self._request_committed(partitions))
        return {tp: offsets[tp] for tp in partitions if offsets[tp] >= 0}

    async def _request_committed(self, partitions: list[TP]) -> dict[TP, int]:
        """Returns the broker's answer; -1 for a partition without a committed offset. Raises a KafkaError, or
        _IncompleteAnswer if a partition is missing."""
        admin = AIOKafkaAdminClient(**client_arguments(self._settings), request_timeout_ms=_REQUEST_MS)
        try:
            await admin.start()
            answer = await admin.list_consumer_group_offsets(
                self._app.conf.id, partitions=[TopicPartition(*tp) for tp in partitions])
        finally:
            await close_client(admin)
        offsets = {TP(*tp): committed.offset for tp, committed in answer.items()}
        if missing := set(partitions) - offsets.keys():
            raise _IncompleteAnswer(f"no committed offsets of group {self._app.conf.id} for {sorted(missing)}")
        return offsets

    async def commit(self, offsets: Mapping[TP, int]) -> None:
        """Commits the offsets that changed.

        Does not notice if a partition was reassigned in the meantime: the new owner then starts at an older offset and
        drops the records it knows.
        """
        changed = {tp: offset for tp, offset in offsets.items() if self._committed.get(tp) != offset}
        if changed:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await self._app.consumer._commit(changed)  # the driver's part of Consumer.commit, without acks
            self._committed.update(changed)

    def leave(self) -> None:
        """Makes the consumer leave the group when it stops, so that other members get the partitions at once.

        Without this call the group keeps the partitions for the member until its session expires, which is what a
        restarted process needs. aiokafka's static members never leave and have no setting for it.
        """
        consumer = self._app.consumer._thread._consumer
        if consumer is not None and consumer._coordinator is not None:  # else it has not joined yet
            consumer._coordinator._group_instance_id = None
