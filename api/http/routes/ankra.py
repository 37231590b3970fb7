"""Ankra's routes: one person's inbox and feed, under /org/me (CONTRACT §4, seeds A1-A18)."""

from __future__ import annotations

from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Query
from fastapi.responses import Response

from api.contract import responses, serializers
from api.contract.errors import ApiError
from api.contract.requests import Dismissal, Preferences
from api.contract.responses import responses_of
from api.http.command_dispatch import command_fields, execute
from api.http.dependencies import (
    CurrentCaller,
    CurrentEdge,
    Cursor,
    IdempotencyKey,
    Revision,
    StreamingCaller,
    WritingCaller,
    json_response,
)
from api.live.event_stream import DOCUMENTED, EventStream
from api.readmodel.pages import sort_key_of_token
from schemas.log import Dismiss, Restore, SetPreferences, Widget

__all__ = ["router"]

router = APIRouter(prefix="/org/me", tags=["personal"])

DEFAULT_LIMIT, MAX_LIMIT = 100, 500
FEED_LIMIT, FEED_MAX_LIMIT = 500, 1000

Limit = Annotated[int, Query(ge=1, description=f"Items a page; beyond {MAX_LIMIT} it is {MAX_LIMIT}.")]
Next = Annotated[str | None, Query(alias="next", description="The page after the one that named it.", max_length=2000)]
Filter = Annotated[str, Query(max_length=512)]
Id = Annotated[str, Path(max_length=2000)]


@router.get("/inbox", responses=responses_of(responses.Inbox))
async def get_inbox(
    edge: CurrentEdge, caller: CurrentCaller, limit: Limit = DEFAULT_LIMIT, after: Next = None, kind: Filter = "",
    cluster: Filter = "", dismissed: bool = False,
) -> Response:
    """My inbox, the most pressing first; with `dismissed`, what I put away."""
    filters = {"kind": kind, "cluster": cluster, "both": kind and cluster}
    space = await edge.workspace(caller.reader, *(name for name, value in filters.items() if value))
    try:
        start = sort_key_of_token(after) if after is not None else None
    except ValueError as error:
        raise ApiError(400, str(error)) from None
    page = edge.pages.dismissed_page if dismissed else edge.pages.inbox_page
    cursor = edge.replica.cursor(caller.ws)
    return json_response(page(space, caller.reader, cursor, min(limit, MAX_LIMIT), start, kind, cluster))


@router.get("/inbox/{item:id}", responses=responses_of(responses.RankedItem, 404))
async def get_inbox_item(edge: CurrentEdge, caller: CurrentCaller, item: Id) -> Response:
    """An item as the list shows it, in the list or not: put away, resolved, or a run that an incident stands for."""
    item_json = edge.pages.item_by_id(await edge.workspace(caller.reader), caller.reader, item)
    if item_json is None:
        raise ApiError(404, "not found")
    return json_response(item_json)


@router.post("/inbox/{item:id}/dismiss", responses=responses_of(responses.Dismissed, 404, 412, writes=True))
async def dismiss_item(
    edge: CurrentEdge, caller: WritingCaller, key: IdempotencyKey, revision: Revision, item: Id,
    body: Dismissal | None = None,
) -> Response:
    """Puts an item away, for me alone; until a time, if one is given."""
    until = body.dismissed_until if body is not None else None
    if until is not None and until <= edge.command_log.now():
        raise ApiError(400, "dismissed_until must be in the future")
    command = Dismiss(**command_fields(edge, caller, key), item=item, until=until, if_rev=revision)
    return await execute(edge, caller, command, lambda row: serializers.ankra_item(row, False))


@router.delete("/inbox/{item:id}/dismiss", responses=responses_of(responses.Dismissed, 404, writes=True))
async def restore_item(edge: CurrentEdge, caller: WritingCaller, key: IdempotencyKey, item: Id) -> Response:
    """Takes an item back that I put away."""
    return await execute(edge, caller, Restore(**command_fields(edge, caller, key), item=item))


@router.get("/feed", response_class=Response, responses=DOCUMENTED)
async def stream_feed(
    edge: CurrentEdge, caller: StreamingCaller, cursor: Cursor,
    limit: Annotated[
        int, Query(ge=1, description=f"The window; beyond {FEED_MAX_LIMIT} it is {FEED_MAX_LIMIT}.")] = FEED_LIMIT,
) -> Response:
    """The live feed: a snapshot, then every change; after `Last-Event-ID`, exactly what was missed."""
    await edge.workspace(caller.reader)
    edge.connections.reserve(caller.ws, caller.user)
    return EventStream(
        edge.connections, caller.ws, caller.user, caller.expires - edge.clock(),
        lambda outlet: edge.feed_hub.open(caller.reader, min(limit, FEED_MAX_LIMIT), cursor, outlet))


@router.get("/recent-drafts", responses=responses_of(responses.Drafts))
async def get_recent_drafts(edge: CurrentEdge, caller: CurrentCaller) -> Response:
    """Drafts in progress that I own or edited, the last touched first."""
    return json_response(orjson.dumps({"drafts": edge.pages.drafts(await edge.workspace(caller.reader), caller.user)}))


@router.get("/preferences", responses=responses_of(responses.UserPreferences))
async def get_preferences(edge: CurrentEdge, caller: CurrentCaller) -> Response:
    """My pinned clusters and my widgets, in their order."""
    return json_response(orjson.dumps(edge.pages.preferences(await edge.workspace(caller.reader), caller.user)))


@router.patch("/preferences", responses=responses_of(responses.UserPreferences, writes=True))
async def update_preferences(
    edge: CurrentEdge, caller: WritingCaller, key: IdempotencyKey, body: Preferences
) -> Response:
    """Replaces the keys that are named."""
    widgets = None if body.widgets is None else [Widget(widget.id, widget.visible) for widget in body.widgets]
    return await execute(edge, caller, SetPreferences(
        **command_fields(edge, caller, key), pinned_clusters=body.pinned_clusters, widgets=widgets))
