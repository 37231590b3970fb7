"""Tracks whether the broker answers. Without a broker the edge serves the view it has, and readiness reports it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from aiokafka.errors import KafkaError

from api import metrics

__all__ = ["BrokerHealth"]

# Seconds without an answer that are no problem yet: a leader election takes as long.
MAX_SILENCE = 10.0
_REQUEST_TIMEOUT = 5.0  # seconds
_RETRY_DELAY = 0.5  # seconds

_T = TypeVar("_T")
_log = structlog.get_logger("attn.edge")


class BrokerHealth:
    """Records the answers of the broker at `address`. `clock`: monotonic seconds."""

    def __init__(self, address: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._address, self._clock = address, clock
        self._last_success: float | None = None
        self._started = clock()
        self._reported = False
        self._error = ""

    def record_success(self) -> None:
        """Records that the broker has answered."""
        if self._reported:
            _log.info("the broker answers again", seconds=round(self.seconds_without_answer(), 1))
        self._last_success, self._reported, self._error = self._clock(), False, ""
        metrics.BROKER_UP.set(1)

    def record_failure(self, error: BaseException) -> None:
        """Records that a request failed. Logs a warning once, when the failures become a problem."""
        self._error = type(error).__name__
        if not self._reported and (problem := self.problem()):
            self._reported = True
            metrics.BROKER_UP.set(0)
            _log.warning(problem, error=repr(error))

    def seconds_without_answer(self) -> float:
        """Returns the seconds since the last answer, or since the start if there was none."""
        return self._clock() - (self._started if self._last_success is None else self._last_success)

    def problem(self) -> str:
        """Returns the problem as a text for the operator; "" if there is none."""
        silence = self.seconds_without_answer()
        if self._last_success is None:
            return f"no broker answers at {self._address}" if self._error or silence > MAX_SILENCE else ""
        return f"the broker has not answered for {silence:.0f} s" if silence > MAX_SILENCE else ""

    async def retry_until_answered(self, request: Callable[[], Awaitable[_T]]) -> _T:
        """Repeats a request until the broker answers. Each attempt may take 5 s; 0.5 s pass between two attempts."""
        while True:
            try:
                async with asyncio.timeout(_REQUEST_TIMEOUT):
                    result = await request()
            except (KafkaError, TimeoutError) as error:
                self.record_failure(error)
                await asyncio.sleep(_RETRY_DELAY)
            else:
                self.record_success()
                return result
