"""Circuit breakers of all source topics, the offsets that were skipped meanwhile, and resume markers of operators.

While a circuit is open, the consumer still fetches the topic, but its records are dropped. Only the end offset is kept,
and the records are read again from Kafka once the circuit is closed. Pausing the consumer instead would add a state
that Faust's rebalances undo.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError
from faust.types import TP

from schemas.dead_letters import ResumeTopicMarker, parse_record
from schemas.settings import Settings
from schemas.topics import DEAD_LETTERS, SOURCE_TYPES
from streams.ingest.circuit_breaker import BreakerPolicy, CircuitBreaker, CircuitState
from streams.kafka.connection import client_arguments, close_client
from streams.runtime import metrics

__all__ = ["TopicBreakers", "listen_for_resume_markers"]

log = logging.getLogger(__name__)

_POLL_MS = 1000


class TopicBreakers:
    """Circuit breakers by source topic. `clock` returns seconds of a monotonic clock."""

    def __init__(self, policy: BreakerPolicy, clock: Callable[[], float] = time.monotonic) -> None:
        self.deferred: dict[TP, int] = {}  # partition -> end offset of records that were delivered and not processed
        self.any_open = asyncio.Event()  # set while a circuit is open
        self._policy = policy
        self._clock = clock
        self._breakers = {topic: CircuitBreaker(policy) for topic in SOURCE_TYPES}
        self._reasons: dict[str, str] = {}
        for topic in SOURCE_TYPES:
            metrics.CIRCUIT_OPEN.labels(topic).set(0)

    def record(self, topic: str, reason: str | None) -> bool:
        """Counts a record. `reason`: why it was rejected, or None. Returns True if the topic's circuit is now open."""
        breaker = self._breakers[topic]
        before, count, rejected = breaker.state, breaker.count + 1, breaker.rejected + (reason is not None)
        stop = breaker.record(self._clock(), reason is not None)
        if breaker.state is not before:
            if stop:
                self._reasons[topic] = f"{rejected} of the last {count} records were rejected (last reason: {reason})"
            self._report_state(topic)
        return stop

    def is_open(self, topic: str) -> bool:
        return self._breakers[topic].state is CircuitState.OPEN

    @property
    def open_topics(self) -> list[str]:
        return [topic for topic, breaker in self._breakers.items() if breaker.state is CircuitState.OPEN]

    def not_ready_reason(self) -> str | None:
        topics = self.open_topics
        return f"circuit open: topic {topics[0]}: {self._reasons[topics[0]]}" if topics else None

    def defer(self, tp: TP, end: int) -> None:
        """Notes that the records before offset `end` are not processed now."""
        self.deferred[tp] = max(end, self.deferred.get(tp, 0))

    def topics_to_probe(self) -> Iterator[str]:
        """Yields topics with an open circuit, deferred records and a probe that is due."""
        waiting = {tp.topic for tp in self.deferred}
        yield from (
            topic for topic in self.open_topics
            if topic in waiting and self._breakers[topic].is_probe_due(self._clock()))

    def start_probe(self, topic: str) -> int:
        """Begins a probe. Returns how many records to read."""
        return self._breakers[topic].start_probe()

    def evaluate_probe(self, topic: str) -> None:
        """Ends a probe that has read the records available."""
        breaker = self._breakers[topic]
        if breaker.state is CircuitState.HALF_OPEN and breaker.count:
            breaker.evaluate_probe(self._clock())
            self._report_state(topic)
        else:
            breaker.evaluate_probe(self._clock())

    def force_close(self, topic: str) -> None:
        """Closes an open circuit by an operator's command. Ignores unknown topics and circuits that are not open."""
        if topic in self._breakers and self.is_open(topic):
            self._breakers[topic].force_close()
            self._report_state(topic)

    def pop_resumed(self) -> dict[TP, int]:
        """Removes and returns the deferred partitions whose circuit is no longer open: partition -> end offset."""
        resumed = {tp: end for tp, end in self.deferred.items() if not self.is_open(tp.topic)}
        for tp in resumed:
            del self.deferred[tp]
        return resumed

    def _report_state(self, topic: str) -> None:
        breaker = self._breakers[topic]
        if breaker.state is CircuitState.OPEN:
            log.error(
                'circuit open for topic %s: %s; next probe in %.0f s; run "attn dead-letters resume-topic %s" to '
                "close it now", topic, self._reasons[topic], breaker.seconds_until_probe(self._clock()), topic,
            )
        else:
            cause = "by an operator" if breaker.state is CircuitState.FORCED_CLOSED else "few records are rejected now"
            log.warning("circuit closed for topic %s: %s", topic, cause)
        metrics.CIRCUIT_OPEN.labels(topic).set(breaker.state is CircuitState.OPEN)
        if self.open_topics:
            self.any_open.set()
        else:
            self.any_open.clear()


async def listen_for_resume_markers(settings: Settings, breakers: TopicBreakers) -> None:
    """Follows dead-letters while any circuit is open, and closes the circuits that operators ask to resume
    (schemas.dead_letters.ResumeTopicMarker). Does not return."""
    while True:
        await breakers.any_open.wait()
        reader = AIOKafkaConsumer(
            **client_arguments(settings), client_id=f"attn-gate-{settings.instance}", enable_auto_commit=False)
        try:
            await reader.start()
            # The consumer's own `partitions_for_topic` knows only topics that it subscribed to.
            known = await reader._client.fetch_all_metadata()
            if not (numbers := known.partitions_for_topic(DEAD_LETTERS)):
                raise UnknownTopicOrPartitionError(DEAD_LETTERS)
            reader.assign([TopicPartition(DEAD_LETTERS, number) for number in numbers])
            await reader.seek_to_end()  # older markers refer to an earlier open circuit
            while breakers.any_open.is_set():
                for records in (await reader.getmany(timeout_ms=_POLL_MS)).values():
                    for record in records:
                        marker = parse_record(record.key, record.value, record.headers)
                        if isinstance(marker, ResumeTopicMarker):
                            breakers.force_close(marker.topic)
        except KafkaError as error:  # the watchdog stops the worker if the broker does not come back
            log.info("cannot read resume markers from dead-letters, retrying: %r", error)
            await asyncio.sleep(_POLL_MS / 1000)
        finally:
            await close_client(reader)
