"""How the workspace is doing, for those who run it."""

from __future__ import annotations

import orjson
from fastapi import APIRouter
from fastapi.responses import Response

from api.contract import responses
from api.contract.errors import ApiError as Problem
from api.contract.responses import answers
from api.history import insights as asked
from api.http.dependencies import Asking, EdgeOf, json_of
from api.http.routes.history import Window

__all__ = ["router"]

router = APIRouter(prefix="/org/me", tags=["personal"])

ALLOWED = ("OWNER", "ADMIN", "MANAGER")


@router.get("/insights", responses=answers(responses.Insights, 403, 429))
async def insights(edge: EdgeOf, caller: Asking, window: Window) -> Response:
    """What opens and closes, how fast, where, and who does it; for owners, admins and managers."""
    if caller.role not in ALLOWED:
        raise Problem(403, f"insights are for {', '.join(ALLOWED)}")
    name, length = window
    await edge.space(caller.reader)
    span = asked.span_of(length, edge.replica.clock(caller.ws))
    found = await asked.ask(edge.history, caller.reader, span)
    return json_of(orjson.dumps({"window": name, **asked.made(found, span)}))
