"""The HTTP application around an edge. It starts nothing by itself: `api.main` does, and tests need not."""

from __future__ import annotations

import time

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import metrics
from api.contract.openapi import document
from api.edge.services import Edge
from api.http.auth.cookies import SeparateCookies
from api.http.auth.tokens import Authenticator
from api.http.dependencies import HELD
from api.http.error_handlers import handle_errors
from api.http.middleware import Limited
from api.http.paths import Segments
from api.http.routes import ankra, crewship, dashboard, docs, health, history, insights, session, zero
from api.live.event_stream import DRAIN

__all__ = ["create_app"]


def create_app(edge: Edge, auth: Authenticator | None = None) -> FastAPI:
    """The routes of CONTRACT §4 on this edge. `auth` is made from the edge's settings unless it is given."""
    app = FastAPI(title="attn", openapi_url="/openapi.json", docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.edge = edge
    app.state.auth = auth if auth is not None else Authenticator(edge.settings, edge.clock)
    handle_errors(app)
    for routes in (health, session, ankra, history, insights, zero, crewship, docs, dashboard):
        app.include_router(routes.router)
    app.include_router(crewship.sockets)
    document(app)
    app.add_middleware(Limited, most=edge.settings.max_request)
    app.add_middleware(_Held)
    app.add_middleware(_Timed)
    app.add_middleware(_Heads)
    app.add_middleware(Segments)
    app.add_middleware(SeparateCookies)
    return app


class _Heads:
    """HEAD is GET without the body (RFC 9110: every server has both). A stream ends as soon as it began."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def gone() -> Message:
            return {"type": "http.disconnect"}

        async def bare(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self._app({**scope, "method": "GET"}, gone, bare)


class _Held:
    """Gives back what a request holds (api.http.dependencies) when its reader has taken the answer, or is gone."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        held = scope[HELD] = []
        try:
            await self._app(scope, receive, send)
            drain = (scope.get("extensions") or {}).get(DRAIN)
            if held and drain is not None:
                await drain()
        finally:
            for give_back in held:
                give_back()


_NOSNIFF = (b"x-content-type-options", b"nosniff")


class _Timed:
    """Measures the time to answer by route, not by path: paths hold ids. Adds `nosniff` to every answer: a browser must
    not take JSON with somebody's text in it for a page."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()

        async def timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path_format", "none")
                metrics.REQUEST_SECONDS.labels(route, message["status"]).observe(time.perf_counter() - begun)
                if _NOSNIFF not in (headers := message.get("headers", ())):
                    message = {**message, "headers": [*headers, _NOSNIFF]}
            await send(message)

        await self._app(scope, receive, timed)
