"""A producer with an id per partition: each batch has the id, epoch and next sequence number of its partition."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.producer.message_accumulator import MessageAccumulator
from aiokafka.producer.transaction_manager import PidAndEpoch
from aiokafka.record.default_records import DefaultRecordBatch
from hypothesis import given
from hypothesis import strategies as st

from schemas.settings import Settings
from schemas.topics import DEAD_LETTERS, DECISIONS, FACTS, LOG, VIEWS
from streams.kafka.fencing import FENCED_TOPICS, FencedError, FencedProducer, PartitionFencer, _ProducerIds

OWN = (7, 0)
TOPICS = st.sampled_from([FACTS, DECISIONS, VIEWS, DEAD_LETTERS, LOG])
PARTITIONS = st.integers(0, 2)
STEPS = st.lists(st.one_of(
    st.tuples(st.just("fence"), PARTITIONS),
    st.tuples(st.just("write"), TOPICS, PARTITIONS, st.integers(1, 3)),
    st.tuples(st.just("send")),
), max_size=40)


async def sent_batches(steps: list[Any]) -> list[tuple[TopicPartition, tuple[int, int], DefaultRecordBatch]]:
    """Returns the batches that aiokafka's accumulator gives to its sender, each with the id that it must have."""
    ids = _ProducerIds()
    ids.set_pid_and_epoch(*OWN)
    cluster = SimpleNamespace(leader_for_partition=lambda tp: 0)
    accumulator = MessageAccumulator(cluster, 1 << 20, 0, 60, txn_manager=ids)
    epochs: dict[int, int] = dict.fromkeys(range(3), 0)
    for partition in epochs:
        ids.set_fenced(partition, 100 + partition, 0)
    sent = []

    def drain() -> None:
        while (batches := accumulator.drain_by_nodes(frozenset())[0].get(0)):
            for tp, batch in batches.items():
                expected = (100 + tp.partition, epochs[tp.partition]) if tp.topic in FENCED_TOPICS else OWN
                sent.append((tp, expected, DefaultRecordBatch(bytes(batch.get_data_buffer()))))
                batch.done(0)

    for step in [*steps, ("send",)]:
        if step[0] == "fence":
            drain()  # `fence` waits for the batches of the earlier assignment
            epochs[step[1]] += 1
            ids.set_fenced(step[1], 100 + step[1], epochs[step[1]])
        elif step[0] == "write":
            builder = accumulator.create_builder()
            for number in range(step[3]):
                builder.append(key=b"k", value=b"%d" % number, timestamp=None, headers=[])
            builder.close()
            tp = TopicPartition(step[1], step[2])
            if tp in accumulator._batches:
                drain()  # `add_batch` waits for the batch before
            await accumulator.add_batch(builder, tp, 1)
        else:
            drain()
        await asyncio.sleep(0)
    return sent


@given(STEPS)
def test_each_batch_has_the_id_epoch_and_next_sequence_number_of_its_partition(steps: list[Any]) -> None:
    next_sequence: dict[Any, int] = defaultdict(int)
    sent = asyncio.run(sent_batches(steps))
    assert sum(step[0] == "write" for step in steps) == len(sent)
    for tp, expected, batch in sent:
        assert (batch.producer_id, batch.producer_epoch) == expected
        assert batch.base_sequence == next_sequence[tp, expected]
        next_sequence[tp, expected] += len(list(batch))


@pytest.mark.parametrize(("pid", "epoch"), [(100, 0), (99, 1)])
async def test_a_write_after_a_second_fence_of_the_same_worker_is_refused(pid: int, epoch: int) -> None:
    """A broker that forgot the transactional id assigns another producer id, whose epochs start at 0 again."""
    fencer = PartitionFencer(Settings(_env_file=None))
    fencer._ids.set_fenced(0, 100, 1)
    former = FencedProducer(0, fencer.producer, PidAndEpoch(pid, epoch), -1)
    with pytest.raises(FencedError, match="partition 0 was fenced again by this worker"):
        await former.write(VIEWS, [(b"k", b"v")])


async def test_only_topics_of_the_owner_have_its_id() -> None:
    fencer = PartitionFencer(Settings(_env_file=None))
    fencer._ids.set_fenced(0, 100, 0)
    with pytest.raises(ValueError, match=r"attn\.log is not written by the owner"):
        await FencedProducer(0, fencer.producer, PidAndEpoch(100, 0), -1).write(LOG, [(b"k", b"v")])


async def test_a_fence_waits_for_batches_of_an_earlier_assignment() -> None:
    """A fence that was cancelled leaves its record in the queue; it must not be sent with the next epoch."""
    fencer = PartitionFencer(Settings(_env_file=None))
    fencer._ids.set_fenced(0, 100, 0)
    accumulator = fencer.producer._message_accumulator
    await accumulator.add_message(TopicPartition(VIEWS, 0), b"k", b"v", 1)
    await accumulator.add_message(TopicPartition(VIEWS, 1), b"k", b"v", 1)  # of another partition
    waiting = asyncio.create_task(fencer._wait_written(0))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    accumulator._batches[TopicPartition(VIEWS, 0)][0].done(0)
    await asyncio.wait_for(waiting, 60)
