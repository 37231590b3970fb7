"""Offsets of a Faust app's consumer group. Commits are ours: Faust's own follow its acks, one a message, and chunks
are not messages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping

import faust
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
_FETCH_SECONDS = 30.0  # a coordinator that died has a successor by then
_REQUEST_MS = 5000
_PAUSE = 0.2  # seconds


class GroupOffsets:
    """Asks and tells the broker through the app's consumer, so an answer also means that this consumer is alive.

    Everything raises TimeoutError or a KafkaError when the broker does not answer in time.
    """

    def __init__(self, app: faust.App, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._committed: dict[TP, int] = {}

    @property
    def committed(self) -> Mapping[TP, int]:
        """What this member has committed; the broker has acknowledged it."""
        return self._committed

    async def beginning_offsets(self, places: Iterable[TP]) -> Mapping[TP, int]:
        async with asyncio.timeout(_ANSWER_SECONDS):
            begins: Mapping[TP, int] = await self._app.consumer.earliest_offsets(*places)
        return begins

    async def end_offsets(self, places: Iterable[TP]) -> Mapping[TP, int]:
        async with asyncio.timeout(_ANSWER_SECONDS):
            ends: Mapping[TP, int] = await self._app.consumer.highwaters(*places)
        return ends

    async def resume_offsets(self, places: Iterable[TP]) -> dict[TP, int]:
        """Where the group goes on in each partition: the committed offset where the partition still has it, else its
        beginning."""
        places = list(places)
        if not places:
            return {}
        for tp in places:
            self._committed.pop(tp, None)
        committed, begins, ends = await asyncio.gather(
            self._fetch_committed(places), self.beginning_offsets(places), self.end_offsets(places))
        found = {}
        for tp in places:
            offset = committed.get(tp)
            if offset is not None and offset > ends[tp]:
                # An open transaction may end the partition earlier for this consumer than for one that committed.
                ends = {**ends, tp: (await partition_bounds(self._settings, [tp]))[tp][1]}
            if offset is not None and not begins[tp] <= offset <= ends[tp]:
                log.error(
                    "%s/%d holds offsets %d to %d, %d was committed: what lies between is lost; reading all it holds",
                    *tp, begins[tp], ends[tp], offset,
                )
                offset = None
            found[tp] = begins[tp] if offset is None else offset
        return found

    async def _fetch_committed(self, places: list[TP]) -> dict[TP, int]:
        """What is committed. Who is asked too early (a coordinator that has just become it) or wrongly answers without
        any of the places, which must not be taken for a group that has committed nothing: it would read all again."""
        async with asyncio.timeout(_FETCH_SECONDS):
            while not set(places) <= (answer := await self._request_committed(places)).keys():  # noqa: ASYNC110 - it asks a broker
                await asyncio.sleep(_PAUSE)
        return {tp: answer[tp] for tp in places if answer[tp] >= 0}

    async def _request_committed(self, places: list[TP]) -> dict[TP, int]:
        admin = AIOKafkaAdminClient(**client_arguments(self._settings), request_timeout_ms=_REQUEST_MS)
        try:
            await admin.start()
            found = await admin.list_consumer_group_offsets(
                self._app.conf.id, partitions=[TopicPartition(*tp) for tp in places])
        except KafkaError as error:
            log.warning("%s does not say what it has committed: %r", self._app.conf.id, error)
            return {}
        finally:
            await close_client(admin)
        return {TP(*place): known.offset for place, known in found.items()}

    async def commit(self, done: Mapping[TP, int]) -> None:
        """Commits what changed. Not told when the partition was given to another meanwhile: that one begins earlier."""
        changed = {tp: offset for tp, offset in done.items() if self._committed.get(tp) != offset}
        if changed:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await self._app.consumer._commit(changed)  # the driver's part of Consumer.commit, without acks
            self._committed.update(changed)

    def leave(self) -> None:
        """From now on stopping means to leave: others get the partitions at once, not when the session has run out. A
        member that dies keeps them for that long, so that its restart finds them (aiokafka's static members never
        say goodbye, and have no setting for it)."""
        consumer = self._app.consumer._thread._consumer
        if consumer is not None and consumer._coordinator is not None:  # else it has not joined yet
            consumer._coordinator._group_instance_id = None
