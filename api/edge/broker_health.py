"""Whether the broker answers. An edge without one goes on with what it has, and says so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from aiokafka.errors import KafkaError

from api import metrics

__all__ = ["Contact"]

# What a leader election takes is no trouble yet: seconds.
SILENCE = 10.0
_ANSWER = 5.0  # seconds a question may take
_AGAIN = 0.5  # seconds until it is asked again

_T = TypeVar("_T")
_log = structlog.get_logger("attn.edge")


class Contact:
    """`clock`: seconds that only go forward."""

    def __init__(self, address: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._address, self._clock = address, clock
        self._heard: float | None = None
        self._begun = clock()
        self._told = False
        self._error = ""

    def heard(self) -> None:
        """It answered just now."""
        if self._told:
            _log.info("the broker answers again", seconds=round(self.silent(), 1))
        self._heard, self._told, self._error = self._clock(), False, ""
        metrics.BROKER_UP.set(1)

    def unheard(self, error: BaseException) -> None:
        """It was asked and did not answer, or not what was asked."""
        self._error = type(error).__name__
        if not self._told and (trouble := self.trouble()):
            self._told = True
            metrics.BROKER_UP.set(0)
            _log.warning(trouble, error=repr(error))

    def silent(self) -> float:
        """Seconds since it last answered, or since this began."""
        return self._clock() - (self._begun if self._heard is None else self._heard)

    def trouble(self) -> str:
        """What is wrong, for the operator; "" if nothing is."""
        if self._heard is None:
            return f"no broker answers at {self._address}" if self._error or self.silent() > SILENCE else ""
        return f"the broker has not answered for {self.silent():.0f} s" if self.silent() > SILENCE else ""

    async def asked(self, question: Callable[[], Awaitable[_T]]) -> _T:
        """The answer, however long it takes: asked again and again."""
        while True:
            try:
                async with asyncio.timeout(_ANSWER):
                    found = await question()
            except (KafkaError, TimeoutError) as error:
                self.unheard(error)
                await asyncio.sleep(_AGAIN)
            else:
                self.heard()
                return found
