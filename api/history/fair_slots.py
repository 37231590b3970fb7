"""Fair scheduler of query slots: shares them among workspaces, then among the users of a workspace.

- At most `at_once` tasks run. One workspace uses at most all slots but one, one user at most half of the slots. Another
  workspace therefore gets a slot soon.
- A free slot goes to the workspace with the fewest running tasks. Among equals the workspace wins that was served
  longest ago. The same rule selects the user within the workspace.
- A user has at most `of_user` tasks, running and waiting.
- At most `waiting` tasks wait. One more replaces the newest waiting task of the workspace with the most waiting tasks,
  unless its own workspace would then have as many.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

__all__ = ["FairSlots", "NoFreeSlot"]


class NoFreeSlot(Exception):
    """No slot is free and the queue is full. `own`: the user has reached the limit per user."""

    def __init__(self, own: bool) -> None:
        super().__init__("the user has too many tasks" if own else "too many tasks wait")
        self.own = own


# Waiting tasks of one workspace: user -> futures in order of arrival.
_Waiting = OrderedDict[str, list["asyncio.Future[None]"]]


class FairSlots:
    """Slots for the tasks of one event loop."""

    def __init__(self, at_once: int, waiting: int, of_user: int) -> None:
        self._at_once, self._max_waiting, self._max_of_user = at_once, waiting, of_user
        self._max_workspace_running = max(1, at_once - 1)
        self._max_user_running = max(1, (at_once + 1) // 2)
        self._running: Counter[str] = Counter()  # by workspace
        self._running_by_user: Counter[tuple[str, str]] = Counter()
        self._waiting: OrderedDict[str, _Waiting] = OrderedDict()

    @asynccontextmanager
    async def acquire(self, ws: str, user: str) -> AsyncIterator[None]:
        """Holds a slot while the body runs. Raises NoFreeSlot at once, or while it waits and a task replaces it."""
        waiting = self._waiting[ws].get(user, []) if ws in self._waiting else []
        if self._running_by_user[ws, user] + len(waiting) >= self._max_of_user:
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
            self._running.total() < self._at_once and self._running[ws] < self._max_workspace_running
            and self._running_by_user[ws, user] < self._max_user_running
        )

    async def _wait(self, ws: str, user: str) -> None:
        if sum(map(_count, self._waiting.values())) >= self._max_waiting:
            self._make_room(ws)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(ws, OrderedDict()).setdefault(user, []).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._end(ws, user)  # the slot was assigned before the cancellation arrived
            else:
                self._drop(ws, user, turn)
            raise

    def _make_room(self, ws: str) -> None:
        largest = max(self._waiting, key=lambda name: _count(self._waiting[name]))
        if _count(self._waiting[largest]) <= _count(self._waiting.get(ws, {})) + 1:
            raise NoFreeSlot(own=False)
        users = self._waiting[largest]
        user = max(users, key=lambda name: len(users[name]))
        newest = users[user][-1]
        self._drop(largest, user, newest)
        if not newest.done():
            newest.set_exception(NoFreeSlot(own=False))

    def _start(self, ws: str, user: str) -> None:
        self._running[ws] += 1
        self._running_by_user[ws, user] += 1

    def _end(self, ws: str, user: str) -> None:
        self._running[ws] -= 1
        self._running_by_user[ws, user] -= 1
        self._running, self._running_by_user = +self._running, +self._running_by_user  # drops zeros
        while (selected := self._next()) is not None:
            ws, user, turn = selected
            self._drop(ws, user, turn)
            if not turn.done():
                self._start(ws, user)
                turn.set_result(None)

    def _next(self) -> tuple[str, str, asyncio.Future[None]] | None:
        for ws in _by_running(self._waiting, self._running):
            running = {name: self._running_by_user[ws, name] for name in self._waiting[ws]}
            for user in _by_running(self._waiting[ws], running):
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


def _by_running(names: Iterable[str], running: Counter[str] | dict[str, int]) -> list[str]:
    """Sorts names by running tasks, fewest first. Equals keep their order: served longest ago first."""
    return sorted(names, key=lambda name: running.get(name, 0))
