"""Crewship's routes, to the letter of its page (seeds C1-C30). What changes state comes with the writes."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Query
from fastapi.responses import Response

from api import pages, shapes
from api.deps import Asking, EdgeOf, json_of
from api.errors import Problem

__all__ = ["router"]

router = APIRouter(prefix="/api/v1/inbox", tags=["inbox"])

PAGE, MOST = 100, 500
STATES = {
    "unread": ("unread",), "read": ("read",), "resolved": ("resolved",), "active": ("unread", "read"),
    "all": ("unread", "read", "resolved"),
}


@router.get("")
async def rows(
    edge: EdgeOf, caller: Asking, state: str = "all", kind: Annotated[str, Query(max_length=512)] = "",
    limit: Annotated[int, Query(ge=1, description=f"Beyond {MOST} it is {MOST}.")] = PAGE,
) -> Response:
    """Items I may see, those that opened last first."""
    if state not in STATES:
        raise Problem(400, "invalid state")
    space = edge.space(caller.reader)
    ids = islice(pages.newest(space, caller.reader, STATES[state], kind), min(limit, MOST))
    found = [shapes.crewship(row) for row in map(space.item, ids) if row is not None]
    body = {"rows": [orjson.Fragment(row) for row in found], "count": len(found),
            "unread_count": space.unread(caller.reader)}
    return json_of(orjson.dumps(body))


@router.get("/count")
async def count(edge: EdgeOf, caller: Asking) -> Response:
    """For the badge on the bell."""
    return json_of(orjson.dumps({"unread_count": edge.space(caller.reader).unread(caller.reader)}))


@router.get("/{item}")
async def one(edge: EdgeOf, caller: Asking, item: Annotated[str, Path(max_length=2000)]) -> Response:
    """One item, resolved or grouped into an incident too."""
    row = edge.space(caller.reader).visible(caller.reader, item)
    if row is None:
        raise Problem(404, "not found")
    return json_of(shapes.crewship(row))
