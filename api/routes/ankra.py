"""Ankra's routes: one person's inbox and feed, under /org/me (CONTRACT §4, seeds A1-A18)."""

from __future__ import annotations

import re
from typing import Annotated

import orjson
from fastapi import APIRouter, Query
from fastapi.responses import Response

from api.answers import read_token
from api.deps import Asking, Cursor, EdgeOf, json_of
from api.errors import Problem
from api.outlets import DOCUMENTED, EventStream
from schemas.codec import DAY, HOUR

__all__ = ["router"]

router = APIRouter(prefix="/org/me", tags=["personal"])

PAGE, MOST = 100, 500
FEED, FEED_MOST = 500, 1000
_WINDOW = re.compile(r"([1-9]\d{0,3})([hd])")
_LONGEST = 90 * DAY

Limit = Annotated[int, Query(ge=1, description=f"Items a page; beyond {MOST} it is {MOST}.")]
Next = Annotated[str | None, Query(alias="next", description="The page after the one that named it.", max_length=2000)]
Filter = Annotated[str, Query(max_length=512)]


@router.get("/inbox")
async def inbox(
    edge: EdgeOf, caller: Asking, limit: Limit = PAGE, after: Next = None, kind: Filter = "", cluster: Filter = "",
    dismissed: bool = False,
) -> Response:
    """My inbox, the most pressing first; with `dismissed`, what I put away."""
    space = edge.space(caller.reader)
    try:
        start = read_token(after) if after is not None else None
    except ValueError as error:
        raise Problem(400, str(error)) from None
    page = edge.answers.dismissed if dismissed else edge.answers.inbox
    cursor = edge.replica.cursor(caller.ws)
    return json_of(page(space, caller.reader, cursor, min(limit, MOST), start, kind, cluster))


@router.get("/feed", response_class=Response, responses=DOCUMENTED)
async def feed(
    edge: EdgeOf, caller: Asking, cursor: Cursor,
    limit: Annotated[int, Query(ge=1, description=f"The window; beyond {FEED_MOST} it is {FEED_MOST}.")] = FEED,
) -> Response:
    """The live feed: a snapshot, then every change; after `Last-Event-ID`, exactly what was missed."""
    edge.space(caller.reader)
    edge.connections.take(caller.ws, caller.user)
    return EventStream(
        edge.connections, caller.ws, caller.user, caller.expires - edge.clock(),
        lambda outlet: edge.hub.open(caller.reader, min(limit, FEED_MOST), cursor, outlet))


@router.get("/recent-drafts")
async def recent_drafts(edge: EdgeOf, caller: Asking) -> Response:
    """Drafts in progress that I own or edited, the last touched first."""
    return json_of(orjson.dumps({"drafts": edge.answers.drafts(edge.space(caller.reader), caller.user)}))


@router.get("/preferences")
async def preferences(edge: EdgeOf, caller: Asking) -> Response:
    """My pinned clusters and my widgets, in their order."""
    return json_of(orjson.dumps(edge.answers.preferences(edge.space(caller.reader), caller.user)))


@router.get("/activity")
async def activity(
    edge: EdgeOf, caller: Asking,
    window: Annotated[str, Query(description="From 1h to 90d, in whole hours or days.")] = "24h",
) -> Response:
    """What was completed, approved and resolved lately."""
    found = _WINDOW.fullmatch(window)
    length = int(found[1]) * {"h": HOUR, "d": DAY}[found[2]] if found is not None else 0
    if not 0 < length <= _LONGEST:
        raise Problem(400, "window: must be hours or days such as 24h or 7d, from 1h to 90d")
    space = edge.space(caller.reader)
    if length > edge.answers.live_window:
        raise Problem(503, "activity beyond the live window comes from history, which this edge can't ask yet")
    answer = edge.answers.activity(space, caller.reader, length, edge.replica.clock(caller.ws))
    return json_of(orjson.dumps(answer | {"window": window}))
