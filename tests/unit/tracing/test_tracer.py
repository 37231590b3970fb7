"""The tracer and its exporter: sampling, configuration, and the bound of waiting spans."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from schemas.settings import Settings
from streams.tracing import exporting, hooks
from streams.tracing.context import TraceLink, link_of_attributes
from streams.tracing.errors import TracesUnavailable
from streams.tracing.metrics import SPANS
from streams.tracing.tracer import Tracer

SAMPLED = TraceLink("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "a=1")
NOT_SAMPLED = TraceLink(SAMPLED.traceparent[:-1] + "0")


class Exporter(SpanExporter):
    """In place of the one of OTLP: keeps the spans; waits while `open` is not set."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []
        self.open = threading.Event()
        self.open.set()
        self.result = SpanExportResult.SUCCESS

    def export(self, spans: object) -> SpanExportResult:
        self.open.wait()
        self.spans += spans  # type: ignore[operator]
        return self.result

    def shutdown(self) -> None: ...


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Exporter]:
    one = Exporter()
    for name in ("OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG", "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_SERVICE_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(exporting, "OTLPSpanExporter", lambda: one)
    yield one
    one.open.set()


def sampled(tracer: Tracer, link: TraceLink | None, times: int = 2000) -> int:
    count = 0
    for _ in range(times):
        if (span := tracer.begin("x", tracer.consumer, link)) is not None:
            count += 1
            span.end()
    return count


@pytest.mark.parametrize(("sampler", "argument", "roots", "continued", "refused"), [
    (None, None, (1, 80), 100, 0), ("parentbased_always_on", None, (2000, 2000), 100, 0),
    ("parentbased_always_off", None, (0, 0), 100, 0), ("parentbased_traceidratio", "0.5", (700, 1300), 100, 0),
    ("always_on", None, (2000, 2000), 100, 100), ("always_off", None, (0, 0), 0, 0),
], ids=["default", "on", "off", "half", "always", "never"])
def test_sampling(
    exporter: Exporter, monkeypatch: pytest.MonkeyPatch, sampler: str | None, argument: str | None,
    roots: tuple[int, int], continued: int, refused: int,
) -> None:
    for name, value in (("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", argument)):
        if value is not None:
            monkeypatch.setenv(name, value)
    tracer = Tracer.from_environment("worker", "i")
    assert roots[0] <= sampled(tracer, None) <= roots[1]
    assert sampled(tracer, SAMPLED, 100) == continued
    assert sampled(tracer, NOT_SAMPLED, 100) == refused
    tracer.close()


@pytest.mark.parametrize(("name", "value"), [
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_TRACES_SAMPLER", "parentbased_jaeger_remote"),
    ("OTEL_TRACES_SAMPLER_ARG", "2"), ("OTEL_TRACES_SAMPLER_ARG", "much"),
])
def test_what_is_not_supported_is_an_error_at_start(
    exporter: Exporter, monkeypatch: pytest.MonkeyPatch, name: str, value: str,
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(TracesUnavailable, match=name):
        hooks.start(Settings(_env_file=None, traces=True), "worker")  # type: ignore[call-arg]
    assert hooks.active is None


def test_a_child_has_the_trace_the_parent_and_the_state(exporter: Exporter) -> None:
    tracer = Tracer.from_environment("worker", "i")
    span = tracer.begin("x", tracer.consumer, SAMPLED)
    assert span is not None
    link = tracer.link(span)
    assert (link.traceparent[:36], link.tracestate) == (SAMPLED.traceparent[:36], "a=1")
    assert link.traceparent[36:52] != SAMPLED.traceparent[36:52]
    span.end()
    tracer.close()
    [sent] = exporter.spans
    assert sent.parent is not None
    assert f"{sent.parent.span_id:016x}" == SAMPLED.traceparent[36:52]
    assert sent.resource.attributes["service.name"] == "attn-worker"
    assert tracer.exemplar(span) == {"trace_id": link.traceparent[3:35], "span_id": link.traceparent[36:52]}


def test_spans_beyond_the_bound_are_dropped_and_counted(exporter: Exporter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "64")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "16")
    before = {result: SPANS.labels(result)._value.get() for result in ("exported", "failed", "dropped")}
    exporter.open.clear()
    tracer = Tracer.from_environment("worker", "i")
    assert sampled(tracer, SAMPLED, 1000) == 1000
    exporter.open.set()
    tracer.close()
    added = {result: SPANS.labels(result)._value.get() - count for result, count in before.items()}
    assert added == {"exported": 64, "failed": 0, "dropped": 936}
    assert len(exporter.spans) == 64


def test_a_refusal_is_counted_and_logged_once(exporter: Exporter, caplog: pytest.LogCaptureFixture) -> None:
    before = SPANS.labels("failed")._value.get()
    exporter.result = SpanExportResult.FAILURE
    tracer = Tracer.from_environment("worker", "i")
    sampled(tracer, SAMPLED, 1500)
    tracer.close()
    assert SPANS.labels("failed")._value.get() - before == 1500
    assert len([record for record in caplog.records if record.name == "attn.traces"]) == 1


def test_records_of_a_request(exporter: Exporter, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request's context counts if it came with one; else that of the event."""
    assert hooks.source_headers(b"{}") == []
    tracer = Tracer.from_environment("edge", "i")
    monkeypatch.setattr(hooks, "active", tracer)
    monkeypatch.setattr(tracer, "_root_ratio", 1.0)
    own = b'{"traceparent":"' + SAMPLED.traceparent.encode() + b'"}'
    assert link_of_attributes(own) == TraceLink(SAMPLED.traceparent)
    assert hooks.source_headers(b"{}") == []  # outside of a request
    for parent, expected in ((SAMPLED, (True, True)), (None, (True, False))):
        span = tracer.begin("POST", tracer.server, parent)
        assert span is not None
        with tracer.current(span):
            assert hooks.current_link() == tracer.link(span)
            assert (bool(hooks.source_headers(b"{}")), bool(hooks.source_headers(own))) == expected
        assert hooks.current_link() is None
        span.end()
    tracer.close()
