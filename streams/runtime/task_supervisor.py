"""What ends the worker: the first thing that goes wrong anywhere in it. Nothing is swallowed and nothing goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

__all__ = ["TaskSupervisor", "WorkerFailed"]

log = logging.getLogger(__name__)


class WorkerFailed(Exception):
    """The worker can't go on; `str(error)` says why. A restart resumes from what is durable."""


class TaskSupervisor:
    """Rung once; whoever runs the worker waits for it and ends the process with the reason."""

    def __init__(self) -> None:
        self.failure: str | None = None
        self._cause: BaseException | None = None
        self._failed = asyncio.Event()

    def fail(self, where: str, error: BaseException) -> None:
        """Later ones only leave a log line: the first is the cause, the rest mostly follow from it."""
        log.critical("%s: %s: %s", where, type(error).__name__, error, exc_info=error)
        if self.failure is None:
            self.failure, self._cause = f"{where}: {type(error).__name__}: {error}", error
            self._failed.set()

    async def wait(self) -> NoReturn:
        """Returns never: raises WorkerFailed when rung."""
        await self._failed.wait()
        raise WorkerFailed(self.failure) from self._cause

    @contextmanager
    def guard(self, where: str) -> Iterator[None]:
        """Any exception in the block rings, and goes on as it was. (Faust acks or restarts an agent that raises.)"""
        try:
            yield
        except Exception as error:
            self.fail(where, error)
            raise

    def spawn(self, work: Coroutine[Any, Any, None], where: str) -> asyncio.Task[None]:
        """Runs `work` as a task whose failure rings."""
        task = asyncio.create_task(work, name=where)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(task.get_name(), error)
