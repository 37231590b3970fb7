"""Sends spans by OTLP over HTTP, in a thread of the SDK. The stream never waits for it.

At most OTEL_BSP_MAX_QUEUE_SIZE spans (2048) wait. Spans beyond are dropped and counted. While the collector is down or
slow, the SDK retries each batch for up to OTEL_EXPORTER_OTLP_TIMEOUT and then drops it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from importlib import metadata

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Sampler

from streams.tracing.metrics import SPANS

__all__ = ["close", "create_provider"]

log = logging.getLogger("attn.traces")

_QUEUE = 2048  # the SDK's default
_CLOSE_SECONDS = 1.0


def create_provider(process: str, instance: str, sampler: Sampler | None) -> TracerProvider:
    """Returns a provider that exports to OTEL_EXPORTER_OTLP_ENDPOINT. `sampler`: None for OTEL_TRACES_SAMPLER."""
    attributes = {"service.version": metadata.version("attn"), "service.instance.id": f"{process}-{instance}",
                  "attn.process": process}
    named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    if not named:
        attributes["service.name"] = f"attn-{process}"
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # one line per failed request otherwise
    provider = TracerProvider(sampler=sampler, resource=Resource.create(attributes), shutdown_on_exit=False)
    exporter = _ReportingExporter(OTLPSpanExporter())
    provider.add_span_processor(_BoundedProcessor(BatchSpanProcessor(exporter), exporter, _queue_size()))
    return provider


def close(provider: TracerProvider) -> None:
    """Sends what waits, for at most 1 s. A thread, because a collector that hangs would keep the process."""
    closing = threading.Thread(target=provider.shutdown, daemon=True)
    closing.start()
    closing.join(_CLOSE_SECONDS)


def _queue_size() -> int:
    text = os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE", "")
    return int(text) if text.isascii() and text.isdigit() and int(text) > 0 else _QUEUE


class _ReportingExporter(SpanExporter):
    """Counts the spans by result. Logs once when the collector stops to take spans, and once when it takes them again.

    The text of an error is not logged: a URL or a header of the collector may have a password.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._failing = False
        self.finished = 0  # spans; written by the SDK's thread only

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception:
            result = SpanExportResult.FAILURE
        self.finished += len(spans)
        failed = result is not SpanExportResult.SUCCESS
        SPANS.labels("failed" if failed else "exported").inc(len(spans))
        if failed and not self._failing:
            log.warning("the collector of traces does not take spans; they are dropped until it does; check "
                        "OTEL_EXPORTER_OTLP_ENDPOINT")
        elif self._failing and not failed:
            log.warning("the collector of traces takes spans again")
        self._failing = failed
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class _BoundedProcessor(SpanProcessor):
    """Drops a span while `limit` spans wait or are being sent. The SDK's queue would drop an older one, uncounted."""

    def __init__(self, inner: SpanProcessor, exporter: _ReportingExporter, limit: int) -> None:
        self._inner, self._exporter, self._limit = inner, exporter, limit
        self._accepted = 0  # written by the event loop's thread only

    def on_start(self, span: Span, parent_context: Context | None = None) -> None: ...

    def on_end(self, span: ReadableSpan) -> None:
        if self._accepted - self._exporter.finished >= self._limit:
            SPANS.labels("dropped").inc()
        else:
            self._accepted += 1
            self._inner.on_end(span)

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._inner.force_flush(timeout_millis)
