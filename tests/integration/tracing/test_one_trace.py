"""`attn up` with ATTN_TRACES, a collector, a producer and a receiver: one trace each from end to end."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from confluent_kafka import Producer
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from support.delivery.records import endpoints_file
from support.processes.up import Up, wait_for
from support.tracing.collector import Collector, ReceivedSpan, collector
from support.tracing.feed_thread import FeedThread

from ops.embedded.broker import binary
from ops.process.ports import free_port
from schemas.scalars import SECOND, format_timestamp
from schemas.topics import DECISIONS, FACTS, LOG, VIEWS
from streams.tracing.context import TRACES

pytestmark = [
    pytest.mark.timeout(300), pytest.mark.slow,
    pytest.mark.skipif(binary() is None, reason="noida-db is not installed (pip install 'attn[embedded]')"),
]

WS = "ws_01"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


class Source:
    """A receiver of decisions that answers 204, and keeps the headers and the body of each request."""

    def __init__(self) -> None:
        self.posts: list[tuple[dict[str, str], dict[str, Any]]] = []
        this = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                this.posts.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *arguments: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Stand:
    """A running `attn up` and what is around it."""

    def __init__(self, up: Up, spans: Collector | None, source: Source) -> None:
        self.up, self.source = up, source
        self.spans: Any = spans
        self.token = up.token(WS)
        self.feed = FeedThread(up.url, self.token)
        self.producer = Producer({"bootstrap.servers": up.kafka})
        wait_for(lambda: self.feed.frames, 60, "the snapshot")

    def send(self, event: dict[str, Any], headers: Mapping[str, str] = {}) -> None:
        self.producer.produce(
            "waitpoints", json.dumps(event).encode(), headers={name: text.encode() for name, text in headers.items()})
        assert self.producer.flush(30) == 0

    def metric(self, name: str) -> float:
        lines = httpx.get(f"{self.up.url}/metrics", trust_env=False).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    def chain(self, trace_id: str, *names: str) -> list[ReceivedSpan]:
        """Waits for one span of each name, each the child of the one before it. Returns them."""
        def found() -> list[ReceivedSpan] | None:
            known = self.spans.trace(trace_id)
            chains = [[span] for span in known.values() if span.name == names[0]]
            for name in names[1:]:
                chains = [[*chain, span] for chain in chains for span in known.values()
                          if span.name == name and span.parent == chain[-1].id]
            return chains[0] if chains else None

        result: list[ReceivedSpan] = wait_for(
            found, 60, f"{names} in {[(s.name, s.id, s.parent) for s in self.spans.trace(trace_id).values()]}")
        return result


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    home, source = tmp_path_factory.mktemp("traces"), Source()
    path = endpoints_file(home / "endpoints.toml", receiver=f"http://127.0.0.1:{source.server.server_port}/")
    with collector() as spans:
        up = Up(home, env={
            "ATTN_ENDPOINTS": str(path), "ATTN_UNDO_SECONDS": "0", "ATTN_TRACES": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": spans.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_BSP_MAX_QUEUE_SIZE": "32", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "32",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "2", "OTEL_TRACES_SAMPLER": "parentbased_always_off"})
        stand = None
        try:
            up.start()
            stand = Stand(up, spans, source)
            yield stand
            assert "t0ken-of-the-source" not in up.output_text()
            assert up.stop()[0] == 0
        finally:
            up.close()
            if stand is not None:
                stand.feed.close()
            source.close()


def ask(subject: str, **more: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0", "id": f"ask-{subject}", "source": "/payments", "type": "waitpoint.created",
        "subject": subject, "time": format_timestamp(int(time.time() * SECOND)), "workspaceid": WS,
        "data": {"title": "a title that is nobody's business",
                 "ask": {"reply": {"to": "receiver", "token": "t0ken-of-the-source"}}}, **more,
    }


def context() -> tuple[str, str, dict[str, str]]:
    """Returns the id of a new sampled trace, the id of its span, and its headers from OpenTelemetry's propagator."""
    span = TracerProvider().get_tracer("producer").start_span("send")
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier, trace.set_span_in_context(span))
    made = span.get_span_context()
    return f"{made.trace_id:032x}", f"{made.span_id:016x}", carrier


