"""Bounds the connections whose caller is not known: idle ones, unfinished requests, sockets before sign-in.

At most `per_address` of one peer and `most` in all; one more closes the oldest of that address (of all). So a flood
evicts its own connections, and a new request, a health check among them, still gets in. A connection leaves while a
request with a valid token is in progress, and for good when it becomes a stream or a signed-in socket: those have
limits per user. Behind a proxy the address is the proxy's, so the limit by address is generous.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from api import metrics

__all__ = ["AUTHENTICATED", "UnauthenticatedConnections", "mark_authenticated"]

# The ASGI extension that a route calls once it knows who asks.
AUTHENTICATED = "attn.known"
# Descriptors are what a flood runs out of first: strangers take at most this share of what the process may open.
_SHARE = 0.5
# An idle connection holds about 10 KB. Thousands of streams that come back at once are strangers for a moment each.
_LIMIT, _PER_ADDRESS = 16_384, 1024
# A connection younger than this is not evicted for its address alone: what it sent may not have been read yet.
_GRACE_SECONDS = 5.0


def mark_authenticated(scope: Mapping[str, Any]) -> None:
    """The request or socket of this ASGI scope has a caller with a valid token."""
    callback = (scope.get("extensions") or {}).get(AUTHENTICATED)
    if callback is not None:
        callback()


class UnauthenticatedConnections:
    """`clock`: seconds that only go forward."""

    def __init__(
        self, limit: int = _LIMIT, per_address: int = _PER_ADDRESS, grace: float = _GRACE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = min(limit, int(_max_descriptors() * _SHARE))
        self._per_address, self._grace, self._clock = per_address, grace, clock
        self._connections: OrderedDict[asyncio.BaseTransport, tuple[str, float]] = OrderedDict()  # oldest first
        self._by_address: dict[str, OrderedDict[asyncio.BaseTransport, None]] = {}

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, transport: asyncio.Transport, client: tuple[str, int] | None) -> None:
        """The newest stranger. It may cost the oldest its connection."""
        self.remove(transport)
        address = client[0] if client else ""
        own = self._by_address.setdefault(address, OrderedDict())
        own[transport] = None
        now = self._clock()
        self._connections[transport] = address, now
        oldest: asyncio.BaseTransport = next(iter(own))
        if len(own) > self._per_address and self._connections[oldest][1] <= now - self._grace:
            self._evict(oldest)
        elif len(self._connections) > self._limit:
            self._evict(next(iter(self._connections)))

    def remove(self, transport: asyncio.BaseTransport) -> None:
        """The connection is gone, or its caller is known. Nothing happens if it was none of these."""
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


def _max_descriptors() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft > 0 else 1 << 20  # RLIM_INFINITY is -1
