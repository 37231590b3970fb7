"""Zero's routes: inbox, unread count, and what happens to cases, live (CONTRACT §4, seeds Z1-Z10)."""

from __future__ import annotations

from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Query
from fastapi.responses import Response

from api.contract import responses, serializers
from api.contract.errors import ApiError as Problem
from api.contract.responses import answers
from api.edge.services import Edge
from api.http.auth.tokens import Caller
from api.http.dependencies import Asking, Cursor, EdgeOf, Listening, json_of
from api.live.event_stream import DOCUMENTED, EventStream
from api.readmodel import listing
from streams.core.domain.rank import ID

__all__ = ["router"]

router = APIRouter(tags=["cases"])

MOST = 500


@router.get("/inbox", responses=answers(responses.ZeroInbox))
async def inbox(
    edge: EdgeOf, caller: Asking, limit: Annotated[int, Query(ge=1, description="Beyond 500 it is 500.")] = MOST
) -> Response:
    """What waits for me, the most pressing first; `count` is all of it."""
    space = await edge.space(caller.reader)
    keys = listing.ranked(space, caller.reader, space.pins(caller.user))
    items = [serializers.zero(row) for row in listing.rows(space, (key[ID:] for key in keys), min(limit, MOST))]
    return json_of(orjson.dumps({"items": items, "count": space.counts(caller.reader).total}))


@router.get("/inbox/count", responses=answers(responses.ZeroCount))
async def count(edge: EdgeOf, caller: Asking) -> Response:
    """How many of my items are unread."""
    return json_of(orjson.dumps({"count": (await edge.space(caller.reader)).counts(caller.reader).unread}))


@router.get("/events/stream", response_class=Response, responses=DOCUMENTED)
async def stream(edge: EdgeOf, caller: Listening, cursor: Cursor) -> Response:
    """State changes, session transitions and proof events of the workspace's cases, as they happen."""
    await edge.space(caller.reader)
    return _stream(edge, caller, None, cursor)


@router.get("/cases/{case:id}/events", response_class=Response, responses=DOCUMENTED)
async def case_events(
    edge: EdgeOf, caller: Listening, cursor: Cursor, case: Annotated[str, Path(max_length=2000)]
) -> Response:
    """The same, of one case."""
    space = await edge.space(caller.reader, "case")
    if not space.knows(caller.reader, case) and not edge.events.knows(caller.reader, case):
        raise Problem(404, "not found")
    return _stream(edge, caller, case, cursor)


def _stream(edge: Edge, caller: Caller, case: str | None, cursor: int | None) -> EventStream:
    edge.connections.take(caller.ws, caller.user)
    return EventStream(
        edge.connections, caller.ws, caller.user, caller.expires - edge.clock(),
        lambda outlet: edge.events.open(caller.reader, case, cursor, outlet))
