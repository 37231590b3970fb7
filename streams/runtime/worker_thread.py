"""One thread that runs blocking calls in order. A daemon thread: a call that hangs in the network does not delay the
process's exit."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["WorkerThread"]

P = ParamSpec("P")
R = TypeVar("R")


class WorkerThread:
    """`await thread(function, *args)` runs a function in the thread."""

    def __init__(self, name: str) -> None:
        self._since: float | None = None
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    async def __call__(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Returns the function's result or raises its exception. A call whose task is cancelled still runs to its end,
        before any later call."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()

        def resolve(result: R | None, error: BaseException | None) -> None:
            if future.cancelled():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        def call() -> None:
            result: R | None = None
            error: BaseException | None = None
            try:
                result = function(*args, **kwargs)
            except BaseException as raised:
                error = raised
            with contextlib.suppress(RuntimeError):  # the event loop is closed, so no task waits for the result
                loop.call_soon_threadsafe(resolve, result, error)

        self._calls.put(call)
        return await future

    def busy(self) -> float:
        """Returns the seconds since the current call began; 0.0 if none runs."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def stop(self) -> None:
        """Ends the thread after the queued calls."""
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            self._since = time.monotonic()
            call()
            self._since = None
