"""The stop of a process whose collector of traces hangs."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from streams.tracing.context import TraceLink
from streams.tracing.tracer import Tracer


def test_a_collector_that_hangs_does_not_keep_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, never answers
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        tracer = Tracer.from_environment("worker", "i")
        span = tracer.begin("x", tracer.consumer, TraceLink("00-" + "1" * 32 + "-" + "2" * 16 + "-01"))
        assert span is not None
        span.end()
        closing = threading.Thread(target=tracer.close, daemon=True)
        began = time.monotonic()
        closing.start()
        closing.join(20.0)  # the SDK alone waits for 30 s
        assert not closing.is_alive(), time.monotonic() - began
