"""Spans of ingest: from a source record until its event is durable in `attn.log`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from aiokafka import ConsumerRecord

from schemas.log import Event
from streams.tracing import hooks
from streams.tracing.context import TraceLink, link_of_event

if TYPE_CHECKING:
    from streams.tracing.tracer import Span, Tracer

__all__ = ["IngestTraces", "ingest_traces"]

_MAX_ID = 128  # characters of an event's id


class IngestTraces:
    """The spans of events that are packed and not written."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._open: list[Span] = []

    def begin(self, record: ConsumerRecord[bytes, bytes], event: Event) -> TraceLink | None:
        """Returns the context for the event's entry in the log. Returns None if its trace is not sampled."""
        link = link_of_event(record.value, record.headers)
        span = self._tracer.begin(f"ingest {record.topic}", self._tracer.consumer, link)
        if span is None:
            return None
        span.set_attributes({
            "messaging.system": "kafka", "messaging.operation.type": "process",
            "messaging.destination.name": record.topic, "messaging.destination.partition.id": str(record.partition),
            "messaging.kafka.offset": record.offset, "messaging.message.body.size": len(record.value or b""),
            "cloudevents.event_id": event.id[:_MAX_ID], "cloudevents.event_type": event.type,
            "attn.workspace": event.ws,
        })
        self._open.append(span)
        return self._tracer.link(span)

    def drain(self) -> Callable[[], dict[str, str] | None]:
        """Removes the spans of the events packed so far. The returned function is called when these events are durable:
        it ends the spans and returns the exemplar of one of them."""
        spans, self._open = self._open, []

        def end() -> dict[str, str] | None:
            for span in spans:
                span.end()
            return self._tracer.exemplar(spans[-1]) if spans else None

        return end


def ingest_traces() -> IngestTraces | None:
    """Returns None while traces are off."""
    return IngestTraces(hooks.active) if hooks.active is not None else None
