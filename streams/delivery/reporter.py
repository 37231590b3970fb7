"""Appends reports to `attn.log`: what became of a decision at its receiver (`schemas.log.Report`)."""

from __future__ import annotations

import asyncio
import logging

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from schemas.log import Pack, Report, encode_pack
from schemas.settings import Settings
from schemas.topics import LOG
from streams.core.packs import Packer, PackRecord
from streams.kafka.connection import close_client
from streams.kafka.producer import idempotent_producer, wait_acknowledged
from streams.runtime.backoff import Backoff
from streams.runtime.clock import now_us
from streams.tracing.context import TraceLink

__all__ = ["Reporter"]

log = logging.getLogger("attn.deliver")

_MAX_WAITING = 1000  # reports per append

_Entry = Report | int  # int: a partition that needs a tick


class Reporter:
    """Packs the reports that arrive while an append is under way into the next one.

    A failed append is retried until Kafka acknowledges it. Its outcome may be unknown, so a report may be in the log
    twice; the id of a report makes the repeat harmless. `problem`: why appends fail now, None if they do not.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._out: AIOKafkaProducer | None = None
        self._queue: asyncio.Queue[tuple[_Entry, TraceLink | None, asyncio.Future[None]]] = asyncio.Queue(_MAX_WAITING)
        self.problem: str | None = None

    async def append(self, report: Report, trace: TraceLink | None = None) -> None:
        """Returns once the report is durable. `trace`: the context of the attempt."""
        await self._append(report, trace)

    async def append_tick(self, partition: int) -> None:
        """Appends an empty pack to a partition: the log's clock advances to now."""
        await self._append(partition)

    async def _append(self, entry: _Entry, trace: TraceLink | None = None) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self._queue.put((entry, trace, done))
        await done

    async def run(self) -> None:
        """Appends until cancelled."""
        try:
            while True:
                entries = [await self._queue.get()]
                while not self._queue.empty():
                    entries.append(self._queue.get_nowait())
                await self._append_until_durable([(entry, trace) for entry, trace, _ in entries])
                for _, _, done in entries:
                    if not done.done():
                        done.set_result(None)
        finally:
            await self._close()

    async def _append_until_durable(self, entries: list[tuple[_Entry, TraceLink | None]]) -> None:
        packer, ticks = Packer(self._settings.log_partitions), set()
        for entry, trace in entries:
            if isinstance(entry, Report):
                packer.add(entry, trace)
            else:
                ticks.add(entry)
        packs = packer.drain(now_us())
        packs += [PackRecord(partition, 0, encode_pack(Pack(now_us()))) for partition in ticks]
        backoff = Backoff()
        while True:
            try:
                out = await self._started()
                await wait_acknowledged([
                    await out.send(LOG, pack.value, partition=pack.partition, headers=pack.headers) for pack in packs])
                break
            except (KafkaError, TimeoutError) as error:
                self.problem = f"{LOG}: {error!r}"
                log.warning("cannot append reports to the log, retrying: %r", error)
                await self._close()  # a producer whose write failed may not be usable any more
            await asyncio.sleep(backoff.next())
        self.problem = None

    async def _started(self) -> AIOKafkaProducer:
        if self._out is None:
            out = idempotent_producer(self._settings, "deliver")
            try:
                await out.start()
            except BaseException:
                await close_client(out)
                raise
            self._out = out
        return self._out

    async def _close(self) -> None:
        out, self._out = self._out, None
        if out is not None:
            await close_client(out)
