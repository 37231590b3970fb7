"""Crewship's routes, to the letter of its page (seeds C1-C30)."""

from __future__ import annotations

from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Query, WebSocket
from fastapi.responses import Response

from api.contract import responses, serializers
from api.contract.errors import ApiError
from api.contract.requests import Bulk, StateChange
from api.contract.responses import responses_of
from api.http.command_dispatch import command_fields, execute
from api.http.dependencies import CurrentCaller, CurrentEdge, IdempotencyKey, Revision, WritingCaller, json_response
from api.http.routes.websocket import serve_websocket
from api.readmodel import listing
from schemas.log import SetState

__all__ = ["router", "websocket_router"]

websocket_router = APIRouter()
router = APIRouter(prefix="/api/v1/inbox", tags=["inbox"])

DEFAULT_LIMIT, MAX_LIMIT = 100, 500
IDS_PER_WRITE = 10  # of a bulk, that cost as much as a write: 500 ids take half a bucket of the default burst
STATES = {
    "unread": ("unread",), "read": ("read",), "resolved": ("resolved",), "active": ("unread", "read"),
    "all": ("unread", "read", "resolved"),
}

Id = Annotated[str, Path(max_length=2000)]


@router.get("", responses=responses_of(responses.InboxItems))
async def list_items(
    edge: CurrentEdge, caller: CurrentCaller, state: str = "all", kind: Annotated[str, Query(max_length=512)] = "",
    limit: Annotated[int, Query(ge=1, description=f"Beyond {MAX_LIMIT} it is {MAX_LIMIT}.")] = DEFAULT_LIMIT,
) -> Response:
    """Items I may see, those that opened last first."""
    if state not in STATES:
        raise ApiError(400, "invalid state")
    space = await edge.workspace(caller.reader, "new")
    ids = listing.newest(space, caller.reader, STATES[state], kind)
    items = [serializers.crewship_item(row) for row in listing.item_rows(space, ids, min(limit, MAX_LIMIT))]
    body = {"rows": [orjson.Fragment(row) for row in items], "count": len(items),
            "unread_count": space.unread_count(caller.reader)}
    return json_response(orjson.dumps(body))


@router.get("/count", responses=responses_of(responses.UnreadCount))
async def count_unread(edge: CurrentEdge, caller: CurrentCaller) -> Response:
    """For the badge on the bell."""
    workspace = await edge.workspace(caller.reader)
    return json_response(orjson.dumps({"unread_count": workspace.unread_count(caller.reader)}))


@router.post("/bulk", responses=responses_of(responses.BulkResult, writes=True))
async def change_items(edge: CurrentEdge, caller: WritingCaller, key: IdempotencyKey, body: Bulk) -> Response:
    """One change of state for many items; what its source must decide is left, and told."""
    if len(body.ids) > edge.settings.max_bulk:
        raise ApiError(400, f"too many ids (max {edge.settings.max_bulk})")
    edge.rate_limiter.charge(caller.ws, caller.user, len(body.ids) // IDS_PER_WRITE)
    return await execute(edge, caller, SetState(
        **command_fields(edge, caller, key), items=tuple(body.ids), state=body.state, bulk=True,
        resolved_action=body.resolved_action))


@router.patch("/{item:id}", responses=responses_of(responses.StateChanged, 404, 409, 412, writes=True))
async def change_item(
    edge: CurrentEdge, caller: WritingCaller, key: IdempotencyKey, revision: Revision, body: StateChange, item: Id
) -> Response:
    """Flips an item's state, for all who see it."""
    return await execute(edge, caller, SetState(
        **command_fields(edge, caller, key), items=(item,), state=body.state, resolved_action=body.resolved_action,
        if_rev=revision), serializers.crewship_item)


@websocket_router.websocket("/api/v1/ws")
async def open_websocket(socket: WebSocket) -> None:
    """Tells when to ask again (api.http.routes.websocket)."""
    await serve_websocket(socket, socket.app.state.edge, socket.app.state.auth)


@router.get("/{item:id}", responses=responses_of(responses.InboxItem, 404))
async def get_item(edge: CurrentEdge, caller: CurrentCaller, item: Id) -> Response:
    """One item, resolved or grouped into an incident too."""
    row = (await edge.workspace(caller.reader)).visible_item(caller.reader, item)
    if row is None:
        raise ApiError(404, "not found")
    return json_response(serializers.crewship_item(row))
