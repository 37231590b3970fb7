"""Consumer of the topic `decisions`: reads the assigned partitions into the backlog and commits what is finished.

After an assignment, a partition is first read to its end before any of its decisions is posted. Later records of the
topic then show which decisions were taken back or have an outcome already, so a restart does not post these again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from schemas.scalars import SECOND, parse_timestamp
from schemas.settings import Settings
from schemas.topics import DECISIONS
from streams.delivery import metrics
from streams.delivery.backlog import Backlog, Entry
from streams.delivery.dispatcher import Dispatcher
from streams.delivery.endpoints import EndpointsFile
from streams.kafka.reader import read_offsets
from streams.tracing import hooks
from streams.tracing.context import link_of_headers

__all__ = ["DecisionConsumer", "load_body"]

log = logging.getLogger("attn.deliver")

_POSTED = frozenset({"made", "taken_back", "expired"})
_OUTCOMES = frozenset({"delivered", "refused", "applied"})
_PREFIX = "decision."

# Seconds.
_POLL = 0.2
_COMMIT_EVERY = 1.0
_POSITIONS_EVERY = 1.0
_REVOKE_WAIT = 5.0  # a rebalance waits for the running attempts
_STOP_WAIT = 3.0  # a clean stop waits for them
_MAX_RECORDS = 500


class _Reply(msgspec.Struct):
    to: str | None = None


class _Data(msgspec.Struct):
    decision: str
    decided_at: str | None = None
    undo_until: str | None = None
    expires_at: str | None = None
    reply: _Reply | None = None


class _Record(msgspec.Struct):
    """The part of a decision event (`schemas.asking.decision_event`) that delivery needs."""

    type: str
    subject: str
    workspaceid: str
    data: _Data


_decode = msgspec.json.Decoder(_Record).decode


class DecisionConsumer(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """`kafka` is started, in the consumer group, and not subscribed yet."""

    def __init__(
        self, settings: Settings, kafka: AIOKafkaConsumer, backlog: Backlog, dispatcher: Dispatcher,
        endpoints: EndpointsFile,
    ) -> None:
        self._settings = settings
        self._kafka = kafka
        self._backlog = backlog
        self._dispatcher = dispatcher
        self._endpoints = endpoints
        self._assigned: list[TopicPartition] | None = None  # partitions without a start offset yet
        self._ends: dict[int, int] = {}  # end offsets at the assignment, of partitions that are not read so far
        self._committed: dict[int, int] = {}
        self._committed_at = self._positions_at = 0.0
        self.assignments = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Reads until `stop` is set, then waits up to 3 s for the running attempts and commits."""
        self._kafka.subscribe([DECISIONS], listener=self)
        while not stop.is_set():
            await self._step(stop)
        self._backlog.pause()
        await self._dispatcher.finish_attempts(_STOP_WAIT)
        await self._commit()

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Waits up to 5 s for the running attempts and commits what they finished."""
        self._assigned = None
        if not self._backlog.partitions:
            return
        self._backlog.pause()
        await self._dispatcher.finish_attempts(_REVOKE_WAIT)
        await self._commit()
        for partition in list(self._backlog.partitions):
            self._backlog.release(partition)
        self._dispatcher.gate.forget(range(self._settings.log_partitions))

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Lets the next step find the offsets to start from. The consumer answers no request in this callback."""
        self._assigned = sorted(assigned) or None
        self._ends, self._committed = {}, {}
        self.assignments += 1

    async def _start_partitions(self, assigned: list[TopicPartition]) -> None:
        """Starts to read the assigned partitions from their committed offsets, else from their beginning."""
        assignments = self.assignments
        begins, ends = await self._kafka.beginning_offsets(assigned), await self._kafka.end_offsets(assigned)
        committed = {tp: await self._kafka.committed(tp) for tp in assigned}
        if assignments != self.assignments or self._assigned is None:
            return
        for tp in assigned:
            offset = committed[tp]
            if offset is None or not begins[tp] <= offset <= ends[tp]:
                if offset is not None:
                    log.warning("offset %d of %s/%d was committed, but the partition has offsets %d to %d; reading it "
                                "from its beginning", offset, *tp, begins[tp], ends[tp])
                offset = begins[tp]
            self._kafka.seek(tp, offset)
            self._backlog.assign(tp.partition, offset)
            self._committed[tp.partition] = offset
            self._ends[tp.partition] = ends[tp]
        self._assigned = None
        log.info("reading %d partitions of %s", len(assigned), DECISIONS)

    @property
    def is_catching_up(self) -> bool:
        """Whether a partition has not been read so far as it was written when it was assigned."""
        return self._assigned is not None or bool(self._ends)

    async def _step(self, stop: asyncio.Event) -> None:
        if self._assigned:
            try:
                await self._start_partitions(self._assigned)
            except KafkaError as error:
                log.warning("cannot read the offsets of %s, retrying: %r", DECISIONS, error)
        if self._assigned or self._backlog.is_full:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL):
                    await stop.wait()
        else:
            assignments = self.assignments
            fetched = await self._kafka.getmany(timeout_ms=int(_POLL * 1000), max_records=_MAX_RECORDS)
            if assignments == self.assignments:
                for tp, records in fetched.items():
                    self._take(tp.partition, records)
                if self._ends or time.monotonic() - self._positions_at > _POSITIONS_EVERY:
                    await self._note_positions()
            if fetched:
                self._dispatcher.wake()
        self._release_caught_up()
        if time.monotonic() - self._committed_at > _COMMIT_EVERY:
            await self._commit()

    def _take(self, partition: int, records: Iterable[ConsumerRecord]) -> None:
        state = self._backlog.partitions.get(partition)
        if state is None:
            return
        for record in records:
            if record.offset < state.read_to:
                log.warning("topic %s/%d was reset: reading offset %d after offset %d",
                            DECISIONS, partition, record.offset, state.read_to - 1)
                self._backlog.release(partition)
                self._backlog.assign(partition, record.offset)
                state = self._backlog.partitions[partition]
                state.caught_up = True
            state.read_to = record.offset + 1
            self._handle(record)

    def _handle(self, record: ConsumerRecord) -> None:
        """Adds a record to the backlog, or applies what it says about an earlier one."""
        try:
            event = _decode(record.value or b"")
        except (ValueError, RecursionError) as error:
            metrics.UNREADABLE.inc()
            log.error("offset %d of %s/%d is not a decision and is skipped: %s",
                      record.offset, DECISIONS, record.partition, error)
            return
        verb = event.type.removeprefix(_PREFIX) if event.type.startswith(_PREFIX) else ""
        decision, to = event.data.decision, event.data.reply.to if event.data.reply is not None else None
        if verb in _OUTCOMES:
            self._backlog.resolve(event.workspaceid, event.subject, decision)
        elif verb in _POSTED and to:
            if verb == "taken_back" and not self._backlog.take_back(event.workspaceid, event.subject, decision):
                return
            self._backlog.add(self._entry(record, event, verb, to))

    def _entry(self, record: ConsumerRecord, event: _Record, verb: str, to: str) -> Entry:
        known = self._endpoints.current().find(to, event.workspaceid) is not None
        held = _seconds(event.data.undo_until) or 0.0 if verb == "made" and known else 0.0
        decided, expires = _seconds(event.data.decided_at), _seconds(event.data.expires_at)
        # The gate decides by the log's clock. A local clock that is late must not hold the decision longer.
        due = min(held, time.time() + max(0.0, held - decided)) if decided is not None else held
        if expires is not None and decided is not None and expires <= decided:
            expires = None  # decided by the expiry itself
        recorded = record.timestamp / 1000 if record.timestamp > 0 else time.time()
        return Entry(
            record.partition, record.offset, event.workspaceid, event.subject, event.data.decision, verb, to,
            to if known else "", recorded, len(record.value), record.value, held, expires, due,
            trace=None if hooks.active is None else link_of_headers(record.headers))

    async def _note_positions(self) -> None:
        """Advances over offsets without a record, such as markers of transactions."""
        self._positions_at = time.monotonic()
        for partition, state in self._backlog.partitions.items():
            with contextlib.suppress(KafkaError):
                position = await self._kafka.position(TopicPartition(DECISIONS, partition))
                state.read_to = max(state.read_to, position)

    def _release_caught_up(self) -> None:
        """Lets partitions be posted that were read to their end. A full backlog cannot read on, so it lets all."""
        for partition, end in list(self._ends.items()):
            state = self._backlog.partitions.get(partition)
            if state is None or state.read_to >= end or self._backlog.is_full:
                del self._ends[partition]
                if state is not None:
                    self._backlog.mark_caught_up(partition)
                self._dispatcher.wake()

    async def _commit(self) -> None:
        """Commits the offsets before which every record is finished, if they changed."""
        self._committed_at = time.monotonic()
        offsets = {
            partition: state.commit_offset for partition, state in self._backlog.partitions.items()
            if state.commit_offset != self._committed.get(partition)
        }
        if not offsets:
            return
        try:
            await self._kafka.commit({TopicPartition(DECISIONS, number): offset for number, offset in offsets.items()})
        except KafkaError as error:  # the next commit covers it; a restart posts again, with the same ids
            log.info("offsets not committed: %r", error)
        else:
            self._committed.update(offsets)


def _seconds(text: str | None) -> float | None:
    """Returns an RFC 3339 time in seconds since the epoch; None without a time, and for one that is not valid."""
    if text is None:
        return None
    try:
        return parse_timestamp(text) / SECOND
    except ValueError:
        return None


async def load_body(settings: Settings, entry: Entry) -> bytes | None:
    """Reads the record of an entry again. Returns None if the topic no longer has it."""
    tp = (DECISIONS, entry.partition)
    async for records in read_offsets(settings, tp, entry.offset, entry.offset + 1):
        for record in records:
            if record.offset == entry.offset and record.value is not None:
                return bytes(record.value)
    return None
