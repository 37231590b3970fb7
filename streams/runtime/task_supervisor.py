"""Supervises the worker's background tasks.

The first unhandled exception in any of them stops the worker (fail fast); later exceptions are only logged. A restart
resumes from the last durable position.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

__all__ = ["TaskSupervisor", "WorkerFailed"]

log = logging.getLogger(__name__)


class WorkerFailed(Exception):
    """A background task of the worker failed; the message names the task and the error."""


class TaskSupervisor:
    """Records the first failure. The process waits in `wait` and exits with that failure.

    `failure`: task, error class and message of the first failure, or None.
    """

    def __init__(self) -> None:
        self.failure: str | None = None
        self._cause: BaseException | None = None
        self._failed = asyncio.Event()

    def fail(self, where: str, error: BaseException) -> None:
        """Logs a failure and keeps it if it is the first. Later failures are mostly consequences of the first."""
        log.critical("%s: %s: %s", where, type(error).__name__, error, exc_info=error)
        if self.failure is None:
            self.failure, self._cause = f"{where}: {type(error).__name__}: {error}", error
            self._failed.set()

    async def wait(self) -> NoReturn:
        """Waits for the first failure, then raises WorkerFailed. Does not return."""
        await self._failed.wait()
        raise WorkerFailed(self.failure) from self._cause

    @contextmanager
    def guard(self, where: str) -> Iterator[None]:
        """Reports any exception of the block as a failure and raises it again. Agents need it: Faust would acknowledge
        the message or restart the agent."""
        try:
            yield
        except Exception as error:
            self.fail(where, error)
            raise

    def spawn(self, work: Coroutine[Any, Any, None], where: str) -> asyncio.Task[None]:
        """Runs `work` as a task and reports its exception as a failure."""
        task = asyncio.create_task(work, name=where)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(task.get_name(), error)
