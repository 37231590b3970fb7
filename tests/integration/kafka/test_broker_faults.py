"""A cluster of three brokers, some of which die: no acknowledged record is lost or doubled, and all roles recover.

All tests of the module share one stack: what a fault leaves behind is there for the next test.
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
    async with rig(tmp_path_factory.mktemp("faults")) as one:
        yield one


async def test_a_broker_dies_and_comes_back(stack: Rig) -> None:
    """What two of three can hold goes on. One topic asks for all three: the tools say that it takes nothing."""
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
    assert (await stack.replayed(events)).returncode == 0  # some may be there: a repeat changes nothing
    stack.lines += events
    await stack.proven()
    await stack.report("a broker killed", begun, ended)
    assert stack.edges == edges, "an edge ended"


async def test_the_leader_of_every_partition_dies_and_the_controller(stack: Rig) -> None:
    """One after another, the next one when all replicas are in sync."""
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
            left -= {place for place, number in leaders.items() if number == node.number}
            await stack.led_elsewhere(node)
            await stack.back(node)
            await stack.report(f"leader {node.number} killed", begun, time.time())
    await stack.proven()
    assert stack.edges == edges, "an edge ended"


async def test_an_answer_without_committed_offsets_is_not_read_as_none_committed(
    stack: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that is not, or not yet, the group's coordinator answers an offset fetch without any partition."""
    find, asked = AIOKafkaAdminClient.find_coordinator, 0

    async def find_wrongly(self: AIOKafkaAdminClient, group: str) -> int:
        nonlocal asked
        asked += 1
        right = await find(self, group)
        return right % 3 + 1 if asked == 1 else right

    places = [TP(topic, number) for topic in SOURCE_TYPES for number in range(2)]
    app = SimpleNamespace(conf=SimpleNamespace(id="attn-ingest"))
    committed = await GroupOffsets(app, stack.settings)._fetch_committed(places)
    assert committed
    monkeypatch.setattr(AIOKafkaAdminClient, "find_coordinator", find_wrongly)
    assert (await GroupOffsets(app, stack.settings)._fetch_committed(places)).keys() == committed.keys()
    assert asked == 2


async def test_all_brokers_are_away(stack: Rig) -> None:
    """For longer than anything in attn waits for an answer: workers end and are started again, edges stay."""
    edges = stack.edges
    async with stack.fed(10.0) as producer:
        await eventually(lambda: producer.acknowledged > 20, "it is fed", PATIENCE)
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
    assert stack.edges == edges, "an edge ended"


async def test_one_broker_of_three_is_left(stack: Rig) -> None:
    """Nothing is acknowledged that one broker alone holds; attn says what is wrong, and not without an end."""
    edges, events = stack.edges, stack.more(20)
    async with stack.fed(10.0) as producer:
        await eventually(lambda: producer.acknowledged > 20, "it is fed", PATIENCE)
        begun, said = time.time(), {name: len(lines) for name, lines in stack.log_lines.items()}
        dead = stack.kafka.nodes[:2]
        for node in dead:
            node.kill()
        await asyncio.sleep(2)  # what was acknowledged before comes in
        held = producer.acknowledged
        done = await stack.replayed(events)
        await eventually(lambda: stack.has_logged("brokers 1, 2 of 3 unreachable", said), "a worker says so", PATIENCE)
        assert producer.acknowledged == held, "acknowledged by one broker"
        lines = {name: len(stack.log_lines[name]) - count for name, count in said.items()}
        seconds = time.time() - begun
        await stack.back(*dead)
        ended = time.time()
    assert done.returncode == 1
    assert "brokers 1, 2 of 3 unreachable" in done.stderr, done.stderr
    assert "0 records were acknowledged" in done.stderr or "nothing was sent" in done.stderr
    assert max(lines.values()) < 5 * seconds, f"a storm: {lines} lines in {seconds:.0f} s"
    assert (await stack.replayed(events)).returncode == 0  # some may be there: a repeat changes nothing
    stack.lines += events
    await stack.proven()
    await stack.report("two brokers of three killed, half a minute", begun, ended)
    assert stack.edges == edges, "an edge ended"
