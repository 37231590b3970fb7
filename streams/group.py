"""Offsets of a Faust app's consumer group. Commits are ours: Faust's own follow its acks, one a message, and chunks
are not messages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping

import faust
from aiokafka.admin import AIOKafkaAdminClient
from faust.types import TP

from schemas.settings import Settings

__all__ = ["Group"]

log = logging.getLogger(__name__)

_ANSWER_SECONDS = 10.0


class Group:
    """Asks and tells the broker through the app's consumer, so an answer also means that this consumer is alive.

    Everything raises TimeoutError or a KafkaError when the broker does not answer in time.
    """

    def __init__(self, app: faust.App, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._committed: dict[TP, int] = {}

    async def begins(self, places: Iterable[TP]) -> Mapping[TP, int]:
        async with asyncio.timeout(_ANSWER_SECONDS):
            return await self._app.consumer.earliest_offsets(*places)

    async def ends(self, places: Iterable[TP]) -> Mapping[TP, int]:
        async with asyncio.timeout(_ANSWER_SECONDS):
            return await self._app.consumer.highwaters(*places)

    async def starts(self, places: Iterable[TP]) -> dict[TP, int]:
        """Where the group goes on in each partition: the committed offset where the partition still has it, else its
        beginning."""
        places = list(places)
        if not places:
            return {}
        committed, begins, ends = await asyncio.gather(self._fetch(), self.begins(places), self.ends(places))
        found = {}
        for tp in places:
            offset = committed.get(tp)
            if offset is not None and not begins[tp] <= offset <= ends[tp]:
                log.error(
                    "%s/%d holds offsets %d to %d, %d was committed: what lies between is lost; reading all it holds",
                    *tp, begins[tp], ends[tp], offset,
                )
                offset = None
            found[tp] = begins[tp] if offset is None else offset
        return found

    async def _fetch(self) -> dict[TP, int]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._settings.kafka)
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await admin.start()
                answer = await admin.list_consumer_group_offsets(self._app.conf.id)
        finally:
            await admin.close()
        return {TP(*place): found.offset for place, found in answer.items() if found.offset >= 0}

    async def commit(self, done: Mapping[TP, int]) -> None:
        """Commits what changed. Not told when the partition was given to another meanwhile: that one begins earlier."""
        changed = {tp: offset for tp, offset in done.items() if self._committed.get(tp) != offset}
        if changed:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await self._app.consumer._commit(changed)  # the driver's part of Consumer.commit, without acks
            self._committed.update(changed)
