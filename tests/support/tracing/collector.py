"""A receiver of OTLP over HTTP in this process. It decodes with the protobuf classes of OpenTelemetry.

It takes the place of the OpenTelemetry Collector, which is a Go program of some hundred modules.
"""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

__all__ = ["Collector", "ReceivedSpan", "collector"]


@dataclass(frozen=True)
class ReceivedSpan:
    """One span. Ids in hexadecimal; `parent`: "" of a root; times in nanoseconds since the epoch."""

    service: str
    name: str
    kind: int
    trace: str
    id: str
    parent: str
    start: int
    end: int
    attributes: dict[str, Any]
    state: str


class Collector:
    """`answer`: the status of each answer; None: it never answers, until `close`."""

    def __init__(self) -> None:
        self.answer: int | None = 200
        self.spans: list[ReceivedSpan] = []
        self.requests = 0
        self.closed = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def trace(self, trace: str) -> dict[str, ReceivedSpan]:
        """Returns the spans of a trace by id, in the order of their arrival."""
        return {span.id: span for span in list(self.spans) if span.trace == trace}

    def close(self) -> None:
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        this = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                this.requests += 1
                if this.answer is None:
                    this.closed.wait()
                    return
                if this.answer == 200:
                    assert self.path == "/v1/traces"
                    raw = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
                    this.spans += _decoded(raw)
                self.send_response(this.answer)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *arguments: Any) -> None: ...

        return Handler


def _decoded(raw: bytes) -> Iterator[ReceivedSpan]:
    for group in ExportTraceServiceRequest.FromString(raw).resource_spans:
        resource = {each.key: each.value.string_value for each in group.resource.attributes}
        for scope in group.scope_spans:
            for span in scope.spans:
                yield ReceivedSpan(
                    resource["service.name"], span.name, span.kind, span.trace_id.hex(), span.span_id.hex(),
                    span.parent_span_id.hex(), span.start_time_unix_nano, span.end_time_unix_nano,
                    {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes},
                    span.trace_state)


@contextmanager
def collector() -> Iterator[Collector]:
    """Runs a collector on loopback while the block runs."""
    one = Collector()
    try:
        yield one
    finally:
        one.close()
