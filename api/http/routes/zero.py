"""Routes /inbox and the event streams of cases (CONTRACT §4, seeds Z1-Z10)."""

from __future__ import annotations

from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Query
from fastapi.responses import Response

from api.contract import serializers
from api.contract.errors import ApiError
from api.contract.responses.base import responses_of
from api.contract.responses.inbox import ZeroCount, ZeroInbox
from api.edge.services import Edge
from api.http.auth.tokens import Caller
from api.http.dependencies import CurrentCaller, CurrentEdge, Cursor, StreamingCaller, json_response, watch_of
from api.live.event_stream import DOCUMENTED, EventStream
from api.readmodel import listing
from streams.core.domain.rank import ID_OFFSET

__all__ = ["router"]

router = APIRouter(tags=["cases"])

MAX_LIMIT = 500


@router.get("/inbox", responses=responses_of(ZeroInbox))
async def get_inbox(
    edge: CurrentEdge, caller: CurrentCaller,
    limit: Annotated[int, Query(ge=1, description="Items per response; larger values count as 500.")] = MAX_LIMIT,
) -> Response:
    """Returns the open items of the caller, highest rank first. `count` is the number of all open items, not only of
    the returned ones."""
    workspace = await edge.workspace(caller.reader)
    keys = listing.ranked(workspace, caller.reader, workspace.pins(caller.user))
    rows = listing.item_rows(workspace, (key[ID_OFFSET:] for key in keys), min(limit, MAX_LIMIT))
    items = [serializers.zero_item(row) for row in rows]
    return json_response(orjson.dumps({"items": items, "count": workspace.counts(caller.reader).total}))


@router.get("/inbox/count", responses=responses_of(ZeroCount))
async def count_unread(edge: CurrentEdge, caller: CurrentCaller) -> Response:
    """Returns the number of unread items of the caller."""
    return json_response(orjson.dumps({"count": (await edge.workspace(caller.reader)).counts(caller.reader).unread}))


@router.get("/events/stream", response_class=Response, responses=DOCUMENTED)
async def stream_events(edge: CurrentEdge, caller: StreamingCaller, cursor: Cursor) -> Response:
    """Streams the events of all cases of the workspace: state changes, session transitions, tasks, proofs."""
    await edge.recent_case_events()
    await edge.workspace(caller.reader)
    return _event_stream(edge, caller, None, cursor)


@router.get("/cases/{case:id}/events", response_class=Response, responses=DOCUMENTED)
async def stream_case_events(
    edge: CurrentEdge, caller: StreamingCaller, cursor: Cursor, case: Annotated[str, Path(max_length=2000)]
) -> Response:
    """Streams the events of one case: state changes, session transitions, tasks, proofs."""
    events = await edge.recent_case_events()
    workspace = await edge.workspace(caller.reader, "case")
    if not workspace.has_case(caller.reader, case) and not events.has_case(caller.reader, case):
        raise ApiError(404, "not found")
    return _event_stream(edge, caller, case, cursor)


def _event_stream(edge: Edge, caller: Caller, case: str | None, cursor: int | None) -> EventStream:
    edge.connections.reserve(caller.workspace_id, caller.user)
    return EventStream(
        edge.connections, caller.workspace_id, caller.user, caller.expires - edge.clock(),
        lambda sink: edge.case_events.open(caller.reader, case, cursor, sink), watch_of(edge, caller))
