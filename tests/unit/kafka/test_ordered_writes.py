"""Writes that are under way at once complete in order, and none completes after a failed one."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.kafka.ordered_writes import OrderedWrites


class Broker:
    """Answers each write when the test says so."""

    def __init__(self, limit: int = 10) -> None:
        self.answers: dict[int, asyncio.Future[None]] = {}
        self.completed: list[int] = []
        self.failures = 0
        self.writes = OrderedWrites(limit, self._failed)

    def _failed(self) -> None:
        self.failures += 1

    async def start(self, number: int) -> None:
        await self.writes.start(self._write(number), partial(self.completed.append, number))

    async def _write(self, number: int) -> None:
        self.answers[number] = asyncio.get_running_loop().create_future()
        await self.answers[number]


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@given(st.permutations(range(6)), st.integers(0, 6))
def test_writes_complete_in_order_up_to_the_first_that_fails(order: list[int], failing: int) -> None:
    async def run() -> None:
        broker = Broker()
        for number in range(6):
            await broker.start(number)
        await settle()
        answered: set[int] = set()
        for number in order:
            if number == failing:
                broker.answers[number].set_exception(ConnectionError(str(number)))
            else:
                broker.answers[number].set_result(None)
            answered.add(number)
            await settle()
            prefix = [n for n in range(6) if set(range(n + 1)) <= answered and n < failing]
            assert broker.completed == prefix
        assert broker.failures == (failing < 6)
        assert broker.writes.busy == (failing < 6)
        async with asyncio.timeout(60):
            await broker.writes.wait_finished()
        if failing < 6:
            with pytest.raises(ConnectionError, match=str(failing)):
                broker.writes.raise_error()
            with pytest.raises(ConnectionError):
                await broker.start(7)
            assert 7 not in broker.answers

    asyncio.run(run())


async def test_a_write_starts_only_while_fewer_than_the_limit_are_under_way() -> None:
    broker = Broker(limit=2)
    async with asyncio.timeout(60):
        await broker.start(0)
        await broker.start(1)
        third = asyncio.create_task(broker.start(2))
        await settle()
        assert broker.writes.full
        assert 2 not in broker.answers
        broker.answers[1].set_result(None)  # the first is still under way, so the second has not completed
        await settle()
        assert not third.done()
        broker.answers[0].set_result(None)
        await third
        await settle()
        broker.answers[2].set_result(None)
        await broker.writes.wait_finished()
    assert broker.completed == [0, 1, 2]


async def test_a_cancelled_write_counts_as_failed() -> None:
    broker = Broker()
    await broker.start(0)
    await settle()
    broker.writes.cancel()
    await settle()
    assert broker.failures == 1
    assert not broker.completed
