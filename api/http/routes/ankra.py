"""Ankra's routes: one person's inbox and feed, under /org/me (CONTRACT §4, seeds A1-A18)."""

from __future__ import annotations

from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Query
from fastapi.responses import Response

from api.contract import responses, serializers
from api.contract.errors import ApiError as Problem
from api.contract.requests import Dismissal, Preferences
from api.contract.responses import answers
from api.http.command_dispatch import carried_out, common
from api.http.dependencies import Asking, Cursor, EdgeOf, IdempotencyKey, Listening, Revision, Writing, json_of
from api.live.event_stream import DOCUMENTED, EventStream
from api.readmodel.pages import read_token
from schemas.log import Dismiss, Restore, SetPreferences, Widget

__all__ = ["router"]

router = APIRouter(prefix="/org/me", tags=["personal"])

PAGE, MOST = 100, 500
FEED, FEED_MOST = 500, 1000

Limit = Annotated[int, Query(ge=1, description=f"Items a page; beyond {MOST} it is {MOST}.")]
Next = Annotated[str | None, Query(alias="next", description="The page after the one that named it.", max_length=2000)]
Filter = Annotated[str, Query(max_length=512)]
Id = Annotated[str, Path(max_length=2000)]


@router.get("/inbox", responses=answers(responses.Inbox))
async def inbox(
    edge: EdgeOf, caller: Asking, limit: Limit = PAGE, after: Next = None, kind: Filter = "", cluster: Filter = "",
    dismissed: bool = False,
) -> Response:
    """My inbox, the most pressing first; with `dismissed`, what I put away."""
    families = {"kind": kind, "cluster": cluster, "both": kind and cluster}
    space = await edge.space(caller.reader, *(name for name, asked in families.items() if asked))
    try:
        start = read_token(after) if after is not None else None
    except ValueError as error:
        raise Problem(400, str(error)) from None
    page = edge.answers.dismissed if dismissed else edge.answers.inbox
    cursor = edge.replica.cursor(caller.ws)
    return json_of(page(space, caller.reader, cursor, min(limit, MOST), start, kind, cluster))


@router.get("/inbox/{item:id}", responses=answers(responses.Item, 404))
async def one(edge: EdgeOf, caller: Asking, item: Id) -> Response:
    """An item as the list shows it, in the list or not: put away, resolved, or a run that an incident stands for."""
    found = edge.answers.one(await edge.space(caller.reader), caller.reader, item)
    if found is None:
        raise Problem(404, "not found")
    return json_of(found)


@router.post("/inbox/{item:id}/dismiss", responses=answers(responses.Dismissed, 404, 412, writes=True))
async def dismiss(
    edge: EdgeOf, caller: Writing, key: IdempotencyKey, revision: Revision, item: Id, asked: Dismissal | None = None
) -> Response:
    """Puts an item away, for me alone; until a time, if one is given."""
    until = asked.dismissed_until if asked is not None else None
    if until is not None and until <= edge.command_log.now():
        raise Problem(400, "dismissed_until must be in the future")
    command = Dismiss(**common(edge, caller, key), item=item, until=until, if_rev=revision)
    return await carried_out(edge, caller, command, lambda row: serializers.ankra(row, False))


@router.delete("/inbox/{item:id}/dismiss", responses=answers(responses.Dismissed, 404, writes=True))
async def restore(edge: EdgeOf, caller: Writing, key: IdempotencyKey, item: Id) -> Response:
    """Takes an item back that I put away."""
    return await carried_out(edge, caller, Restore(**common(edge, caller, key), item=item))


@router.get("/feed", response_class=Response, responses=DOCUMENTED)
async def feed(
    edge: EdgeOf, caller: Listening, cursor: Cursor,
    limit: Annotated[int, Query(ge=1, description=f"The window; beyond {FEED_MOST} it is {FEED_MOST}.")] = FEED,
) -> Response:
    """The live feed: a snapshot, then every change; after `Last-Event-ID`, exactly what was missed."""
    await edge.space(caller.reader)
    edge.connections.take(caller.ws, caller.user)
    return EventStream(
        edge.connections, caller.ws, caller.user, caller.expires - edge.clock(),
        lambda outlet: edge.hub.open(caller.reader, min(limit, FEED_MOST), cursor, outlet))


@router.get("/recent-drafts", responses=answers(responses.Drafts))
async def recent_drafts(edge: EdgeOf, caller: Asking) -> Response:
    """Drafts in progress that I own or edited, the last touched first."""
    return json_of(orjson.dumps({"drafts": edge.answers.drafts(await edge.space(caller.reader), caller.user)}))


@router.get("/preferences", responses=answers(responses.PreferencesOf))
async def preferences(edge: EdgeOf, caller: Asking) -> Response:
    """My pinned clusters and my widgets, in their order."""
    return json_of(orjson.dumps(edge.answers.preferences(await edge.space(caller.reader), caller.user)))


@router.patch("/preferences", responses=answers(responses.PreferencesOf, writes=True))
async def prefer(edge: EdgeOf, caller: Writing, key: IdempotencyKey, asked: Preferences) -> Response:
    """Replaces the keys that are named."""
    widgets = None if asked.widgets is None else [Widget(widget.id, widget.visible) for widget in asked.widgets]
    return await carried_out(edge, caller, SetPreferences(
        **common(edge, caller, key), pinned_clusters=asked.pinned_clusters, widgets=widgets))
