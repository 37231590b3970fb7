"""Route of the workspace insights (ClickHouse)."""

from __future__ import annotations

import orjson
from fastapi import APIRouter
from fastapi.responses import Response

from api.contract.errors import ApiError
from api.contract.responses.base import responses_of
from api.contract.responses.insights import Insights
from api.history.insights import fetch_insights, render_insights, steps_of
from api.http.dependencies import CurrentCaller, CurrentEdge, json_response
from api.http.routes.history import Window

__all__ = ["router"]

router = APIRouter(prefix="/org/me", tags=["personal"])

ALLOWED = ("OWNER", "ADMIN", "MANAGER")


@router.get("/insights", responses=responses_of(Insights, 403, 429))
async def get_insights(edge: CurrentEdge, caller: CurrentCaller, window: Window) -> Response:
    """Returns statistics of the workspace: items opened and closed, time until closed, by kind, cluster and user. Only
    for the roles OWNER, ADMIN and MANAGER."""
    if caller.role not in ALLOWED:
        raise ApiError(403, f"insights are for {', '.join(ALLOWED)}")
    name, length = window
    await edge.workspace(caller.reader)
    steps = steps_of(length, edge.replica.clock(caller.workspace_id))
    rows = await fetch_insights(edge.history, caller.reader, steps)
    return json_response(orjson.dumps({"window": name, **render_insights(rows, steps)}))
