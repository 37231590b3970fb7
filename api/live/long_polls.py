"""Requests that wait until a list for sources changes: decisions, and items that ask (`Prefer: wait`, RFC 7240).

A request renders its answer again each time a batch changed a decision of its workspace, or an item that asks. Between
two renderings it costs one future.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from api import metrics
from api.live.connections import TooManyConnections

__all__ = ["MAX_WAIT_SECONDS", "LongPolls"]

MAX_WAIT_SECONDS = 30.0  # below the idle timeouts of common proxies (60 s)
MAX_WAITING = 64  # waiting requests of one caller


class LongPolls:
    """Waiting requests of one edge. `touch` names a workspace that changed; `wake` wakes the requests of those."""

    def __init__(self) -> None:
        self._events: dict[str, set[asyncio.Event]] = {}
        self._callers: Counter[tuple[str, str]] = Counter()
        self._touched: set[str] = set()
        self._closed = False

    def workspaces(self) -> set[str]:
        """Returns the workspaces that have waiting requests."""
        return set(self._events)

    def touch(self, ws: str) -> None:
        """Notes a change. The edge may not have published it yet."""
        if ws in self._events:
            self._touched.add(ws)

    def wake(self) -> None:
        """Wakes the requests of the workspaces that changed since the last call."""
        touched, self._touched = self._touched, set()
        for ws in touched:
            for event in self._events.get(ws, ()):
                event.set()

    def close(self) -> None:
        """Wakes all requests. They answer, and further ones do not wait, because the edge stops."""
        self._closed = True
        self._touched.update(self._events)
        self.wake()

    @property
    def closed(self) -> bool:
        """Whether the edge stops."""
        return self._closed

    @contextmanager
    def waiting(self, ws: str, user: str) -> Iterator[asyncio.Event]:
        """Yields an event that is set at each change, until the block ends.

        Raises TooManyConnections if the caller has `MAX_WAITING` waiting requests.
        """
        if self._callers[ws, user] >= MAX_WAITING:
            metrics.CONNECTIONS_REFUSED.inc()
            raise TooManyConnections(MAX_WAITING)
        event = asyncio.Event()
        if self._closed:
            event.set()
        self._callers[ws, user] += 1
        self._events.setdefault(ws, set()).add(event)
        metrics.LONG_POLLS.inc()
        try:
            yield event
        finally:
            metrics.LONG_POLLS.dec()
            self._callers[ws, user] -= 1
            if not self._callers[ws, user]:
                del self._callers[ws, user]
            events = self._events[ws]
            events.discard(event)
            if not events:
                del self._events[ws]
