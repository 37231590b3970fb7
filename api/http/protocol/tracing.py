"""ASGI middleware: one server span per HTTP request, until the response starts. Installed only while traces are on.

The middleware continues the context of the headers `traceparent` and `tracestate`. The span of a stream ends with its
first byte. Attributes are the route, the method and the status: paths have ids of users' items, and queries may have
tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streams.tracing.context import Headers, link_of_headers

if TYPE_CHECKING:
    from streams.tracing.tracer import Span, Tracer

__all__ = ["TracingMiddleware"]

_UNTRACED = frozenset({"/healthz", "/readyz", "/metrics"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class TracingMiddleware:
    """Begins the span, and makes it the parent of what the request writes to Kafka."""

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        self._app, self._tracer = app, tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _UNTRACED:
            await self._app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        span = self._tracer.begin(method, self._tracer.server, link_of_headers(_as_text(scope["headers"])))
        if span is None:
            await self._app(scope, receive, send)
            return

        async def send_and_end(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.start":
                _end(self._tracer, span, method, scope, message["status"])

        try:
            with self._tracer.current(span):
                await self._app(scope, receive, send_and_end)
        finally:
            if span.is_recording():  # without a response: the client has disconnected, or the application failed
                self._tracer.fail(span)
                span.end()


def _end(tracer: Tracer, span: Span, method: str, scope: Scope, status: int) -> None:
    route = getattr(scope.get("route"), "path_format", None)
    span.set_attributes({"http.request.method": method, "http.response.status_code": status, "url.scheme": "http"})
    if route is not None:
        span.update_name(f"{method} {route}")
        span.set_attribute("http.route", route)
    if status >= 500:
        tracer.fail(span)
    span.end()


def _as_text(headers: list[tuple[bytes, bytes]]) -> Headers:
    return [(name.decode("latin-1"), raw) for name, raw in headers if name in (b"traceparent", b"tracestate")]
