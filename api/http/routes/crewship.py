"""Crewship's routes, to the letter of its page (seeds C1-C30)."""

from __future__ import annotations

from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Query, WebSocket
from fastapi.responses import Response

from api.contract import responses, serializers
from api.contract.errors import ApiError as Problem
from api.contract.requests import Bulk, StateChange
from api.contract.responses import answers
from api.http.command_dispatch import carried_out, common
from api.http.dependencies import Asking, EdgeOf, IdempotencyKey, Revision, Writing, json_of
from api.http.routes.websocket import serve
from api.readmodel import listing
from schemas.log import SetState

__all__ = ["router", "sockets"]

sockets = APIRouter()
router = APIRouter(prefix="/api/v1/inbox", tags=["inbox"])

PAGE, MOST = 100, 500
IDS_OF_A_WRITE = 10  # of a bulk, that cost as much as a write: 500 ids take half a bucket of the default burst
STATES = {
    "unread": ("unread",), "read": ("read",), "resolved": ("resolved",), "active": ("unread", "read"),
    "all": ("unread", "read", "resolved"),
}

Id = Annotated[str, Path(max_length=2000)]


@router.get("", responses=answers(responses.Rows))
async def rows(
    edge: EdgeOf, caller: Asking, state: str = "all", kind: Annotated[str, Query(max_length=512)] = "",
    limit: Annotated[int, Query(ge=1, description=f"Beyond {MOST} it is {MOST}.")] = PAGE,
) -> Response:
    """Items I may see, those that opened last first."""
    if state not in STATES:
        raise Problem(400, "invalid state")
    space = await edge.space(caller.reader, "new")
    ids = listing.newest(space, caller.reader, STATES[state], kind)
    found = [serializers.crewship(row) for row in listing.rows(space, ids, min(limit, MOST))]
    body = {"rows": [orjson.Fragment(row) for row in found], "count": len(found),
            "unread_count": space.unread(caller.reader)}
    return json_of(orjson.dumps(body))


@router.get("/count", responses=answers(responses.UnreadCount))
async def count(edge: EdgeOf, caller: Asking) -> Response:
    """For the badge on the bell."""
    return json_of(orjson.dumps({"unread_count": (await edge.space(caller.reader)).unread(caller.reader)}))


@router.post("/bulk", responses=answers(responses.BulkDone, writes=True))
async def bulk(edge: EdgeOf, caller: Writing, key: IdempotencyKey, asked: Bulk) -> Response:
    """One change of state for many items; what its source must decide is left, and told."""
    if len(asked.ids) > edge.settings.max_bulk:
        raise Problem(400, f"too many ids (max {edge.settings.max_bulk})")
    edge.rate_limiter.charge(caller.ws, caller.user, len(asked.ids) // IDS_OF_A_WRITE)
    return await carried_out(edge, caller, SetState(
        **common(edge, caller, key), items=tuple(asked.ids), state=asked.state, bulk=True,
        resolved_action=asked.resolved_action))


@router.patch("/{item:id}", responses=answers(responses.Changed, 404, 409, 412, writes=True))
async def change(
    edge: EdgeOf, caller: Writing, key: IdempotencyKey, revision: Revision, asked: StateChange, item: Id
) -> Response:
    """Flips an item's state, for all who see it."""
    return await carried_out(edge, caller, SetState(
        **common(edge, caller, key), items=(item,), state=asked.state, resolved_action=asked.resolved_action,
        if_rev=revision), serializers.crewship)


@sockets.websocket("/api/v1/ws")
async def push(socket: WebSocket) -> None:
    """Tells when to ask again (api.http.routes.websocket)."""
    await serve(socket, socket.app.state.edge, socket.app.state.auth)


@router.get("/{item:id}", responses=answers(responses.Row, 404))
async def one(edge: EdgeOf, caller: Asking, item: Id) -> Response:
    """One item, resolved or grouped into an incident too."""
    row = (await edge.space(caller.reader)).visible(caller.reader, item)
    if row is None:
        raise Problem(404, "not found")
    return json_of(serializers.crewship(row))
