"""Routes of `/events`: CloudEvents over HTTP (CONTRACT §8), and the validation handshake of the webhook specification.

The response 202 means that the accepted events are durable on their topics. A worker reads them as it reads the records
of a Kafka producer: a repeat changes nothing.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import orjson
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from api import metrics
from api.contract.errors import ApiError
from api.contract.sources import EVENTS_BODY, EVENTS_RESPONSES
from api.http.auth.tokens import Caller
from api.http.dependencies import CurrentEdge, SendingCaller, get_edge, json_response
from api.http.sources.admission import admit, charge
from api.http.sources.body import read_body
from api.http.sources.intake import Received, receive
from api.intake.sender import BufferFull, NotDurable

__all__ = ["PATH", "router"]

PATH = "/events"
# A DNS name or URL, as senders write it: it is sent back in a header.
_ORIGIN = re.compile(r"[!-~]{1,253}")
_RATE = re.compile(r"[1-9][0-9]{0,8}")

router = APIRouter(tags=["events"])

Topic = Literal[
    "waitpoints", "escalations", "run-failures", "messages", "sessions", "plans", "actions", "drafts", "cases"]


async def _admitted_caller(request: Request, caller: SendingCaller) -> Caller:
    """Returns the sender once its rate and its requests in progress allow one more. Raises ApiError 429."""
    await admit(request, get_edge(request), caller.workspace_id, caller.user)
    return caller


@router.post(PATH, status_code=202, responses=EVENTS_RESPONSES, openapi_extra=EVENTS_BODY)
async def send_events(
    request: Request, edge: CurrentEdge, caller: Annotated[Caller, Depends(_admitted_caller)],
    topic: Annotated[Topic | None, Query(
        description="Topic of `decision.applied` and `decision.refused`. Default: that of the item.")] = None,
) -> Response:
    """Accepts CloudEvents in structured, binary or batched mode, also with `Content-Encoding: gzip`. Answers 202 when
    the accepted events are durable. An event that arrives twice counts once, by its `source` and `id`.

    `workspaceid` may be left out: it is that of the caller. A request of which no event is accepted has the status of
    its events: 400, 403 or 413. Callers: keys of sources, and the roles OWNER and ADMIN.
    """
    reservation = edge.event_sender.reservation(caller.workspace_id, caller.user)
    handed_over = False
    try:
        body = await read_body(request, edge.settings.max_event_request, reservation)
        received = await receive(edge, caller, request, body, topic)
        charge(edge, caller.workspace_id, caller.user, received.count, len(body))
        if received.accepted:
            handed_over = True
            await edge.event_sender.send(caller.workspace_id, received.accepted, reservation)
    except BufferFull as full:
        raise ApiError(429 if full.own else 503, str(full), {"retry-after": "1"}) from None
    except NotDurable as error:
        raise ApiError(503, str(error), {"retry-after": "1"}) from None
    finally:
        if not handed_over:
            reservation.release()
    return _response(received)


def _response(received: Received) -> Response:
    """Returns 202 if an event was accepted or none was sent; else the status that the rejected events share, or 400."""
    metrics.INTAKE_EVENTS.labels("accepted").inc(len(received.accepted))
    metrics.INTAKE_EVENTS.labels("rejected").inc(len(received.rejected))
    body: dict[str, object] = {"accepted": len(received.accepted), "rejected": received.rejected}
    if received.accepted or not received.rejected:
        return json_response(orjson.dumps(body), 202)
    statuses = {one["status"] for one in received.rejected}
    first = received.rejected[0]["error"]
    error = first if received.count == 1 else f"none of the {received.count} events was accepted; the first: {first}"
    return json_response(orjson.dumps({"error": error} | body), statuses.pop() if len(statuses) == 1 else 400)


@router.options(PATH, response_class=Response, responses={
    200: {"description": "`Allow`, and the consent that the sender requested"}})
async def agree_to_delivery(request: Request, edge: CurrentEdge) -> Response:
    """Answers the validation request of the CloudEvents webhook specification (section 4). It is consent to requests,
    not authentication: a delivery needs a key."""
    headers = {"allow": "POST, OPTIONS", "cache-control": "no-store"}
    origin = request.headers.get("webhook-request-origin", "").strip()
    if _ORIGIN.fullmatch(origin):
        headers["webhook-allowed-origin"] = origin
        wanted = request.headers.get("webhook-request-rate", "").strip()
        allowed = max(1, int(edge.settings.event_rate * 60))
        if _RATE.fullmatch(wanted):
            headers["webhook-allowed-rate"] = str(min(int(wanted), allowed))
    return Response(status_code=200, headers=headers)
