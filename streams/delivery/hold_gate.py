"""Holds decisions back until nobody can take them back any more.

The fold accepts an undo while the log's clock is before `undo_until`. So the wall clock is not enough: a worker that is
behind may still accept one. The gate opens for a decision once the position row of its partition in `attn.views` has a
clock of at least `undo_until`, and this process has read `decisions` up to its end at that time. The fold writes
`decisions` before the rows, so a `decision.taken_back` that exists has been read by then. Without any row in
`attn.views` there is no fold to wait for, and the gate is open.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from schemas.scalars import SECOND
from schemas.settings import Settings
from schemas.topics import DECISIONS, VIEWS
from schemas.views import PositionRow, decode_row_or_none
from streams.delivery.backlog import Backlog, Entry
from streams.kafka.connection import client_arguments, close_client
from streams.kafka.producer import REQUEST_SECONDS

__all__ = ["HoldGate", "last_clock"]

log = logging.getLogger("attn.deliver")

# Seconds.
_MIN_POLL, _MAX_POLL = 0.02, 0.5
_TICK_AFTER = 2.0  # the fold's own timers have normally advanced the clock by then
_TICK_EVERY = 30.0
_ANSWER_SECONDS = 15.0
_TAIL_RECORDS = (64, 1024, 1 << 16)  # read from the end of a partition until a position row is found


class HoldGate:
    """`on_release` is called when entries became due. `append_tick` advances the clock of a partition's log."""

    def __init__(
        self, settings: Settings, backlog: Backlog, on_release: Callable[[], None],
        append_tick: Callable[[int], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._backlog = backlog
        self._on_release = on_release
        self._append_tick = append_tick
        self._parked: dict[int, list[Entry]] = {}
        self._cleared: dict[int, float] = {}  # seconds since the epoch, by partition
        self._ticked: dict[int, float] = {}
        self._added = asyncio.Event()

    def is_open(self, entry: Entry) -> bool:
        """Whether the entry may be posted as far as an undo is concerned."""
        return entry.held <= self._cleared.get(entry.partition, 0.0)

    def park(self, entry: Entry) -> None:
        """Keeps an entry that `pop_due` returned until the gate opens for it."""
        entry.running, entry.due = False, math.inf
        self._parked.setdefault(entry.partition, []).append(entry)
        self._added.set()

    def forget(self, partitions: Iterable[int]) -> None:
        """Forgets partitions that another process has now."""
        for partition in partitions:
            self._parked.pop(partition, None)
            self._cleared.pop(partition, None)

    async def run(self) -> None:
        """Releases parked entries until cancelled."""
        reader: AIOKafkaConsumer | None = None
        poll = _MIN_POLL
        try:
            while True:
                await self._added.wait()
                try:
                    if reader is None:
                        reader = await _start_reader(self._settings)
                    released = [await self._check(reader, partition) for partition in sorted(self._parked)]
                except (KafkaError, TimeoutError) as error:
                    log.warning("cannot read the clock of %s, retrying: %r", VIEWS, error)
                    if reader is not None:
                        await close_client(reader)
                    reader, released = None, []
                if not self._parked:
                    self._added.clear()
                poll = _MIN_POLL if any(released) else min(poll * 2, _MAX_POLL)
                await asyncio.sleep(poll)
        finally:
            if reader is not None:
                await close_client(reader)

    async def _check(self, reader: AIOKafkaConsumer, partition: int) -> bool:
        """Releases the entries of a partition whose hold has ended. Returns whether there was one."""
        clock = await last_clock(reader, partition)
        seconds = math.inf if clock is None else clock / SECOND
        first = min((entry.held for entry in self._parked.get(partition, ()) if not entry.finished), default=None)
        if first is not None and seconds < first:
            await self._tick(partition, first)
        tp = TopicPartition(DECISIONS, partition)
        async with asyncio.timeout(_ANSWER_SECONDS):
            end = (await reader.end_offsets([tp]))[tp]
        state = self._backlog.partitions.get(partition)
        if state is None:
            self.forget([partition])
            return False
        if state.read_to < end:
            return False
        self._cleared[partition] = seconds
        parked = [entry for entry in self._parked.pop(partition, ()) if not entry.finished]
        ready = [entry for entry in parked if self.is_open(entry)]
        if waiting := [entry for entry in parked if not self.is_open(entry)]:
            self._parked[partition] = waiting
        for entry in ready:
            self._backlog.retry(entry, time.time())
        if ready:
            self._on_release()
        return bool(ready)

    async def _tick(self, partition: int, held: float) -> None:
        """Advances the log's clock if no timer of the fold does: its partition may be idle."""
        now = time.time()
        if now > held + _TICK_AFTER and now > self._ticked.get(partition, 0.0) + _TICK_EVERY:
            self._ticked[partition] = now
            await self._append_tick(partition)


async def last_clock(reader: AIOKafkaConsumer, partition: int) -> int | None:
    """Returns the log's clock of the last position row of a partition, in microseconds; None if there is no row.

    Raises TimeoutError or a KafkaError if the broker does not answer within 15 s.
    """
    tp = TopicPartition(VIEWS, partition)
    async with asyncio.timeout(_ANSWER_SECONDS):
        begin, end = (await reader.beginning_offsets([tp]))[tp], (await reader.end_offsets([tp]))[tp]
        for count in _TAIL_RECORDS:
            start = max(begin, end - count)
            if start >= end:
                return None
            if (clock := await _clock_between(reader, tp, start, end)) is not None:
                return clock
            if start == begin:
                return None
    return 0


async def _clock_between(reader: AIOKafkaConsumer, tp: TopicPartition, start: int, end: int) -> int | None:
    reader.assign([tp])
    reader.seek(tp, start)
    clock = None
    while await reader.position(tp) < end:
        for records in (await reader.getmany(tp, timeout_ms=200)).values():
            for record in records:
                if record.key and record.key.startswith(b"~:"):
                    row = decode_row_or_none(record.key, record.value)
                    clock = row.clock if isinstance(row, PositionRow) else clock
    return clock


async def _start_reader(settings: Settings) -> AIOKafkaConsumer:
    reader = AIOKafkaConsumer(
        **client_arguments(settings), client_id=f"attn-deliver-gate-{settings.instance}", enable_auto_commit=False,
        auto_offset_reset="earliest", fetch_max_wait_ms=50, request_timeout_ms=REQUEST_SECONDS * 1000,
        max_partition_fetch_bytes=1 << 20,
    )
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            await reader.start()
    except BaseException:
        await close_client(reader)
        raise
    return reader
