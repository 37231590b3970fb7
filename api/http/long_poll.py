"""Conditional requests that may wait: `If-None-Match` (RFC 9110) and `Prefer: wait=SECONDS` (RFC 7240).

A client sends the entity tag of the answer that it has. Without `Prefer` the edge answers at once, with 304 if the
answer is still the same. With it, the edge holds the request until the answer differs, or answers 304 after the wait.
A request that waits holds no slot of the read limiter.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, NamedTuple

from fastapi import Depends, Header, Request
from fastapi.responses import Response

from api.contract.errors import NO_STORE, ApiError
from api.edge.services import Edge
from api.http.auth.tokens import Caller
from api.http.dependencies import acquire_read, check_access, closing_watch, json_response, release_read
from api.live.connections import RETRY_AFTER, TooManyConnections
from api.live.long_polls import MAX_WAIT_SECONDS

__all__ = ["NOT_MODIFIED", "Condition", "Tagged", "respond_when_changed"]

NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "the answer is the one that `If-None-Match` names; with `Prefer: wait`, after that time"}}
_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?=$|[,;])", re.IGNORECASE)


class Tagged(NamedTuple):
    """An answer: its entity tag, and the function that renders its JSON body."""

    etag: str
    render: Callable[[], bytes]

    @classmethod
    def of(cls, body: bytes) -> Tagged:
        """Returns an answer with this body and the tag of the whole body."""
        return cls(f'"{hashlib.sha256(body).hexdigest()[:32]}"', lambda: body)


class RequestCondition(NamedTuple):
    """What the client sent. `tags`: entity tags of `If-None-Match`. `seconds`: how long to wait; 0: not at all."""

    tags: frozenset[str]
    seconds: float


def _condition(
    if_none_match: Annotated[str | None, Header(description="ETag of the answer that the client has.")] = None,
    prefer: Annotated[str | None, Header(description=(
        "`wait=25`: wait up to so many seconds until the answer differs from that of `If-None-Match`; "
        f"at most {MAX_WAIT_SECONDS:g}."))] = None,
) -> RequestCondition:
    tags = frozenset(tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(","))
    match = _WAIT.search(prefer or "")
    return RequestCondition(tags, min(float(match[1]), MAX_WAIT_SECONDS) if match is not None else 0.0)


Condition = Annotated[RequestCondition, Depends(_condition)]


async def respond_when_changed(
    request: Request, edge: Edge, caller: Caller, condition: RequestCondition, answer: Callable[[], Awaitable[Tagged]],
) -> Response:
    """Returns the answer with its ETag, or 304 if the client has it and it did not change within the wait.

    Raises ApiError 429 if the caller has too many waiting requests, and 401 if its key or session ended
    meanwhile.
    """
    current = await answer()
    if current.etag in condition.tags and condition.seconds:
        current = await _wait(request, edge, caller, condition, answer)
    headers = NO_STORE | {"etag": current.etag}
    if current.etag in condition.tags:
        return Response(status_code=304, headers=headers)
    response = json_response(current.render())
    response.headers["etag"] = current.etag
    return response


async def _wait(
    request: Request, edge: Edge, caller: Caller, condition: RequestCondition, answer: Callable[[], Awaitable[Tagged]],
) -> Tagged:
    """Returns the first answer that differs, or the last one when the wait is over."""
    deadline = asyncio.get_running_loop().time() + condition.seconds
    try:
        with (edge.long_polls.waiting(caller.workspace_id, caller.user) as changed,
              closing_watch(edge, caller, changed.set)):
            release_read(request)
            current = await answer()  # a change before the block began has set no event
            while current.etag in condition.tags and await _is_set(request, changed, deadline):
                changed.clear()
                check_access(edge, caller)
                current = await answer()
                if edge.long_polls.closed:
                    break
    except TooManyConnections as error:
        raise ApiError(429, f"too many waiting requests: at most {error.limit} at once",
                       {"retry-after": str(RETRY_AFTER)}, limit=error.limit) from None
    await acquire_read(request, caller)
    return current


async def _is_set(request: Request, changed: asyncio.Event, deadline: float) -> bool:
    """Waits for the event. Returns False at the deadline, or when the client has disconnected."""
    waits = [asyncio.ensure_future(changed.wait()), asyncio.ensure_future(_disconnected(request))]
    try:
        await asyncio.wait(waits, timeout=deadline - asyncio.get_running_loop().time(),
                           return_when=asyncio.FIRST_COMPLETED)
        return waits[0].done()
    finally:
        for wait in waits:
            wait.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass

