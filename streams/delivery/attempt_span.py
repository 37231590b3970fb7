"""Span of one attempt to post a decision: from the request until its result. No span while traces are off."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streams.delivery.backlog import Entry
from streams.tracing import hooks
from streams.tracing.context import trace_headers

if TYPE_CHECKING:
    from streams.tracing.tracer import Span, Tracer

__all__ = ["AttemptSpan"]


class AttemptSpan:
    """The span of an attempt, if its trace is sampled. `headers`: of the request, so that the receiver continues the
    trace."""

    def __init__(self, endpoint: str, entry: Entry) -> None:
        self.headers: dict[str, str] = {}
        self._entry = entry
        self._span: Span | None = None
        self._tracer: Tracer | None = hooks.active
        if self._tracer is not None:
            self._begin(self._tracer, endpoint)

    def _begin(self, tracer: Tracer, endpoint: str) -> None:
        entry = self._entry
        self._span = tracer.begin("POST", tracer.client, entry.trace, {
            "http.request.method": "POST", "http.request.body.size": entry.size,
            "http.request.resend_count": entry.attempts, "attn.endpoint": endpoint, "attn.decision": entry.decision,
            "attn.verb": entry.verb, "attn.workspace": entry.workspace, "messaging.kafka.offset": entry.offset,
        })
        if self._span is not None:
            self.headers = {name: raw.decode() for name, raw in trace_headers(tracer.link(self._span))}

    def end(self, failed: bool, cause: str) -> dict[str, str] | None:
        """Ends the span; the report of the decision continues it. Returns its exemplar, None without a span. `cause`: a
        short code of the result."""
        if self._tracer is None or self._span is None:
            return None
        self._span.set_attribute("attn.result", cause)
        if failed:
            self._tracer.fail(self._span)
        else:
            self._entry.trace = self._tracer.link(self._span)
        self._span.end()
        return self._tracer.exemplar(self._span)
