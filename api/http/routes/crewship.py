"""Routes under /api/v1/inbox: list, count, state changes, bulk (seeds C1-C30), and the WebSocket."""

from __future__ import annotations

from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Query, Request, WebSocket
from fastapi.responses import Response

from api.contract.errors import ApiError
from api.contract.requests import Bulk, StateChange
from api.contract.responses.base import responses_of
from api.contract.responses.inbox import BulkResult, StateChanged
from api.contract.responses.items import InboxItem, InboxItems, UnreadCount
from api.http.command_dispatch import command_fields, execute
from api.http.dependencies import (
    CurrentCaller,
    CurrentEdge,
    IdempotencyKey,
    KeyOrCaller,
    Revision,
    WritingCaller,
    json_response,
)
from api.http.long_poll import NOT_MODIFIED, Condition, Tagged, respond_when_changed
from api.http.routes.websocket import serve_websocket
from api.readmodel.access.source_keys import item_of_key
from api.readmodel.filtered_pages import ItemFilter, item_page
from schemas.log import SetState

__all__ = ["router", "websocket_router"]

websocket_router = APIRouter()
router = APIRouter(prefix="/api/v1/inbox", tags=["inbox"])

DEFAULT_LIMIT, MAX_LIMIT = 100, 500
IDS_PER_WRITE = 10  # ids of a bulk request that cost one more token: 500 ids take half of the default burst
STATES = {
    "unread": ("unread",), "read": ("read",), "decided": ("decided",), "resolved": ("resolved",),
    "active": ("unread", "read"), "all": ("unread", "read", "decided", "resolved"),
}

Id = Annotated[str, Path(max_length=2000)]


@router.get("", responses=responses_of(InboxItems) | NOT_MODIFIED)
async def list_items(
    request: Request, edge: CurrentEdge, caller: KeyOrCaller, condition: Condition, state: str = "all",
    kind: Annotated[str, Query(max_length=512)] = "",
    source: Annotated[str, Query(
        description="Only items that ask, of this CloudEvents source and those below it.", max_length=2000)] = "",
    source_id: Annotated[str, Query(description="Only items with this source id.", max_length=2000)] = "",
    limit: Annotated[
        int, Query(ge=1, description=f"Items per response; larger values count as {MAX_LIMIT}.")] = DEFAULT_LIMIT,
) -> Response:
    """Returns the items that the caller may see, most recently opened first. With the key of a source: the items of
    which its source asked the question."""
    if state not in STATES:
        raise ApiError(400, "invalid state")
    wanted = ItemFilter(STATES[state], kind, source, source_id)

    async def page() -> Tagged:
        workspace = await edge.workspace(caller.reader, "newest" if caller.key is None else "asking")
        rows, unread = item_page(workspace, caller.reader, min(limit, MAX_LIMIT), wanted, caller.key)
        items = [edge.pages.crewship_json(row) for row in rows]
        body = orjson.dumps({"rows": [orjson.Fragment(item) for item in items], "count": len(items),
                             "unread_count": unread})
        return Tagged.of(body)

    return await respond_when_changed(request, edge, caller, condition, page)


@router.get("/count", responses=responses_of(UnreadCount))
async def count_unread(edge: CurrentEdge, caller: CurrentCaller) -> Response:
    """Returns the number of unread items that the caller may see."""
    workspace = await edge.workspace(caller.reader)
    return json_response(orjson.dumps({"unread_count": workspace.unread_count(caller.reader)}))


@router.post("/bulk", responses=responses_of(BulkResult, writes=True))
async def change_items(edge: CurrentEdge, caller: WritingCaller, key: IdempotencyKey, body: Bulk) -> Response:
    """Sets the state of many items. An item that only its source may resolve is skipped and listed in `skipped_ids`."""
    if len(body.ids) > edge.settings.max_bulk:
        raise ApiError(400, f"too many ids (max {edge.settings.max_bulk})")
    edge.rate_limiter.charge(caller.workspace_id, caller.user, len(body.ids) // IDS_PER_WRITE)
    return await execute(edge, caller, SetState(
        **command_fields(edge, caller, key), items=tuple(body.ids), state=body.state, bulk=True,
        resolved_action=body.resolved_action))


@router.patch("/{item:id}", responses=responses_of(StateChanged, 404, 409, 412, writes=True))
async def change_item(
    edge: CurrentEdge, caller: WritingCaller, key: IdempotencyKey, revision: Revision, body: StateChange, item: Id
) -> Response:
    """Sets the state of an item for all users who may see it."""
    return await execute(edge, caller, SetState(
        **command_fields(edge, caller, key), items=(item,), state=body.state, resolved_action=body.resolved_action,
        if_rev=revision), edge.pages.crewship_json)


@websocket_router.websocket("/api/v1/ws")
async def open_websocket(socket: WebSocket) -> None:
    """WebSocket that notifies of changed items (api.http.routes.websocket)."""
    await serve_websocket(socket, socket.app.state.edge, socket.app.state.auth)


@router.get("/{item:id}", responses=responses_of(InboxItem, 404))
async def get_item(edge: CurrentEdge, caller: KeyOrCaller, item: Id) -> Response:
    """Returns one item. It may be resolved, or grouped into an incident. With the key of a source: an item of which its
    source asked the question."""
    workspace = await edge.workspace(caller.reader)
    row = (workspace.visible_item(caller.reader, item) if caller.key is None
           else item_of_key(workspace, caller.key, item))
    if row is None:
        raise ApiError(404, "not found")
    return json_response(edge.pages.crewship_json(row))
