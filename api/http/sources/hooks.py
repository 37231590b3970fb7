"""Route `POST /hooks/{name}`: webhooks of other systems become events by a mapping (CONTRACT §8).

The events take the same way as those of `POST /events`: the validation of ingest, the scope of the key, and 202 only
when they are durable. What cannot be mapped is written to `dead-letters` with the original bytes. The status follows
from how senders retry: a delivery that attn understood as a whole gets 202, even if single alerts of it are rejected,
because the same delivery would fail again; one that it did not understand gets 400, which its sender shows.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Annotated

import orjson
import structlog
from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import Response

from api import metrics
from api.contract.errors import ApiError
from api.contract.sources import HOOK_BODY, HOOK_RESPONSES
from api.edge.services import Edge
from api.http.dependencies import CurrentEdge, get_edge, json_response
from api.http.sources.admission import admit, charge
from api.http.sources.body import read_body
from api.http.sources.hook_letters import count_letter, letter_of
from api.http.sources.hook_sender import HookSender, hook_sender, verify
from api.http.sources.intake import Rejection, accept_each
from api.intake.acceptance import AcceptedEvent, Gate
from api.intake.http_binding import SentEvent
from api.intake.sender import BufferFull, NotDurable
from schemas.scalars import SECOND
from streams.connectors.hooks.payloads import map_payload
from streams.connectors.mappings.mapped import Mapped, MappingError, encode_event
from streams.core.normalise import EventLimits

__all__ = ["FOLDER", "router"]

FOLDER = "/hooks/"
_IN_THREAD_FROM = 16 << 10  # bytes of a body from which its mapping may take longer than other requests should wait
# Alertmanager repeats a delivery after 503 within seconds, after 429 with the group's next interval (5 minutes).
_RETRY_503_ONLY = frozenset({"alertmanager"})

_log = structlog.get_logger("attn.edge")

router = APIRouter(tags=["events"])


@dataclass
class _Delivery:
    """What became of a delivery. `refused`: it could not be mapped as a whole."""

    mapped: Mapped = field(default_factory=Mapped)
    accepted: list[AcceptedEvent] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    refused: MappingError | None = None

    @property
    def unmapped(self) -> list[Rejection]:
        """The parts that belong into `dead-letters`. A part outside of the key's scope does not: the key is wrong."""
        return [one for one in self.rejected if one["status"] != 403]


async def _admitted_sender(
    request: Request, name: Annotated[str, Path(max_length=200, description="`alertmanager`, `grafana`, `github`, or "
                                                "a name of the file ATTN_HOOKS.", examples=["alertmanager"])],
) -> HookSender:
    sender = await hook_sender(request, name)
    await admit(request, get_edge(request), sender.workspace, sender.user, _busy(sender))
    return sender


@router.post("/hooks/{name}", status_code=202, responses=HOOK_RESPONSES, openapi_extra=HOOK_BODY)
async def receive_webhook(
    request: Request, edge: CurrentEdge, sender: Annotated[HookSender, Depends(_admitted_sender)],
) -> Response:
    """Accepts a webhook of Alertmanager, Grafana, GitHub, or of any system with a mapping file. Answers 202 when its
    events are durable. A repeated delivery changes nothing.

    The sender is known by a key (`Authorization: Bearer`, or the password of `Authorization: Basic`), or by the
    signature of the body. What cannot be mapped is listed in `rejected` and written to `dead-letters`.
    """
    reservation = edge.event_sender.reservation(sender.workspace, sender.user)
    handed_over = False
    try:
        body = await read_body(request, edge.settings.max_event_request, reservation)
        verify(request, sender, body)
        delivery = await _map(edge, sender, request, body)
        charge(edge, sender.workspace, sender.user, len(delivery.accepted) + len(delivery.rejected), len(body))
        records = list(delivery.accepted)
        if delivery.unmapped:
            records.append(await asyncio.to_thread(
                letter_of, sender, request.headers, body, delivery.refused, delivery.unmapped, edge.clock()))
        if records:
            reservation.grow(sum(len(record.value) for record in records))
            handed_over = True
            await edge.event_sender.send(sender.workspace, records, reservation)
            count_letter(sender.hook, delivery.refused, bool(delivery.unmapped))
    except BufferFull as full:
        raise ApiError(_busy(sender) if full.own else 503, str(full), {"retry-after": "1"}) from None
    except NotDurable as error:
        raise ApiError(503, str(error), {"retry-after": "1"}) from None
    finally:
        if not handed_over:
            reservation.release()
    return _response(sender, delivery)


async def _map(edge: Edge, sender: HookSender, request: Request, body: bytes) -> _Delivery:
    """Returns the events of a delivery, each checked as `POST /events` does."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    arguments = sender.hook, body, headers, int(edge.clock() * SECOND)
    try:
        if len(body) > _IN_THREAD_FROM or sender.hook.mapping == "generic":
            mapped = await asyncio.to_thread(map_payload, *arguments)
        else:
            mapped = map_payload(*arguments)
    except MappingError as error:
        return _refused(error)
    except Exception as fault:  # a bug of attn: the payload is kept in dead-letters
        _log.exception("a webhook could not be mapped", hook=sender.hook.name)
        return _refused(MappingError("", f"attn failed to map it: {type(fault).__name__}"))
    settings = edge.settings
    limits = EventLimits(settings.max_title, settings.max_body, settings.max_payload, settings.max_event)
    gate = Gate(sender.workspace, sender.key, limits, edge.sealer)
    delivery = _Delivery(mapped)
    events = [SentEvent(encode_event(event), []) for event in mapped.events]
    received = await accept_each(gate, events, binary=False)
    for one in received.rejected:
        index = mapped.indexes[one["index"]] if mapped.indexes else 0
        delivery.rejected.append(Rejection(index=index, error=one["error"], status=one["status"]))
    delivery.accepted = received.accepted
    delivery.rejected += [Rejection(index=one.index, error=str(one), status=400) for one in mapped.problems]
    delivery.rejected.sort(key=lambda one: one["index"])
    return delivery


def _refused(error: MappingError) -> _Delivery:
    return _Delivery(refused=error, rejected=[Rejection(index=0, error=str(error), status=400)])


def _busy(sender: HookSender) -> int:
    return 503 if sender.hook.mapping in _RETRY_503_ONLY else 429


def _response(sender: HookSender, delivery: _Delivery) -> Response:
    """Returns 400 for a delivery that was not understood, 403 if all its events are outside of the key's scope, else
    202."""
    metrics.INTAKE_EVENTS.labels("accepted").inc(len(delivery.accepted))
    metrics.INTAKE_EVENTS.labels("rejected").inc(len(delivery.rejected))
    mapped = delivery.mapped
    body: dict[str, object] = {"accepted": len(delivery.accepted), "rejected": delivery.rejected}
    if mapped.ignored:
        body["ignored"] = mapped.ignored
    if mapped.truncated:
        body["truncated"] = mapped.truncated
    outside = [one for one in delivery.rejected if one["status"] == 403]
    status = 202
    if delivery.refused is not None:
        status = 400
    elif outside and not delivery.accepted and len(outside) == len(delivery.rejected):
        status = 403
    result = "ignored" if mapped.ignored else {202: "accepted", 400: "refused", 403: "outside"}[status]
    metrics.HOOK_DELIVERIES.labels(sender.hook.mapping, result).inc()
    if status != 202:
        body = {"error": delivery.rejected[0]["error"]} | body
    return json_response(orjson.dumps(body), status)