def test_from_the_producers_header_to_the_frame(stand: Stand) -> None:
    trace_id, parent, headers = context()
    stand.send(ask("wp_1"), headers | {"tracestate": "vendor=abc", "baggage": "user=secret"})
    ingest, fold, publish = stand.chain(trace_id, "ingest waitpoints", "fold attn.log", "publish feed")
    assert wait_for(lambda: stand.feed.items("wp_1"), 60, "the frame")
    assert ingest.parent == parent
    assert [span.service for span in (ingest, fold, publish)] == ["attn-worker", "attn-worker", "attn-edge"]
    # A span may end after the next one began: a record is readable before its producer is acknowledged.
    assert ingest.start <= fold.start <= publish.start <= publish.end
    assert publish.attributes["attn.streams"] == 1
    assert ingest.attributes["cloudevents.event_id"] == "ask-wp_1"
    assert {span.state for span in (ingest, fold, publish)} == {"vendor=abc"}
    text = repr(stand.spans.spans)
    assert "nobody's business" not in text
    assert "t0ken" not in text
    assert "secret" not in text


@pytest.mark.parametrize("mode", ["structured", "binary", "http", "http header"])
def test_contexts_of_cloud_events(stand: Stand, mode: str) -> None:
    trace_id, parent, headers = context()
    subject = f"wp_{mode}".replace(" ", "_")
    event, auth = ask(subject), {"authorization": f"Bearer {stand.token}"}
    if mode == "structured":
        stand.send(event | headers)
    elif mode == "binary":
        attributes = {name: value for name, value in event.items() if name != "data"} | headers
        stand.send(event["data"], {f"ce_{name}": value for name, value in attributes.items()})
    else:
        body = json.dumps(event | (headers if mode == "http" else {}))
        sent = headers if mode == "http header" else {}
        answer = httpx.post(f"{stand.up.url}/events", content=body, trust_env=False, headers={
            **auth, **sent, "content-type": "application/cloudevents+json"})
        assert answer.status_code == 202, answer.text
    names = ["ingest waitpoints", "fold attn.log", "publish feed"]
    first = stand.chain(trace_id, *(["POST /events"] if mode == "http header" else []), *names)[0]
    assert first.parent == parent


@pytest.mark.parametrize("traceparent", [
    "", "00", "x" * 5000, "00-" + "0" * 32 + "-00f067aa0ba902b7-01", "ff-" + "1" * 32 + "-00f067aa0ba902b7-01",
    "00-" + "1" * 32 + "-00f067aa0ba902b7-01-more",
], ids=["empty", "short", "long", "zero", "version", "longer"])
def test_a_malformed_context_is_ignored(stand: Stand, traceparent: str) -> None:
    subject = "wp_bad_" + secrets.token_hex(4)
    stand.send(ask(subject) | {"traceparent": traceparent}, {"traceparent": traceparent, "tracestate": "\x01" * 9000})
    wait_for(lambda: stand.feed.items(subject), 60, "the frame")
    assert stand.metric("attn_edge_streams_cut_total") == 0


def decide(stand: Stand, subject: str) -> tuple[str, str, dict[str, Any]]:
    """Approves a question with a context. Returns the trace, its first span, and the item."""
    stand.send(ask(subject))
    item = wait_for(lambda: stand.feed.items(subject), 60, "the question")[-1]
    trace_id, parent, headers = context()
    answer = httpx.post(
        f"{stand.up.url}/api/v1/inbox/{item['id']}/decision", timeout=20, trust_env=False,
        json={"option": "approve", "digest": item["digest"]},
        headers={"authorization": f"Bearer {stand.token}", **headers})
    assert answer.status_code == 201, answer.text
    return trace_id, parent, item


def applied(subject: str, decision: str) -> dict[str, Any]:
    return {
        "specversion": "1.0", "id": f"applied-{subject}", "source": "/payments", "type": "decision.applied",
        "subject": subject, "time": format_timestamp(int(time.time() * SECOND)), "workspaceid": WS,
        "data": {"decision": decision}}


