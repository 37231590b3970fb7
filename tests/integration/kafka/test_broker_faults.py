"""Brokers of a cluster of three are killed. No acknowledged record is lost or doubled, and all roles recover.

All tests of this module share one stack: each test starts with the state that the previous fault left.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest
import pytest_asyncio
from aiokafka.admin import AIOKafkaAdminClient
from faust.types import TP
from support.kafka.outage import Rig, rig
from support.kafka.pipeline import eventually
from support.kafka.steady_producer import PATIENCE

from schemas.topics import LOG, SOURCE_TYPES, VIEWS
from streams.consumer.group_offsets import GroupOffsets

pytestmark = [
    pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with rig(tmp_path_factory.mktemp("faults")) as running:
        yield running


async def test_a_broker_dies_and_comes_back(stack: Rig) -> None:
    """Topics that need two of three replicas accept writes. `attn replay` reports the topic that needs all three."""
    edges = stack.edges
    events = [line for line in stack.more(200) if line["topic"] == "sessions"]
    await stack.configured("sessions", min_insync_replicas="3")
    async with stack.fed(without="sessions"):
        await asyncio.sleep(3)
        begun = time.time()
        node = stack.kafka.nodes[0]
        node.kill()
        await stack.led_elsewhere(node)
        done = await stack.replayed(events)
        await stack.configured("sessions")
        await stack.back(node)
        ended = time.time()
    assert done.returncode == 1
    assert "broker 1 of 3 unreachable; sessions/" in done.stderr
    assert "with 2 of 3 replicas in sync, 3 needed to write (min.insync.replicas)" in done.stderr
    assert f"0 records were acknowledged, {len(events)} more may have arrived; go on at line 1 " in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert (await stack.replayed(events)).returncode == 0  # the topic may have some events: repeats change nothing
    stack.lines += events
    await stack.proven()
    await stack.report("a broker killed", begun, ended)
    assert stack.edges == edges, "an edge has exited"


async def test_the_leader_of_every_partition_dies_and_the_controller(stack: Rig) -> None:
    """The brokers are killed one after another, each once all replicas are in sync again."""
    edges = stack.edges
    left = set(await stack.led_by([LOG, VIEWS]))
    controllers = 0
    async with stack.fed():
        while left or not controllers:
            leaders = await stack.led_by([LOG, VIEWS])
            node = stack.node(leaders[min(left)]) if left else stack.controller()
            controllers += node is stack.controller()
            begun = time.time()
            node.kill()
            left -= {partition for partition, number in leaders.items() if number == node.number}
            await stack.led_elsewhere(node)
            await stack.back(node)
            await stack.report(f"leader {node.number} killed", begun, time.time())
    await stack.proven()
    assert stack.edges == edges, "an edge has exited"


async def test_an_answer_without_committed_offsets_is_not_read_as_none_committed(
    stack: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that is not the coordinator of the group answers an offset fetch without any partition."""
    find, asked = AIOKafkaAdminClient.find_coordinator, 0

    async def find_wrongly(self: AIOKafkaAdminClient, group: str) -> int:
        nonlocal asked
        asked += 1
        right = await find(self, group)
        return right % 3 + 1 if asked == 1 else right

    partitions = [TP(topic, number) for topic in SOURCE_TYPES for number in range(2)]
    app = SimpleNamespace(conf=SimpleNamespace(id="attn-ingest"))
    committed = await GroupOffsets(app, stack.settings)._fetch_committed(partitions)
    assert committed
    monkeypatch.setattr(AIOKafkaAdminClient, "find_coordinator", find_wrongly)
    assert (await GroupOffsets(app, stack.settings)._fetch_committed(partitions)).keys() == committed.keys()
    assert asked == 2


async def test_all_brokers_are_away(stack: Rig) -> None:
    """The outage of 35 s is longer than every timeout in attn: workers exit and are restarted, edges keep running."""
    edges = stack.edges
    async with stack.fed(10.0) as producer:
        await eventually(lambda: producer.acknowledged > 20, "20 events are acknowledged", PATIENCE)
        begun = time.time()
        stack.kafka.kill()
        await asyncio.sleep(35)
        held = producer.acknowledged
        await asyncio.sleep(1)
        assert producer.acknowledged == held
        await stack.back(*stack.kafka.nodes)
        ended = time.time()
    await stack.proven()
    await stack.report("all brokers killed, 35 s", begun, ended)
    assert stack.edges == edges, "an edge has exited"


async def test_one_broker_of_three_is_left(stack: Rig) -> None:
    """With one broker left no write is acknowledged. The roles log the cause, at most five lines a second each."""
    edges, events = stack.edges, stack.more(20)
    async with stack.fed(10.0) as producer:
        await eventually(lambda: producer.acknowledged > 20, "20 events are acknowledged", PATIENCE)
        begun, logged = time.time(), {name: len(lines) for name, lines in stack.log_lines.items()}
        dead = stack.kafka.nodes[:2]
        for node in dead:
            node.kill()
        await asyncio.sleep(5)  # acknowledgements that were under way arrive within this time
        held = producer.acknowledged
        done = await stack.replayed(events)
        await eventually(lambda: stack.has_logged("brokers 1, 2 of 3 unreachable", logged), "a log line", PATIENCE)
        assert producer.acknowledged == held, "one broker alone has acknowledged a write"
        lines = {name: len(stack.log_lines[name]) - count for name, count in logged.items()}
        seconds = time.time() - begun
        await stack.back(*dead)
        ended = time.time()
    assert done.returncode == 1
    assert "brokers 1, 2 of 3 unreachable" in done.stderr, done.stderr
    assert "0 records were acknowledged" in done.stderr or "nothing was sent" in done.stderr
    assert max(lines.values()) < 5 * seconds, f"too many log lines: {lines} in {seconds:.0f} s"
    assert (await stack.replayed(events)).returncode == 0  # the topic may have some events: repeats change nothing
    stack.lines += events
    await stack.proven()
    await stack.report("two brokers of three killed, half a minute", begun, ended)
    assert stack.edges == edges, "an edge has exited"
