"""Producers send a batch in the next step of the event loop, and write each record once and in order."""

from __future__ import annotations

import asyncio
import struct
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    BrokerResponseError,
    DuplicateSequenceNumber,
    InvalidProducerEpoch,
    KafkaConnectionError,
    KafkaError,
    NoError,
    NotLeaderForPartitionError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
)
from hypothesis import given
from hypothesis import strategies as st
from support.examples import law

from schemas.settings import Settings
from streams.kafka.producer import idempotent_producer, wait_acknowledged, write_records

TOPIC = "attn.views"
PID = 7
FAULTS = ["none", "slow", "not sent", "no answer", "moved", "no leader"]


class Broker:
    """Two brokers in place of a producer's client. A partition accepts and refuses batches by their sequence number as
    Kafka does. `faults` are used up one per request."""

    def __init__(self, *faults: str) -> None:
        self.faults = list(faults)
        self.requests: list[tuple[int, set[int]]] = []  # broker, partitions
        self.log: dict[int, list[int]] = defaultdict(list)  # partition -> sequence numbers
        self.appended: dict[int, list[tuple[int, int]]] = defaultdict(list)  # sequence number and length of each batch
        self.refusal: type[BrokerResponseError] | None = None
        self.without_leader = 0  # look-ups
        self.moved: set[int] = set()  # partitions of which the other broker is the leader
        self._busy: set[int] = set()

    def leader_for_partition(self, tp: TopicPartition) -> int:
        if self.without_leader:
            self.without_leader -= 1
            return -1
        return (tp.partition + int(tp.partition in self.moved)) % 2

    def force_metadata_update(self) -> asyncio.Future[None]:
        answer = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(answer.set_result, None)
        return answer

    async def _wait_on_metadata(self, topic: str) -> None: ...

    async def _maybe_wait_metadata(self) -> None: ...

    async def close(self) -> None: ...

    async def send(self, broker: int, request: Any) -> Any:
        assert broker not in self._busy, "two requests of a producer to one broker"
        parts = [(partition, bytes(data)) for _, of_topic in request._topics for partition, data in of_topic]
        self.requests.append((broker, {partition for partition, _ in parts}))
        self._busy.add(broker)
        try:
            return await self._answer(self.faults.pop(0) if self.faults else "none", parts)
        finally:
            self._busy.remove(broker)

    async def _answer(self, fault: str, parts: list[tuple[int, bytes]]) -> Any:
        await asyncio.sleep(0.001 if fault == "slow" else 0)
        if fault == "no leader":
            self.without_leader = 3
        if fault == "not sent":
            raise KafkaConnectionError
        if fault == "moved":
            self.moved ^= {partition for partition, _ in parts}
            results = [(partition, NotLeaderForPartitionError.errno, -1) for partition, _ in parts]
        else:
            results = [(partition, *self._append(partition, data)) for partition, data in parts]
        if fault == "no answer":
            raise RequestTimedOutError
        return SimpleNamespace(API_VERSION=7, topics=[(TOPIC, [(*result, -1, 0) for result in results])])

    def _append(self, partition: int, data: bytes) -> tuple[int, int]:
        pid, _, sequence, count = struct.unpack_from(">qhii", data, 43)
        assert pid == PID
        log, batches = self.log[partition], self.appended[partition]
        if self.refusal is not None:
            return self.refusal.errno, -1
        if batches and batches[-1] == (sequence, count):
            return NoError.errno, sequence
        if sequence < len(log):
            return DuplicateSequenceNumber.errno, -1
        if sequence > len(log):
            return OutOfOrderSequenceNumber.errno, -1
        log += range(sequence, sequence + count)
        batches.append((sequence, count))
        return NoError.errno, sequence


async def started(broker: Broker) -> AIOKafkaProducer:
    """Returns a started producer whose client is `broker`."""
    producer = idempotent_producer(Settings(_env_file=None), "test")
    producer._txn_manager.set_pid_and_epoch(PID, 0)
    sender = producer._sender
    producer.client = sender.client = broker
    producer._message_accumulator._cluster = broker
    producer._metadata = SimpleNamespace(partitions_for_topic=lambda _: set(range(4)))
    sender._retry_backoff = 0
    await sender.start()
    await asyncio.sleep(0)  # the sender task finds nothing to send
    return producer


