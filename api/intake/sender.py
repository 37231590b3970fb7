"""Sends accepted events to their topics and waits until they are durable. Bounds the bytes in memory.

A request reserves bytes while its body is read, and keeps them until Kafka has acknowledged or refused its records,
because the producer holds what it could not send. While Kafka does not answer, the buffer fills, and further requests
are refused at once. A client that repeats a request changes nothing: an event counts once by source and id.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from api import metrics
from api.commands.command_log import start_producer
from api.intake.acceptance import AcceptedEvent
from schemas.settings import Settings
from streams.kafka.connection import close_client
from streams.tracing import hooks

__all__ = ["BufferFull", "EventSender", "NotDurable", "Reservation", "open_event_producer"]

_CLOSE_SECONDS = 1.0
_SHARE = 4  # one sender gets at most this fraction of the buffer

_log = structlog.get_logger("attn.edge")


class BufferFull(Exception):
    """The buffer has no room for more bytes. `own`: of this sender; else of all senders."""

    def __init__(self, limit: int, own: bool) -> None:
        super().__init__(f"{limit} bytes of events wait for Kafka" + (" for this sender" if own else ""))
        self.own = own


class NotDurable(Exception):
    """Kafka has not acknowledged the events in time. They may still be written."""


class Reservation:
    """Bytes of one request in the buffer. Ends once: by `release`, or when its last record is done."""

    def __init__(self, sender: EventSender, owner: tuple[str, str]) -> None:
        self._sender, self._owner, self._size = sender, owner, 0

    def grow(self, size: int) -> None:
        """Reserves `size` more bytes. Raises BufferFull if there is no room."""
        self._sender._reserve(self._owner, size)
        self._size += size

    def release(self) -> None:
        self._sender._free(self._owner, self._size)
        self._size = 0


class EventSender:
    """Writes events to the source topics. `limit`: bytes of the buffer; `seconds`: how long a request waits for Kafka.

    `producer` is None until a broker has answered.
    """

    def __init__(self, limit: int, seconds: float) -> None:
        self.producer: AIOKafkaProducer | None = None
        self._limit, self._seconds = limit, seconds
        self._held = 0
        self._by_owner: Counter[tuple[str, str]] = Counter()

    def reservation(self, ws: str, owner: str) -> Reservation:
        """Returns an empty reservation of a sender: a key, or a user."""
        return Reservation(self, (ws, owner))

    async def send(self, ws: str, events: Sequence[AcceptedEvent], reservation: Reservation) -> None:
        """Sends the events in order, with the workspace as key, and waits until all are durable.

        Releases the reservation when Kafka is done with all of them, even if that is later. Raises NotDurable if they
        are not acknowledged in time.
        """
        sent: list[asyncio.Future[Any]] = []
        try:
            async with asyncio.timeout(self._seconds):
                for event in events:
                    sent.append(await self._send(ws, event))  # noqa: PERF401 - a failure needs those before it
                for write in sent:
                    await asyncio.shield(write)
        except (KafkaError, TimeoutError) as error:
            _log.warning("Kafka did not acknowledge events in time", events=len(events), error=repr(error))
            raise NotDurable("Kafka has not acknowledged the events in time; send them again: "
                             "an event that arrives twice counts once") from None
        finally:
            _release_when_done(reservation, sent)

    async def _send(self, ws: str, event: AcceptedEvent) -> asyncio.Future[Any]:
        if self.producer is None:
            raise TimeoutError("no broker has answered yet")
        write: asyncio.Future[Any] = await self.producer.send(
            event.topic, event.value, key=ws.encode(), headers=[*event.headers, *hooks.source_headers(event.value)])
        return write

    def _reserve(self, owner: tuple[str, str], size: int) -> None:
        if self._held + size > self._limit:
            raise BufferFull(self._limit, own=False)
        if self._by_owner[owner] + size > self._limit // _SHARE:
            raise BufferFull(self._limit // _SHARE, own=True)
        self._held += size
        self._by_owner[owner] += size
        metrics.INTAKE_BYTES.set(self._held)

    def _free(self, owner: tuple[str, str], size: int) -> None:
        self._held -= size
        self._by_owner[owner] -= size
        if not self._by_owner[owner]:
            del self._by_owner[owner]
        metrics.INTAKE_BYTES.set(self._held)


def _release_when_done(reservation: Reservation, writes: Sequence[asyncio.Future[Any]]) -> None:
    """Releases the reservation when no write is pending."""
    pending = {write for write in writes if not write.done()}

    def on_done(write: asyncio.Future[Any]) -> None:
        pending.discard(write)
        if not write.cancelled():
            write.exception()  # otherwise asyncio warns that nobody read it
        if not pending:
            reservation.release()

    if not pending:
        reservation.release()
    for write in list(pending):
        write.add_done_callback(on_done)
    for write in writes:
        if write not in pending and not write.cancelled():
            write.exception()


@contextlib.asynccontextmanager
async def open_event_producer(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    """Returns a producer of its own, so that large events do not delay commands. Waits until a broker answers."""
    producer = await start_producer(settings, "edge-events")
    try:
        yield producer
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await close_client(producer)
