"""Slots for work that takes a while, shared fairly: between workspaces first, then between the users of one.

At most `at_once` tasks run: of one workspace all but one slot, of one user half of the slots, so another workspace
finds a slot soon. A free slot goes to the workspace that runs least, among equals to the one that waits longest for its
turn, and within the workspace to a user by the same rule. A user has at most `of_user` tasks running and waiting. When
`waiting` tasks wait in all, a new one replaces the newest waiter of the workspace that has most waiters, unless its own
workspace has as many.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

__all__ = ["FairSlots", "NoFreeSlot"]


class NoFreeSlot(Exception):
    """No slot is free and the queue is full. `own`: the caller's own running and waiting queries are the reason."""

    def __init__(self, own: bool) -> None:
        super().__init__("too many of your own" if own else "too many")
        self.own = own


_Waiting = OrderedDict[str, list["asyncio.Future[None]"]]  # of one workspace: user -> in order of arrival


class FairSlots:
    """For the tasks of one event loop."""

    def __init__(self, at_once: int, waiting: int, of_user: int) -> None:
        self._at_once, self._most_waiting, self._of_user = at_once, waiting, of_user
        self._of_workspace_at_once = max(1, at_once - 1)
        self._of_user_at_once = max(1, (at_once + 1) // 2)
        self._running: Counter[str] = Counter()  # by workspace
        self._running_of: Counter[tuple[str, str]] = Counter()
        self._waiting: OrderedDict[str, _Waiting] = OrderedDict()

    @asynccontextmanager
    async def taken(self, ws: str, user: str) -> AsyncIterator[None]:
        """A slot while the body runs. Raises Busy, also after waiting."""
        waiting = self._waiting[ws].get(user, []) if ws in self._waiting else []
        if self._running_of[ws, user] + len(waiting) >= self._of_user:
            raise NoFreeSlot(own=True)
        if self._may_run(ws, user):
            self._start(ws, user)
        else:
            await self._wait(ws, user)
        try:
            yield
        finally:
            self._end(ws, user)

    def _may_run(self, ws: str, user: str) -> bool:
        return (
            self._running.total() < self._at_once and self._running[ws] < self._of_workspace_at_once
            and self._running_of[ws, user] < self._of_user_at_once
        )

    async def _wait(self, ws: str, user: str) -> None:
        if sum(map(_count, self._waiting.values())) >= self._most_waiting:
            self._make_room(ws)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(ws, OrderedDict()).setdefault(user, []).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._end(ws, user)  # it got its slot in the same moment
            else:
                self._drop(ws, user, turn)
            raise

    def _make_room(self, ws: str) -> None:
        most = max(self._waiting, key=lambda one: _count(self._waiting[one]))
        if _count(self._waiting[most]) <= _count(self._waiting.get(ws, {})) + 1:
            raise NoFreeSlot(own=False)
        users = self._waiting[most]
        user = max(users, key=lambda one: len(users[one]))
        last = users[user][-1]
        self._drop(most, user, last)
        if not last.done():
            last.set_exception(NoFreeSlot(own=False))

    def _start(self, ws: str, user: str) -> None:
        self._running[ws] += 1
        self._running_of[ws, user] += 1

    def _end(self, ws: str, user: str) -> None:
        self._running[ws] -= 1
        self._running_of[ws, user] -= 1
        self._running, self._running_of = +self._running, +self._running_of  # without zeros
        while (found := self._next()) is not None:
            ws, user, turn = found
            self._drop(ws, user, turn)
            if not turn.done():
                self._start(ws, user)
                turn.set_result(None)

    def _next(self) -> tuple[str, str, asyncio.Future[None]] | None:
        for ws in _least(self._waiting, self._running):
            for user in _least(self._waiting[ws], {one: self._running_of[ws, one] for one in self._waiting[ws]}):
                if self._may_run(ws, user):
                    turn = self._waiting[ws][user][0]
                    self._waiting.move_to_end(ws)
                    self._waiting[ws].move_to_end(user)
                    return ws, user, turn
        return None

    def _drop(self, ws: str, user: str, turn: asyncio.Future[None]) -> None:
        users = self._waiting.get(ws, OrderedDict())
        if turn in users.get(user, []):
            users[user].remove(turn)
            if not users[user]:
                del users[user]
            if not users:
                del self._waiting[ws]


def _count(users: _Waiting | dict[str, list[asyncio.Future[None]]]) -> int:
    return sum(map(len, users.values()))


def _least(names: Iterable[str], running: Counter[str] | dict[str, int]) -> list[str]:
    """Those that run least first; among equals, in the order in which they were served."""
    return sorted(names, key=lambda name: running.get(name, 0))
