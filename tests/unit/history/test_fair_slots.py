"""Query slots are shared fairly: a caller with many queries does not delay other callers."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from api.history.fair_slots import FairSlots, NoFreeSlot


class Work:
    """Tasks that hold a query slot until the test ends them. `began`: the callers that got a slot, in order."""

    def __init__(self, at_once: int = 4, waiting: int = 64, of_user: int = 16) -> None:
        self.slots = FairSlots(at_once, waiting, of_user)
        self.began: list[str] = []
        self.running: list[tuple[str, asyncio.Event]] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def ask(self, caller: str, times: int = 1) -> None:
        self.tasks += [asyncio.create_task(self._hold(caller)) for _ in range(times)]
        await self.rest()

    async def _hold(self, caller: str) -> None:
        ws, _, user = caller.partition("/")
        async with self.slots.acquire(ws, user):
            self.began.append(caller)
            held = (caller, asyncio.Event())
            self.running.append(held)
            try:
                await held[1].wait()
            finally:
                self.running.remove(held)

    async def end(self, number: int = 0) -> None:
        self.running[number][1].set()
        await self.rest()

    async def rest(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    def refused(self) -> list[bool]:
        """Returns, per refused call, whether the limit of its own user was the reason."""
        ended = [task.exception() for task in self.tasks if task.done() and not task.cancelled()]
        return [error.own for error in ended if isinstance(error, NoFreeSlot)]

    async def finish(self) -> None:
        while self.running:
            await self.end()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        assert not self.slots._waiting
        assert not self.slots._running_by_user


async def test_one_user_with_ninety_connections_leaves_slots_to_all_others() -> None:
    work = Work()
    await work.ask("loud/viewer", 90)
    assert Counter(work.began) == {"loud/viewer": 2}
    assert work.refused() == [True] * 74
    await work.ask("loud/colleague")
    await work.ask("calm/ann")
    # both got a slot at once, although loud/viewer waits with 16 calls
    assert Counter(work.began) == {"loud/viewer": 2, "loud/colleague": 1, "calm/ann": 1}
    await work.ask("calm/bob")
    await work.ask("third/eve")
    await work.end()
    assert work.began[4:] == ["third/eve"]  # third/eve got a slot before the 14 calls of loud/viewer that came first
    while "calm/bob" not in work.began:
        await work.end()
    assert work.began.count("loud/viewer") <= 4
    await work.finish()


async def test_a_workspace_of_many_users_takes_no_more_than_its_share() -> None:
    work = Work()
    for number in range(40):
        await work.ask(f"loud/{number}", 2)
    assert len(work.running) == 3
    await work.ask("calm/ann")
    assert work.began[-1] == "calm/ann"
    await work.ask("third/eve", 5)
    # five queued calls of workspace loud were dropped for those of third/eve
    assert work.refused() == [False] * (80 - 3 - 64) + [False] * 5
    while "third/eve" not in work.began:
        await work.end()
    assert work.began.count("third/eve") == 1
    assert len(work.began) <= 6
    await work.finish()
    assert work.began.count("third/eve") == 5


@pytest.mark.parametrize("seed", range(30))
async def test_every_slot_is_released_after_random_calls_and_cancellations(seed: int) -> None:
    chance = random.Random(seed)
    work = Work(at_once=chance.randrange(1, 6), waiting=8, of_user=4)
    for _ in range(150):
        roll = chance.random()
        if roll < 0.6:
            await work.ask(f"w{chance.randrange(4)}/u{chance.randrange(3)}")
        elif roll < 0.8 and work.running:
            await work.end(chance.randrange(len(work.running)))
        elif work.tasks:
            work.tasks[chance.randrange(len(work.tasks))].cancel()
            if chance.random() < 0.5:
                await work.rest()
        assert len(work.running) <= work.slots._at_once
    await work.finish()
    await work.ask("last/one")
    assert work.began[-1] == "last/one"
    await work.finish()
