"""Routes of the recorded history: activity of the caller, events of a case (CONTRACT §4, seed A11)."""

from __future__ import annotations

import re
from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import Response

from api.contract.errors import ApiError
from api.contract.responses.base import responses_of
from api.contract.responses.history import Activity, CaseHistory
from api.history.activity import fetch_activity
from api.history.case_history import decode_position, fetch_events, render_page
from api.http.dependencies import CurrentCaller, CurrentEdge, json_response
from schemas.scalars import DAY, HOUR

__all__ = ["Window", "router"]

router = APIRouter()

DEFAULT_LIMIT, MAX_LIMIT = 100, 500
_WINDOW = re.compile(r"([1-9]\d{0,3})([hd])")
_MAX_WINDOW = 90 * DAY


def _parse_window(
    window: Annotated[str, Query(description="Length of the window: whole hours or days, from 1h to 90d.")] = "24h",
) -> tuple[str, int]:
    """Returns the window as text and in microseconds. Raises ApiError 400 if it is invalid."""
    match = _WINDOW.fullmatch(window)
    length = int(match[1]) * {"h": HOUR, "d": DAY}[match[2]] if match is not None else 0
    if not 0 < length <= _MAX_WINDOW:
        raise ApiError(400, "window: must be hours or days such as 24h or 7d, from 1h to 90d")
    return window, length


Window = Annotated[tuple[str, int], Depends(_parse_window)]


@router.get("/org/me/activity", tags=["personal"], responses=responses_of(Activity, 429))
async def get_activity(edge: CurrentEdge, caller: CurrentCaller, window: Window) -> Response:
    """Returns what was completed, approved and resolved within the window. Windows of up to a day are served from the
    live view, longer ones from the history."""
    name, length = window
    workspace, clock = await edge.workspace(caller.reader), edge.replica.clock(caller.workspace_id)
    if length <= edge.pages.live_window:
        body = edge.pages.activity(workspace, caller.reader, length, clock)
    else:
        body = await fetch_activity(edge.history, caller.reader, length, clock)
    return json_response(orjson.dumps(body | {"window": name}))


@router.get("/cases/{case:id}/history", tags=["cases"], responses=responses_of(CaseHistory, 404, 429))
async def get_case_history(
    edge: CurrentEdge, caller: CurrentCaller, case: Annotated[str, Path(max_length=2000)],
    limit: Annotated[
        int, Query(ge=1, description=f"Events per page; larger values count as {MAX_LIMIT}.")] = DEFAULT_LIMIT,
    before: Annotated[str | None, Query(
        alias="next", description="Page token from `next` of the previous page.", max_length=4000)] = None,
) -> Response:
    """Returns the events of a case that the caller may see, newest first."""
    try:
        before_event = decode_position(before) if before is not None else None
    except ValueError as error:
        raise ApiError(400, str(error)) from None
    limit = min(limit, MAX_LIMIT)
    workspace = await edge.workspace(caller.reader, "case")
    rows = await fetch_events(edge.history, caller.reader, case, limit, before_event, workspace)
    workspace = await edge.workspace(caller.reader, "case")  # the query may have taken minutes
    known = rows or workspace.has_case(caller.reader, case)
    known = known or (await edge.recent_case_events()).has_case(caller.reader, case)
    if not known and (
        before_event is None or not await fetch_events(edge.history, caller.reader, case, 1, None, workspace)
    ):
        raise ApiError(404, "not found")
    return json_response(orjson.dumps(render_page(case, rows, limit)))