def wait_applied(stand: Stand, item: dict[str, Any]) -> None:
    path = f"/api/v1/inbox/{item['id']}"
    wait_for(lambda: stand.up.get(path, stand.token).json()["decision"]["state"] == "applied", 60, "applied")


def test_from_a_click_to_the_sources_confirmation(stand: Stand) -> None:
    trace_id, parent, item = decide(stand, "wp_click")
    server, fold, _ = stand.chain(
        trace_id, "POST /api/v1/inbox/{item}/decision", "fold attn.log", "publish feed")
    assert (server.parent, server.service) == (parent, "attn-edge")
    assert server.attributes["http.response.status_code"] == 201
    assert fold.attributes["attn.entry"] == "decide"
    post = stand.chain(trace_id, "fold attn.log", "POST")[1]
    assert (post.parent, post.service, post.attributes["attn.endpoint"]) == (fold.id, "attn-deliver", "receiver")
    # The receiver has the context of the attempt, and the report of the delivery continues it.
    received, event = next(one for one in stand.source.posts if one[1]["subject"] == "wp_click")
    assert received["traceparent"].startswith(f"00-{trace_id}-{post.id}-")
    stand.chain(trace_id, "POST", "fold attn.log", "publish feed")
    stand.send(applied("wp_click", event["data"]["decision"]), {"traceparent": received["traceparent"]})
    confirmed = stand.chain(trace_id, "POST", "ingest waitpoints", "fold attn.log", "publish feed")[-1]
    assert confirmed.service == "attn-edge"
    wait_applied(stand, item)


def test_a_confirmation_without_a_context_continues_the_click(stand: Stand) -> None:
    """Connectors and most sources send no context."""
    trace_id, _, item = decide(stand, "wp_plain")
    stand.chain(trace_id, "fold attn.log", "POST")
    decision = next(event["data"]["decision"] for _, event in stand.source.posts if event["subject"] == "wp_plain")
    stand.send(applied("wp_plain", decision))
    decided, reported, _ = stand.chain(trace_id, "fold attn.log", "fold attn.log", "publish feed")
    assert (decided.attributes["attn.entry"], reported.attributes["attn.entry"]) == ("decide", "event")
    wait_applied(stand, item)


async def test_headers_of_the_records(stand: Stand) -> None:
    """Facts, decisions and position rows have the contexts; values have none."""
    consumer = AIOKafkaConsumer(bootstrap_servers=stand.up.kafka, enable_auto_commit=False)
    await consumer.start()
    try:
        found: dict[str, list[str]] = {}
        for topic in (LOG, VIEWS, FACTS, DECISIONS):
            tps = [TopicPartition(topic, number) for number in range(8)]
            ends = await consumer.end_offsets(tps)
            consumer.assign(tps)
            await consumer.seek_to_beginning(*tps)
            while any([await consumer.position(tp) < ends[tp] for tp in tps]):
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    for record in records:
                        found.setdefault(topic, []).extend(name for name, _ in record.headers)
                        assert b"traceparent" not in (record.value or b"")
    finally:
        await consumer.stop()
    assert set(found[LOG]) == set(found[VIEWS]) == {TRACES}
    assert {"traceparent", "tracestate"} == set(found[FACTS])
    assert "traceparent" in found[DECISIONS]


