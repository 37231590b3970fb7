"""Writes to Kafka of which several are under way, and which complete in the order in which they were started."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["OrderedWrites"]


class OrderedWrites:
    """At most `limit` writes at once.

    A write completes once it and all earlier ones have succeeded. After a failed write no other completes or starts:
    their offsets are not committed, and a restart reads their records again. `on_failure` is called once.
    """

    def __init__(self, limit: int, on_failure: Callable[[], None]) -> None:
        self._limit = limit
        self._on_failure = on_failure
        self._writes: deque[tuple[asyncio.Task[Any], Callable[[], None]]] = deque()
        self._error: BaseException | None = None
        self._changed = asyncio.Event()

    @property
    def busy(self) -> bool:
        """Whether a write has not completed."""
        return bool(self._writes)

    @property
    def full(self) -> bool:
        return len(self._writes) >= self._limit

    def raise_error(self) -> None:
        """Raises the error of the first failed write, if any failed."""
        if self._error is not None:
            raise self._error

    async def wait_for_room(self) -> None:
        """Waits until another write may start. Raises the error of the first failed write."""
        while self.full and self._error is None:
            self._changed.clear()
            await self._changed.wait()
        self.raise_error()

    async def start(self, write: Coroutine[Any, Any, Any], complete: Callable[[], None]) -> None:
        """Starts a write as soon as there is room. Calls `complete` when it and all earlier writes have succeeded.

        Raises the error of the first failed write; `write` does not start then.
        """
        try:
            await self.wait_for_room()
        except BaseException:
            write.close()
            raise
        task = asyncio.create_task(write)
        self._writes.append((task, complete))
        task.add_done_callback(self._advance)

    async def wait_finished(self) -> None:
        """Returns when all writes have completed, or one has failed."""
        while self._writes and self._error is None:
            self._changed.clear()
            await self._changed.wait()

    def cancel(self) -> None:
        """Cancels the writes under way: the process stops after a failure."""
        for task, _ in self._writes:
            task.cancel()

    def _advance(self, _: asyncio.Task[Any]) -> None:
        while self._error is None and self._writes and self._writes[0][0].done():
            task, complete = self._writes[0]
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            if error is None:
                self._writes.popleft()
                complete()
            else:
                self._error = error
                self._on_failure()
        self._changed.set()
