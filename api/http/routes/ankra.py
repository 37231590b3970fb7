"""Routes under /org/me: inbox, feed, dismiss, drafts, preferences of the caller (CONTRACT §4, seeds A1-A18)."""

from __future__ import annotations

from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Query
from fastapi.responses import Response

from api.contract.errors import ApiError
from api.contract.requests import Dismissal, Preferences
from api.contract.responses.base import responses_of
from api.contract.responses.inbox import Dismissed, Drafts, UserPreferences
from api.contract.responses.items import Inbox, RankedItem
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
    watch_of,
)
from api.live.event_stream import DOCUMENTED, EventStream
from api.readmodel.pages import PageRequest, sort_key_of_token
from schemas.log import Dismiss, Restore, SetPreferences, Widget

__all__ = ["router"]

router = APIRouter(prefix="/org/me", tags=["personal"])

DEFAULT_LIMIT, MAX_LIMIT = 100, 500
FEED_LIMIT, FEED_MAX_LIMIT = 500, 1000

Limit = Annotated[int, Query(ge=1, description=f"Items per page; larger values count as {MAX_LIMIT}.")]
Next = Annotated[
    str | None, Query(alias="next", description="Page token from `next` of the previous page.", max_length=2000)]
Filter = Annotated[str, Query(max_length=512)]
Id = Annotated[str, Path(max_length=2000)]


@router.get("/inbox", responses=responses_of(Inbox))
async def get_inbox(
    edge: CurrentEdge, caller: CurrentCaller, limit: Limit = DEFAULT_LIMIT, after: Next = None, kind: Filter = "",
    cluster: Filter = "", dismissed: bool = False,
) -> Response:
    """Returns the open items of the caller, highest rank first; with `dismissed`, the items that the caller
    dismissed."""
    families = {
        "ranked_by_kind": kind, "ranked_by_cluster": cluster, "ranked_by_kind_and_cluster": kind and cluster}
    workspace = await edge.workspace(caller.reader, *(family for family, value in families.items() if value))
    try:
        start = sort_key_of_token(after) if after is not None else None
    except ValueError as error:
        raise ApiError(400, str(error)) from None
    page = edge.pages.dismissed_page if dismissed else edge.pages.inbox_page
    cursor = edge.replica.cursor(caller.workspace_id)
    request = PageRequest(min(limit, MAX_LIMIT), start, kind, cluster)
    return json_response(page(workspace, caller.reader, cursor, request))


@router.get("/inbox/{item:id}", responses=responses_of(RankedItem, 404))
async def get_inbox_item(edge: CurrentEdge, caller: CurrentCaller, item: Id) -> Response:
    """Returns one item in the format of the list. It may be dismissed, resolved, or a run that is grouped into an
    incident."""
    item_json = edge.pages.item_by_id(await edge.workspace(caller.reader), caller.reader, item)
    if item_json is None:
        raise ApiError(404, "not found")
    return json_response(item_json)


@router.post("/inbox/{item:id}/dismiss", responses=responses_of(Dismissed, 404, 412, writes=True))
async def dismiss_item(
    edge: CurrentEdge, caller: WritingCaller, key: IdempotencyKey, revision: Revision, item: Id,
    body: Dismissal | None = None,
) -> Response:
    """Dismisses an item for the caller only. With `dismissed_until` the item is snoozed and returns at that time."""
    until = body.dismissed_until if body is not None else None
    if until is not None and until <= edge.command_log.now():
        raise ApiError(400, "dismissed_until must be in the future")
    command = Dismiss(**command_fields(edge, caller, key), item=item, until=until, if_rev=revision)
    return await execute(edge, caller, command, edge.pages.item_json)


@router.delete("/inbox/{item:id}/dismiss", responses=responses_of(Dismissed, 404, writes=True))
async def restore_item(edge: CurrentEdge, caller: WritingCaller, key: IdempotencyKey, item: Id) -> Response:
    """Restores an item that the caller dismissed or snoozed."""
    return await execute(edge, caller, Restore(**command_fields(edge, caller, key), item=item))


@router.get("/feed", response_class=Response, responses=DOCUMENTED)
async def stream_feed(
    edge: CurrentEdge, caller: StreamingCaller, cursor: Cursor,
    limit: Annotated[
        int, Query(ge=1, description=f"Items in the window; larger values count as {FEED_MAX_LIMIT}.")] = FEED_LIMIT,
) -> Response:
    """Streams the first `limit` items of the inbox as server-sent events: a snapshot, then each change. With
    `Last-Event-ID` the stream resumes with exactly the missed changes, or starts with a snapshot if they are no longer
    available."""
    await edge.workspace(caller.reader)
    edge.connections.reserve(caller.workspace_id, caller.user)
    return EventStream(
        edge.connections, caller.workspace_id, caller.user, caller.expires - edge.clock(),
        lambda sink: edge.feed_hub.open(caller.reader, min(limit, FEED_MAX_LIMIT), cursor, sink),
        watch_of(edge, caller))


@router.get("/recent-drafts", responses=responses_of(Drafts))
async def get_recent_drafts(edge: CurrentEdge, caller: CurrentCaller) -> Response:
    """Returns the drafts in progress that the caller owns or edited, most recently edited first."""
    return json_response(orjson.dumps({"drafts": edge.pages.drafts(await edge.workspace(caller.reader), caller.user)}))


@router.get("/preferences", responses=responses_of(UserPreferences))
async def get_preferences(edge: CurrentEdge, caller: CurrentCaller) -> Response:
    """Returns the pinned clusters and the widgets of the caller, in layout order."""
    return json_response(orjson.dumps(edge.pages.preferences(await edge.workspace(caller.reader), caller.user)))


@router.patch("/preferences", responses=responses_of(UserPreferences, writes=True))
async def update_preferences(
    edge: CurrentEdge, caller: WritingCaller, key: IdempotencyKey, body: Preferences
) -> Response:
    """Replaces the given keys of the preferences. Keys that are not given stay as they are."""
    widgets = None if body.widgets is None else [Widget(widget.id, widget.visible) for widget in body.widgets]
    return await execute(edge, caller, SetPreferences(
        **command_fields(edge, caller, key), pinned_clusters=body.pinned_clusters, widgets=widgets))
