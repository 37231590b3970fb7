"""Reports outages of ClickHouse and Kafka: state for readiness, a metric, and at most one log line in 30 s."""

from __future__ import annotations

import logging
import time

from streams.history import metrics

__all__ = ["OutageLog"]

log = logging.getLogger("attn.history")

_LOG_INTERVAL = 30.0  # seconds between two lines of one outage


class OutageLog:
    """Whether the consumer can write to ClickHouse. `problem` is the reason of the current outage, None if there is
    none."""

    def __init__(self) -> None:
        self.problem: str | None = None
        self._logged_at = 0.0  # of the monotonic clock; 0.0: this outage has no line yet

    def report(self, problem: str) -> None:
        """Records a failed attempt."""
        self.problem = problem
        metrics.UP.set(0)
        if time.monotonic() - self._logged_at > _LOG_INTERVAL:
            self._logged_at = time.monotonic()
            log.warning("waiting: %s", problem)

    def recover(self) -> None:
        """Records a successful attempt, which ends the outage."""
        if self.problem is not None and self._logged_at:
            log.info("recovered: the history writes to ClickHouse again")
        self.problem, self._logged_at = None, 0.0
        metrics.UP.set(1)
