"""Drops the indexes of workspaces that nobody reads any more. The rows stay, and the next request builds the indexes
again, with about 5 µs of CPU per row.

A workspace keeps its indexes while it has a stream, a WebSocket or a long poll, and for ATTN_INDEX_IDLE_SECONDS after
its last request. Positions, cursors and retained batches do not depend on indexes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from api import metrics
from api.edge.index_builder import run_cooperatively
from api.edge.services import Edge

__all__ = ["IndexEviction"]

_SWEEPS = 4  # sweeps per idle time: indexes are dropped at the latest after 1.25 times the idle time
_MAX_INTERVAL = 60.0  # seconds between two sweeps


class IndexEviction:
    """Sweeps the workspaces of one edge. `clock` returns monotonic seconds, like the clock of `Edge.workspace`."""

    def __init__(self, edge: Edge, clock: Callable[[], float] = time.monotonic) -> None:
        self._edge, self._clock = edge, clock
        self._idle = edge.settings.index_idle_seconds

    async def run(self) -> None:
        """Sweeps until cancelled."""
        while True:
            await asyncio.sleep(min(self._idle / _SWEEPS, _MAX_INTERVAL))
            await self.sweep()

    async def sweep(self) -> None:
        """Drops the indexes of all workspaces that are idle now. Yields to the event loop after each time slice."""
        edge = self._edge
        # A stream or a long poll that opens during the sweep has requested its workspace after `read_before`.
        read_before = self._clock() - self._idle
        in_use = edge.connections.workspaces() | edge.long_polls.workspaces()
        await run_cooperatively(map(_count, edge.replica.drop_indexes(read_before, in_use)))


def _count(dropped: bool) -> None:
    if dropped:
        metrics.INDEXES_DROPPED.inc()