async def write(producer: AIOKafkaProducer, partition: int, count: int = 1) -> int:
    return await write_records(producer, TOPIC, partition, [(b"k", b"v", [])] * count)


@law(100)
@given(faults=st.lists(st.sampled_from(FAULTS), max_size=12),
       writers=st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3), st.booleans(), st.integers(0, 4)),
                                 max_size=5), min_size=1, max_size=5))
def test_each_record_is_written_once_and_in_order(faults: list[str], writers: list[Any]) -> None:
    async def write_all(producer: AIOKafkaProducer, writes: list[tuple[int, int, bool, int]]) -> None:
        for partition, count, single, steps in writes:
            for _ in range(steps):
                await asyncio.sleep(0)
            if single:
                await wait_acknowledged([
                    await producer.send(TOPIC, b"v", partition=partition) for _ in range(count)])
            else:
                await write(producer, partition, count)

    async def run() -> None:
        broker = Broker(*faults)
        producer = await started(broker)
        async with asyncio.timeout(20):
            await asyncio.gather(*[write_all(producer, writes) for writes in writers])
            await producer.stop()
        expected = {number: sum(count for writes in writers for partition, count, *_ in writes if partition == number)
                    for number in range(4)}
        assert {number: broker.log[number] for number in expected} == {
            number: list(range(count)) for number, count in expected.items()}
        assert len(asyncio.all_tasks()) == 1, "the sender left a task"

    asyncio.run(run())


async def test_a_write_is_sent_in_the_next_step_with_those_of_other_tasks() -> None:
    broker = Broker()
    producer = await started(broker)
    writes = [asyncio.create_task(write(producer, number)) for number in (0, 2)]
    await asyncio.sleep(0)  # both append
    await asyncio.sleep(0)  # the request
    assert broker.requests == [(0, {0, 2})]
    assert await asyncio.gather(*writes) == [0, 0]
    await producer.stop()


async def test_partitions_write_their_next_batches_in_one_request() -> None:
    broker = Broker()
    producer = await started(broker)

    async def three(partition: int) -> None:
        for _ in range(3):
            await write(producer, partition)

    await asyncio.gather(three(0), three(2))
    assert broker.requests == [(0, {0, 2})] * 3
    await producer.stop()


async def test_a_batch_waits_in_the_queue_while_its_partition_has_no_leader() -> None:
    broker = Broker()
    producer = await started(broker)
    broker.without_leader = 5
    async with asyncio.timeout(20):
        assert await write(producer, 0) == 0
    assert broker.without_leader == 0
    await producer.stop()


@pytest.mark.parametrize(("refusal", "error"), [
    (InvalidProducerEpoch, ProducerFenced), (TopicAuthorizationFailedError, TopicAuthorizationFailedError)])
async def test_a_refused_batch_is_not_retried(
    refusal: type[BrokerResponseError], error: type[KafkaError],
) -> None:
    broker = Broker()
    producer = await started(broker)
    broker.refusal = refusal
    with pytest.raises(error):
        await write(producer, 0)
    assert len(broker.requests) == 1
    await producer.stop()


async def test_an_unexpected_error_fails_this_write_and_later_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker()
    producer = await started(broker)

    async def fail(*_: Any) -> None:
        raise ValueError("no response of the protocol")

    monkeypatch.setattr(broker, "send", fail)
    async with asyncio.timeout(20):
        for _ in range(2):
            with pytest.raises(KafkaError, match="no response of the protocol"):
                await write(producer, 0)
        await producer._sender.close()


@pytest.mark.parametrize("without_leader", [0, 5])
async def test_a_producer_whose_broker_is_down_ends(without_leader: int) -> None:
    """`close` ends the retries, those of the sender task too, which sends after a partition had no leader."""
    broker = Broker(*["not sent"] * 1000)
    producer = await started(broker)
    broker.without_leader = without_leader
    writing = asyncio.create_task(write(producer, 0))
    async with asyncio.timeout(20):
        while len(broker.requests) < 3:
            await asyncio.sleep(0)
        await producer._sender.close()
    writing.cancel()
    assert len(broker.requests) < 1000
    await asyncio.gather(writing, return_exceptions=True)
    assert len(asyncio.all_tasks()) == 1
