"""A ClickHouse client that fails on demand, and history consumers with short retry delays."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from clickhouse_connect.driver.exceptions import OperationalError

from streams.history import consumer, insert_pipeline
from streams.runtime import backoff


class Faulty:
    """Wraps a client. `fault`: "away" fails all calls; "flaky" fails some inserts, before or after the write."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.fault = ""
        self.random = random.Random(3)
        self.faults = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def close(self) -> None:
        pass  # the test still queries the real client

    def query(self, *args: Any, **kwargs: Any) -> Any:
        self._away()
        return self.real.query(*args, **kwargs)

    def command(self, *args: Any, **kwargs: Any) -> Any:
        self._away()
        return self.real.command(*args, **kwargs)

    def data_insert(self, context: Any) -> Any:
        self._away()
        what = self.random.choice(("", "", "before", "after", "views")) if self.fault == "flaky" else ""
        self.faults += bool(what)
        if what == "before":
            raise OperationalError("connection reset")
        if what == "views":
            return self._without_views(context)
        self.real.data_insert(context)
        if what == "after":
            raise OperationalError("no answer in time")
        return None

    def _without_views(self, context: Any) -> None:
        """Inserts into the table while its materialized view fails: the state after a crash between the two writes."""
        self.real.command("ALTER TABLE attn.activity_hourly ADD CONSTRAINT full CHECK facts < 0")
        try:
            self.real.data_insert(context)
        finally:
            self.real.command("ALTER TABLE attn.activity_hourly DROP CONSTRAINT full")

    def _away(self) -> None:
        if self.fault == "away":
            self.faults += 1
            raise OperationalError("connection refused")


def rows(faulty: Faulty) -> int:
    """Returns the number of rows in the table `activity`."""
    sql = "SELECT ifNull(sum(total_rows), 0) FROM system.tables WHERE database = 'attn' AND name = 'activity'"
    return int(faulty.real.query(sql).result_rows[0][0])


async def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Waits until `condition()` is true. Calls it in a thread."""
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.05)


def impatient(monkeypatch: pytest.MonkeyPatch, stalled: float) -> None:
    """Shortens the retry delays of the history. `stalled`: seconds until it restarts a failing batch."""
    for module in (consumer, insert_pipeline):
        monkeypatch.setattr(module, "Backoff", lambda: backoff.Backoff(0.005, 0.02))
    monkeypatch.setattr(insert_pipeline, "_MAX_RETRY_TIME", stalled)