def test_exemplars_name_the_trace(stand: Stand) -> None:
    trace_id, _, headers = context()
    stand.send(ask("wp_exemplar"), headers)
    stand.chain(trace_id, "ingest waitpoints", "fold attn.log", "publish feed")

    def exemplar() -> bool:
        text = httpx.get(f"{stand.up.url}/metrics", headers={"accept": OPEN_METRICS}, trust_env=False).text
        assert text.endswith("# EOF\n")
        return any(f'trace_id="{trace_id}"' in line for line in text.splitlines()
                   if line.startswith("attn_edge_delay_seconds_bucket"))

    wait_for(exemplar, 60, "the exemplar")


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")
def test_prometheus_stores_the_exemplars(stand: Stand, tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "prometheus.yml").write_text(
        "scrape_configs:\n- job_name: attn\n  scrape_interval: 1s\n  static_configs:\n"
        f"  - targets: ['127.0.0.1:{stand.up.port}']\n")
    process = subprocess.Popen(
        ["prometheus", "--config.file=prometheus.yml", f"--storage.tsdb.path={tmp_path}/data", "--log.level=error",
         f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=exemplar-storage"], cwd=tmp_path)
    try:
        trace_id, _, headers = context()
        stand.send(ask("wp_prometheus"), headers)
        stand.chain(trace_id, "ingest waitpoints", "fold attn.log", "publish feed")

        def stored() -> bool:
            now = int(time.time())
            try:
                answer = httpx.get(
                    f"http://127.0.0.1:{port}/api/v1/query_exemplars", trust_env=False, params={
                        "query": "attn_edge_delay_seconds_bucket", "start": now - 300, "end": now + 1})
            except httpx.HTTPError:
                return False
            return f'"{trace_id}"' in answer.text

        wait_for(stored, 60, "the exemplar in Prometheus")
    finally:
        process.terminate()
        process.wait(90)


def test_a_collector_that_refuses_or_hangs_has_no_effect_on_the_stream(stand: Stand) -> None:
    try:
        for answer in (400, None):
            stand.spans.answer = answer
            asked = stand.spans.requests
            subjects = [f"wp_{answer}_{number}" for number in range(150)]
            for subject in subjects:
                stand.send(ask(subject), context()[2])
            wait_for(lambda names=subjects: all(stand.feed.items(name) for name in names), 60, "all frames")
            wait_for(lambda before=asked: stand.spans.requests > before, 60, "a request to the collector")
        assert stand.metric('attn_trace_spans_total{result="failed"}') > 0
        wait_for(lambda: stand.metric('attn_trace_spans_total{result="dropped"}') > 0, 60, "dropped spans")
    finally:
        stand.spans.answer = 200
    assert "Traceback" not in stand.up.output_text()


def test_a_killed_worker_costs_spans_only(stand: Stand) -> None:
    subjects = [f"wp_kill_{number}" for number in range(60)]
    for subject in subjects[:30]:
        stand.send(ask(subject), context()[2])
    before = stand.up.kill("worker")
    for subject in subjects[30:]:
        stand.send(ask(subject), context()[2])
    stand.up.wait_restarted("worker", before)
    wait_for(lambda: all(stand.feed.items(name) for name in subjects), 60, "all frames")
    trace_id, parent, headers = context()
    stand.send(ask("wp_after_kill"), headers)
    first = stand.chain(trace_id, "ingest waitpoints", "fold attn.log", "publish feed")[0]
    assert first.parent == parent


def test_off_no_header_is_written(tmp_path: Path) -> None:
    up, source = Up(tmp_path, env={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}), Source()
    stand = None
    try:
        up.start()
        stand = Stand(up, None, source)
        stand.send(ask("wp_off"), context()[2])
        item = wait_for(lambda: stand.feed.items("wp_off"), 60, "the frame")[-1]
        answer = httpx.post(
            f"{up.url}/api/v1/inbox/{item['id']}/decision", timeout=20, trust_env=False,
            json={"option": "approve", "digest": item["digest"]},
            headers={"authorization": f"Bearer {stand.token}", **context()[2]})
        assert answer.status_code == 201, answer.text
        _headers_are_absent(up)
    finally:
        up.close()
        source.close()
        if stand is not None:
            stand.feed.close()


def _headers_are_absent(up: Up) -> None:
    from confluent_kafka import Consumer
    from confluent_kafka import TopicPartition as Partition

    consumer = Consumer({"bootstrap.servers": up.kafka, "group.id": "headers", "enable.partition.eof": False})
    seen: set[str] = set()
    try:
        topics = (LOG, VIEWS, FACTS, DECISIONS)
        consumer.assign([Partition(topic, number, 0) for topic in topics for number in range(8)])
        until = time.monotonic() + 60
        while seen != {*topics}:
            assert time.monotonic() < until, seen
            record = consumer.poll(1)
            if record is None or record.error():
                continue
            seen.add(str(record.topic()))
            names = {name for name, _ in record.headers() or []}
            assert not names & {TRACES, "traceparent", "tracestate"}, (record.topic(), names)
    finally:
        consumer.close()
