"""Limits the connections without an authenticated caller: idle ones, incomplete requests, WebSockets before sign-in.

At most `per_address` connections of one address and `limit` in total, and fewer if streams leave fewer file descriptors
(`api.open_files`). One more closes the oldest connection of that address, or of all. A flood therefore evicts its own
connections, and a new request, such as a health check, is still accepted. A connection does not count while a request
with a valid token is in progress, nor while a complete request waits for its response: the edge answers each one at
once. An event stream and an authenticated WebSocket do not count: they have limits per user. Behind a proxy all
connections have the address of the proxy, so the limit per address is generous.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from api import metrics
from api.open_files import SPARE, file_limit

__all__ = ["AUTHENTICATED", "UnauthenticatedConnections", "mark_authenticated"]

# ASGI extension: a function that is called when the caller of the request is authenticated.
AUTHENTICATED = "attn.known"
# A flood exhausts file descriptors first: unauthenticated connections take at most this share of the process limit.
_SHARE = 0.5
# Limits in total and per address. An idle connection holds about 10 KB. When thousands of streams reconnect at once,
# each is unauthenticated for a moment.
_LIMIT, _PER_ADDRESS = 16_384, 1024
# Seconds for which the limit per address does not evict a new connection: its request may not have been read yet.
_GRACE_SECONDS = 5.0


def mark_authenticated(scope: Mapping[str, Any]) -> None:
    """Marks the connection of this ASGI scope as authenticated: its caller has a valid token."""
    callback = (scope.get("extensions") or {}).get(AUTHENTICATED)
    if callback is not None:
        callback()


class UnauthenticatedConnections:
    """Registry of the unauthenticated connections of one server; evicts the oldest ones. `clock` returns monotonic
    seconds."""

    def __init__(
        self, limit: int = _LIMIT, per_address: int = _PER_ADDRESS, grace: float = _GRACE_SECONDS,
        clock: Callable[[], float] = time.monotonic, count_open: Callable[[], int] = lambda: 0,
    ) -> None:
        """`count_open` returns the number of all connections of the server, streams and WebSockets included."""
        self._limit = min(limit, int(file_limit() * _SHARE))
        self._open_limit, self._count_open = file_limit() - SPARE, count_open
        self._per_address, self._grace, self._clock = per_address, grace, clock
        self._connections: OrderedDict[asyncio.BaseTransport, tuple[str, float]] = OrderedDict()  # oldest first
        self._by_address: dict[str, OrderedDict[asyncio.BaseTransport, None]] = {}

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, transport: asyncio.Transport, client: tuple[str, int] | None) -> None:
        """Adds a connection as the newest one. Closes the oldest one if a limit is exceeded."""
        self.remove(transport)
        address = client[0] if client else ""
        own = self._by_address.setdefault(address, OrderedDict())
        own[transport] = None
        now = self._clock()
        self._connections[transport] = address, now
        oldest: asyncio.BaseTransport = next(iter(own))
        if len(own) > self._per_address and self._connections[oldest][1] <= now - self._grace:
            self._evict(oldest)
        elif len(self._connections) > self._limit or self._count_open() > self._open_limit:
            self._evict(next(iter(self._connections)))

    def remove(self, transport: asyncio.BaseTransport) -> None:
        """Removes a connection that has ended or whose caller is authenticated. Does nothing if it is not
        registered."""
        entry = self._connections.pop(transport, None)
        if entry is not None:
            own = self._by_address[entry[0]]
            del own[transport]
            if not own:
                del self._by_address[entry[0]]

    def _evict(self, transport: Any) -> None:
        metrics.EVICTED.inc()
        self.remove(transport)
        transport.abort()
