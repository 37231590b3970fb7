"""Spans of the edge: from the poll that returned a batch of `attn.views` until its frames are written."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from aiokafka import ConsumerRecord

from streams.tracing import hooks
from streams.tracing.context import MAX_LINKS, read_workspace_links

if TYPE_CHECKING:
    from streams.tracing.tracer import Span, Tracer

__all__ = ["PublishTraces", "publish_traces"]


class PublishTraces:
    """The spans of batches whose frames are not written yet. `streams_of`: workspace -> number of its open streams."""

    def __init__(self, tracer: Tracer, streams_of: Callable[[str], int]) -> None:
        self._tracer, self._streams_of = tracer, streams_of
        self._open: list[tuple[Span, str]] = []
        self._polled_at = 0  # nanoseconds since the epoch

    def polled(self) -> None:
        """Notes when the records of a poll arrived: the spans begin then."""
        self._polled_at = time.time_ns()

    def begin(self, record: ConsumerRecord[bytes, bytes]) -> None:
        """Starts the spans of a batch. `record`: its position row."""
        for link in read_workspace_links(record.headers):
            if len(self._open) >= MAX_LINKS:
                return
            span = self._tracer.begin("publish feed", self._tracer.consumer, link.link, {
                "messaging.system": "kafka", "messaging.operation.type": "process",
                "messaging.destination.name": record.topic, "messaging.destination.partition.id": str(record.partition),
                "messaging.kafka.offset": record.offset, "attn.workspace": link.ws,
            }, self._polled_at)
            if span is not None:
                self._open.append((span, link.ws))

    def published(self) -> dict[str, str] | None:
        """Ends the spans: the frames are written. Returns the exemplar of one of them."""
        spans, self._open = self._open, []
        for span, ws in spans:
            span.set_attribute("attn.streams", self._streams_of(ws))
            span.end()
        return self._tracer.exemplar(spans[-1][0]) if spans else None


def publish_traces(streams_of: Callable[[str], int]) -> PublishTraces | None:
    """Returns None while traces are off."""
    return PublishTraces(hooks.active, streams_of) if hooks.active is not None else None
