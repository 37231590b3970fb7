"""Admits requests with events: the rate of their sender, and how many may be in progress."""

from __future__ import annotations

from fastapi import Request

from api import metrics
from api.commands.rate_limiter import TooManyReads
from api.contract.errors import ApiError
from api.edge.services import Edge
from api.http.middleware import RELEASE_CALLBACKS

__all__ = ["admit", "charge"]

_BYTES_PER_EVENT = 4096  # each such part of a body costs as much as an event


async def admit(request: Request, edge: Edge, ws: str, sender: str, busy: int = 429) -> None:
    """Returns once the rate of a sender and its requests in progress allow one more.

    Raises ApiError with the status `busy`, and `Retry-After`. Some senders retry 503 and not 429.
    """
    limiter = edge.event_limiter
    if wait := limiter.acquire(ws, sender):
        metrics.THROTTLED.inc()
        raise ApiError(busy, f"too many events: at most {limiter.rate:g} a second; {_BYTES_PER_EVENT} bytes of a body "
                       "count as one more", {"retry-after": str(wait)}, limit=limiter.burst)
    requests = edge.event_requests
    try:
        release = await requests.acquire(ws, sender)
    except TooManyReads:
        metrics.THROTTLED.inc()
        raise ApiError(busy, f"too many requests in progress: at most {requests.at_once} at once",
                       {"retry-after": "1"}, limit=requests.at_once) from None
    request.scope[RELEASE_CALLBACKS].append(release)


def charge(edge: Edge, ws: str, sender: str, events: int, size: int) -> None:
    """Charges a request of several events, or with a large body, to the rate of its sender."""
    cost = max(events, size // _BYTES_PER_EVENT) - 1
    edge.event_limiter.charge(ws, sender, max(0, cost))
