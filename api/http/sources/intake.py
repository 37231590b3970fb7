"""Splits the body of `POST /events` into events and checks each (`api.intake`)."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TypedDict

import structlog
from fastapi import Request

from api.contract.errors import ApiError
from api.edge.services import Edge
from api.http.auth.tokens import Caller
from api.intake.acceptance import AcceptedEvent, EventRefused, Gate
from api.intake.http_binding import (
    MalformedRequest,
    Mode,
    SentEvent,
    UnsupportedMedia,
    binary_event,
    mode_of,
    split_batch,
)
from api.readmodel.access.source_keys import topics_of_kind
from streams.core.domain.event_types import KINDS
from streams.core.domain.keys import item_id
from streams.core.normalise import EventLimits

__all__ = ["Received", "Rejection", "accept_each", "receive"]

_SLICE_SECONDS = 0.005  # after which other requests run

_log = structlog.get_logger("attn.edge")


class Rejection(TypedDict):
    """A rejected event: its position in the request, the reason, and the status that it would have alone."""

    index: int
    error: str
    status: int


@dataclass
class Received:
    """The events of a request. `count`: all of them."""

    count: int
    accepted: list[AcceptedEvent] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)


async def receive(edge: Edge, caller: Caller, request: Request, body: bytes, topic: str | None) -> Received:
    """Returns the accepted events of a request, and why the others are not. Raises ApiError 400 or 415 if the body
    cannot be split into events."""
    mode, events = _split(request, body, edge.settings.max_event_batch)
    return await accept_each(_gate(edge, caller, topic), events, mode == "binary")


async def accept_each(gate: Gate, events: list[SentEvent], binary: bool) -> Received:
    """Returns the accepted events, and why the others are not. Lets other requests run every 5 ms."""
    received = Received(len(events))
    began = time.perf_counter()
    for index, event in enumerate(events):
        try:
            received.accepted.append(gate.accept(event, binary))
        except EventRefused as refused:
            received.rejected.append(Rejection(index=index, error=str(refused), status=refused.status))
        except Exception as fault:  # a bug of attn: a worker would write the event to dead-letters
            _log.exception("an event sent over HTTP could not be read")
            received.rejected.append(Rejection(
                index=index, error=f"attn failed to read it: {type(fault).__name__}", status=400))
        if time.perf_counter() - began > _SLICE_SECONDS:
            await asyncio.sleep(0)
            began = time.perf_counter()
    return received


def _split(request: Request, body: bytes, limit: int) -> tuple[Mode, list[SentEvent]]:
    headers = request.headers
    try:
        mode = mode_of(headers.get("content-type", ""), "ce-specversion" in headers)
        if mode == "binary":
            return mode, [binary_event(request.scope["headers"], body)]
        return mode, [SentEvent(event, []) for event in (split_batch(body, limit) if mode == "batch" else [body])]
    except UnsupportedMedia as error:
        raise ApiError(415, str(error)) from None
    except MalformedRequest as error:
        raise ApiError(400, str(error)) from None


def _gate(edge: Edge, caller: Caller, topic: str | None) -> Gate:
    settings = edge.settings
    limits = EventLimits(settings.max_title, settings.max_body, settings.max_payload, settings.max_event)
    return Gate(caller.workspace_id, caller.key, limits, edge.sealer, topic,
                lambda subject: _topic_of_subject(edge, caller.workspace_id, subject))


def _topic_of_subject(edge: Edge, ws: str, subject: str) -> str | None:
    """Returns the topic of a decided item with this source id, None if this edge knows none."""
    workspace = edge.replica.find_workspace(ws)
    for kind in sorted(KINDS) if workspace is not None else ():
        row = workspace.item(item_id(ws, kind, subject).encode())  # type: ignore[union-attr]
        if row is not None and row.question is not None and row.question.decision is not None:
            return min(topics_of_kind(kind))
    return None
