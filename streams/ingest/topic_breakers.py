"""Which source topics are read: a breaker for each, what was left alone meanwhile, and who may open it again.

What a stopped topic brings is dropped as it is delivered, not fetched any less: only its place is kept, and it is read
again from Kafka when the topic goes on. Pausing the consumer would be one more state that Faust's rebalances undo.
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
    """`clock`: monotonic, seconds."""

    def __init__(self, policy: BreakerPolicy, clock: Callable[[], float] = time.monotonic) -> None:
        self.deferred: dict[TP, int] = {}  # the end of what was delivered and not read
        self.any_open = asyncio.Event()  # set while any topic is stopped
        self._policy = policy
        self._clock = clock
        self._breakers = {topic: CircuitBreaker(policy) for topic in SOURCE_TYPES}
        self._reasons: dict[str, str] = {}
        for topic in SOURCE_TYPES:
            metrics.CIRCUIT_OPEN.labels(topic).set(0)

    def record(self, topic: str, reason: str | None) -> bool:
        """Count a record; `reason`: why it was rejected. True: read no further in this topic."""
        breaker = self._breakers[topic]
        before, count, rejected = breaker.state, breaker.count + 1, breaker.rejected + (reason is not None)
        stop = breaker.record(self._clock(), reason is not None)
        if breaker.state is not before:
            if stop:
                self._reasons[topic] = f"{rejected} of {count} records rejected, the last: {reason}"
            self._report_state(topic)
        return stop

    def is_open(self, topic: str) -> bool:
        return self._breakers[topic].state is CircuitState.OPEN

    @property
    def open_topics(self) -> list[str]:
        return [topic for topic, breaker in self._breakers.items() if breaker.state is CircuitState.OPEN]

    def not_ready_reason(self) -> str | None:
        topics = self.open_topics
        return f"stopped: topic {topics[0]}: {self._reasons[topics[0]]}" if topics else None

    def defer(self, tp: TP, upto: int) -> None:
        """What lies before `upto` is not read now."""
        self.deferred[tp] = max(upto, self.deferred.get(tp, 0))

    def topics_to_probe(self) -> Iterator[str]:
        """Stopped topics that have something new and may be tried."""
        waiting = {tp.topic for tp in self.deferred}
        yield from (
            topic for topic in self.open_topics
            if topic in waiting and self._breakers[topic].is_probe_due(self._clock()))

    def start_probe(self, topic: str) -> int:
        """How many records to read now, to see."""
        return self._breakers[topic].start_probe()

    def evaluate_probe(self, topic: str) -> None:
        """What was there for the try was read."""
        breaker = self._breakers[topic]
        if breaker.state is CircuitState.HALF_OPEN and breaker.count:
            breaker.evaluate_probe(self._clock())
            self._report_state(topic)
        else:
            breaker.evaluate_probe(self._clock())

    def force_close(self, topic: str) -> None:
        """An operator says so."""
        if topic in self._breakers and self.is_open(topic):
            self._breakers[topic].force_close()
            self._report_state(topic)

    def pop_resumed(self) -> dict[TP, int]:
        """What was left alone of topics that go on now: partition -> end."""
        found = {tp: end for tp, end in self.deferred.items() if not self.is_open(tp.topic)}
        for tp in found:
            del self.deferred[tp]
        return found

    def _report_state(self, topic: str) -> None:
        breaker = self._breakers[topic]
        if breaker.state is CircuitState.OPEN:
            log.error(
                "%s is not read any more: %s. It is tried again in %.0f s; `attn dead-letters resume-topic %s` reads "
                "on at once, whatever it brings",
                topic, self._reasons[topic], breaker.seconds_until_probe(self._clock()), topic,
            )
        else:
            log.warning("%s is read on: %s", topic,
                        "an operator says so" if breaker.state is CircuitState.FORCED_CLOSED else "it is good again")
        metrics.CIRCUIT_OPEN.labels(topic).set(breaker.state is CircuitState.OPEN)
        if self.open_topics:
            self.any_open.set()
        else:
            self.any_open.clear()


async def listen_for_resume_markers(settings: Settings, breakers: TopicBreakers) -> None:
    """Runs for ever: while a topic is stopped, hears what operators say of it
    (schemas.dead_letters.ResumeTopicMarker)."""
    while True:
        await breakers.any_open.wait()
        reader = AIOKafkaConsumer(
            **client_arguments(settings), client_id=f"attn-gate-{settings.instance}", enable_auto_commit=False)
        try:
            await reader.start()
            # The client itself knows only topics it was told to follow.
            known = await reader._client.fetch_all_metadata()
            if not (numbers := known.partitions_for_topic(DEAD_LETTERS)):
                raise UnknownTopicOrPartitionError(DEAD_LETTERS)
            reader.assign([TopicPartition(DEAD_LETTERS, number) for number in numbers])
            await reader.seek_to_end()  # what was said before the stop was about another one
            while breakers.any_open.is_set():
                for records in (await reader.getmany(timeout_ms=_POLL_MS)).values():
                    for record in records:
                        word = parse_record(record.key, record.value, record.headers)
                        if isinstance(word, ResumeTopicMarker):
                            breakers.force_close(word.topic)
        except KafkaError as error:  # whether it is gone for good, others look
            log.info("operators can't be heard: %r", error)
            await asyncio.sleep(_POLL_MS / 1000)
        finally:
            await close_client(reader)
