"""`Tracer`: begins spans from contexts of record headers, and turns spans into such contexts. Imports OpenTelemetry."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.span import TraceFlags, TraceState

from streams.tracing import exporting
from streams.tracing.context import TraceLink
from streams.tracing.errors import TracesUnavailable

__all__ = ["Span", "Tracer"]

# Share of the traces that attn begins itself, without OTEL_TRACES_SAMPLER. A producer's own traces are always
# continued if they are sampled.
_ROOT_RATIO = 0.01

Attributes = Mapping[str, str | int | float | bool]

_current: ContextVar[Span | None] = ContextVar("attn_span", default=None)


class Tracer:
    """Begins the spans of one process. `root_ratio`: share of the traces without a parent that are sampled.

    `client`, `consumer` and `server` are the kinds of spans.
    """

    client, consumer, server = SpanKind.CLIENT, SpanKind.CONSUMER, SpanKind.SERVER

    def __init__(self, provider: TracerProvider, root_ratio: float) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("attn")
        self._root_ratio = root_ratio
        self._parent_based = isinstance(provider.sampler, ParentBased)

    @classmethod
    def from_environment(cls, process: str, instance: str) -> Tracer:
        """Returns a tracer that is configured by the variables OTEL_*. Raises TracesUnavailable if one asks for what
        attn does not support."""
        protocol = (os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
                    or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "http/protobuf")
        if protocol != "http/protobuf":
            raise TracesUnavailable(f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol[:50]}: attn sends http/protobuf only")
        name = os.environ.get("OTEL_TRACES_SAMPLER", "").strip() or "parentbased_traceidratio"
        own = name.startswith("parentbased_")
        ratio = _root_ratio(name) if own else 1.0
        return cls(exporting.create_provider(process, instance, ParentBased(ALWAYS_ON) if own else None), ratio)

    def begin(
        self, name: str, kind: SpanKind, link: TraceLink | None, attributes: Attributes | None = None,
        start: int | None = None, related: Sequence[TraceLink] = (),
    ) -> Span | None:
        """Returns a started span, None if it is not sampled. `link`: its parent; None: it may begin a trace.

        `start`: nanoseconds since the epoch, default now. `related`: contexts for span links.
        """
        if link is None:
            if self._root_ratio < 1 and random.random() >= self._root_ratio:  # noqa: S311 - no secret
                return None
        elif self._parent_based and not link.sampled:
            return None
        context = trace.set_span_in_context(
            NonRecordingSpan(_span_context(link)) if link is not None else trace.INVALID_SPAN)
        links = [Link(_span_context(other)) for other in related] or None
        span = self._tracer.start_span(name, context, kind, attributes, links, start)
        return span if span.is_recording() else None

    @staticmethod
    def link(span: Span) -> TraceLink:
        """Returns the context of a span, for the headers of what it writes or sends."""
        context = span.get_span_context()
        state = context.trace_state.to_header() if context.trace_state else ""
        return TraceLink(f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 0xff:02x}", state)

    @staticmethod
    def fail(span: Span) -> None:
        """Marks a span as failed. The text of an error stays out: it may have data of users."""
        span.set_status(Status(StatusCode.ERROR))

    @staticmethod
    @contextmanager
    def current(span: Span) -> Iterator[None]:
        """Makes a span the one that `current_link` returns within the block and the tasks that it creates."""
        token = _current.set(span)
        try:
            yield
        finally:
            _current.reset(token)

    def current_link(self) -> TraceLink | None:
        """Returns the context of the request that the caller handles, None if it is not sampled."""
        span = _current.get()
        return self.link(span) if span is not None else None

    def current_exemplar(self) -> dict[str, str] | None:
        """Returns the exemplar of the request that the caller handles."""
        return self.exemplar(_current.get())

    @staticmethod
    def request_is_continued() -> bool:
        """Whether the request that the caller handles came with a context."""
        return getattr(_current.get(), "parent", None) is not None

    @staticmethod
    def exemplar(span: Span | None) -> dict[str, str] | None:
        """Returns the labels of an OpenMetrics exemplar; None without a span."""
        if span is None:
            return None
        context = span.get_span_context()
        return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}

    def close(self) -> None:
        """Sends the spans that wait, for at most 1 s."""
        exporting.close(self._provider)


def _span_context(link: TraceLink) -> SpanContext:
    parent = link.traceparent
    return SpanContext(
        int(parent[3:35], 16), int(parent[36:52], 16), True, TraceFlags(int(parent[53:55], 16)),
        TraceState.from_header([link.tracestate]) if link.tracestate else None)


def _root_ratio(sampler: str) -> float:
    """Returns the ratio of a sampler `parentbased_*` for traces without a parent."""
    root = sampler.removeprefix("parentbased_")
    if root in ("always_on", "always_off"):
        return float(root == "always_on")
    if root != "traceidratio":
        raise TracesUnavailable(
            f"OTEL_TRACES_SAMPLER={sampler[:50]} is not supported; use parentbased_traceidratio")
    text = os.environ.get("OTEL_TRACES_SAMPLER_ARG", "").strip()
    if not text:
        return 1.0 if os.environ.get("OTEL_TRACES_SAMPLER", "").strip() else _ROOT_RATIO
    try:
        ratio = float(text)
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        raise TracesUnavailable("OTEL_TRACES_SAMPLER_ARG must be a number between 0 and 1")
    return ratio
