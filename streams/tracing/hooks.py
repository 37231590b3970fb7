"""Switch of OpenTelemetry traces (ATTN_TRACES): `active` is the process's tracer, or None while traces are off.

Hot paths test `active` and do nothing else while it is None. This module imports no module of OpenTelemetry; `start`
does. Traces never decide anything: the stream is the same with and without them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.settings import Settings
from streams.tracing.context import TraceLink, link_of_attributes, trace_headers
from streams.tracing.errors import EXTRA_MISSING, TracesUnavailable

if TYPE_CHECKING:
    from streams.tracing.tracer import Tracer

__all__ = ["active", "current_link", "exemplar", "source_headers", "start", "stop"]

active: Tracer | None = None


def start(settings: Settings, process: str) -> None:
    """Starts traces if ATTN_TRACES is set. `process`: `worker`, `edge`, `deliver` or `connect`.

    Raises TracesUnavailable if the extra is not installed or a variable OTEL_* asks for what attn does not support.
    """
    global active
    if not settings.traces or active is not None:
        return
    try:
        from streams.tracing.tracer import Tracer
    except ImportError:
        raise TracesUnavailable(EXTRA_MISSING) from None
    active = Tracer.from_environment(process, settings.instance)


def stop() -> None:
    """Sends the spans that wait, for at most 1 s, and switches traces off."""
    global active
    tracer, active = active, None
    if tracer is not None:
        tracer.close()


def current_link() -> TraceLink | None:
    """Returns the context of the request that the caller handles; None while traces are off."""
    return None if active is None else active.current_link()


def exemplar() -> dict[str, str] | None:
    """Returns the exemplar of the request that the caller handles; None while traces are off."""
    return None if active is None else active.current_exemplar()


def source_headers(value: bytes) -> list[tuple[str, bytes]]:
    """Returns the trace headers for a source record that the caller's request sends.

    Returns none while traces are off, and none for an event with a context of its own, unless the request has one.
    """
    if active is None or (link := active.current_link()) is None:
        return []
    return trace_headers(link) if active.request_is_continued() or link_of_attributes(value) is None else []
