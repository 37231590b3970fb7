"""Whether the broker answers. An edge without one goes on with what it has, and says so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from aiokafka.errors import KafkaError

from api import metrics

__all__ = ["BrokerHealth"]

# What a leader election takes is no trouble yet: seconds.
MAX_SILENCE = 10.0
_REQUEST_TIMEOUT = 5.0  # seconds a question may take
_RETRY_DELAY = 0.5  # seconds until it is asked again

_T = TypeVar("_T")
_log = structlog.get_logger("attn.edge")


class BrokerHealth:
    """`clock`: seconds that only go forward."""

    def __init__(self, address: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._address, self._clock = address, clock
        self._last_success: float | None = None
        self._started = clock()
        self._reported = False
        self._error = ""

    def record_success(self) -> None:
        """It answered just now."""
        if self._reported:
            _log.info("the broker answers again", seconds=round(self.seconds_without_answer(), 1))
        self._last_success, self._reported, self._error = self._clock(), False, ""
        metrics.BROKER_UP.set(1)

    def record_failure(self, error: BaseException) -> None:
        """It was asked and did not answer, or not what was asked."""
        self._error = type(error).__name__
        if not self._reported and (trouble := self.problem()):
            self._reported = True
            metrics.BROKER_UP.set(0)
            _log.warning(trouble, error=repr(error))

    def seconds_without_answer(self) -> float:
        """Seconds since it last answered, or since this began."""
        return self._clock() - (self._started if self._last_success is None else self._last_success)

    def problem(self) -> str:
        """What is wrong, for the operator; "" if nothing is."""
        silence = self.seconds_without_answer()
        if self._last_success is None:
            return f"no broker answers at {self._address}" if self._error or silence > MAX_SILENCE else ""
        return f"the broker has not answered for {silence:.0f} s" if silence > MAX_SILENCE else ""

    async def retry_until_answered(self, question: Callable[[], Awaitable[_T]]) -> _T:
        """The answer, however long it takes: asked again and again."""
        while True:
            try:
                async with asyncio.timeout(_REQUEST_TIMEOUT):
                    found = await question()
            except (KafkaError, TimeoutError) as error:
                self.record_failure(error)
                await asyncio.sleep(_RETRY_DELAY)
            else:
                self.record_success()
                return found
