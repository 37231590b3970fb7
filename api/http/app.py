"""Builds the FastAPI application of an edge: routers, middleware, error handlers. It starts no task and no server."""

from __future__ import annotations

from functools import cache

from fastapi import APIRouter, FastAPI
from starlette.routing import BaseRoute

from api.contract.openapi import install_openapi
from api.edge.services import Edge
from api.http.auth.cookies import SeparateCookiesMiddleware
from api.http.auth.oidc.sign_in import SignIn
from api.http.auth.sessions import EdgeSessions
from api.http.auth.terminals import Terminals
from api.http.auth.tokens import Authenticator
from api.http.decisions import routes as decisions
from api.http.error_handlers import add_error_handlers
from api.http.middleware import BodyLimitMiddleware, HeadMethodMiddleware, ReleaseMiddleware, RequestMetricsMiddleware
from api.http.paths import EncodedSegmentsMiddleware
from api.http.protocol.tracing import TracingMiddleware
from api.http.routes import (
    ankra,
    crewship,
    dashboard,
    docs,
    health,
    history,
    insights,
    receipts,
    session,
    zero,
)
from api.http.routes.access import logout, oidc, sessions, terminals
from api.http.sources import events, hooks, keys
from streams.tracing import hooks as traces

__all__ = ["create_app"]


def create_app(edge: Edge, auth: Authenticator | None = None) -> FastAPI:
    """Returns the application with the routes of CONTRACT §4 on this edge. `auth` defaults to an `Authenticator` with
    the settings and the clock of the edge.

    Middleware that is added last runs first. Raises ValueError if a setting of sign-in is invalid.
    """
    app = FastAPI(title="attn", openapi_url="/openapi.json", docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.edge = edge
    app.state.auth = auth if auth is not None else Authenticator(edge.settings, edge.clock)
    app.state.auth.attach(EdgeSessions(edge))
    app.state.sign_in = SignIn(edge.settings, edge.clock) if edge.settings.oidc_issuer is not None else None
    app.state.terminals = Terminals(edge)
    add_error_handlers(app)
    app.router.routes.extend(_routes())
    install_openapi(app)
    app.add_middleware(BodyLimitMiddleware, max_bytes=edge.settings.max_request, larger={
        events.PATH: edge.settings.max_event_request, hooks.FOLDER: edge.settings.max_event_request})
    app.add_middleware(ReleaseMiddleware)
    app.add_middleware(RequestMetricsMiddleware)
    if traces.active is not None:
        app.add_middleware(TracingMiddleware, tracer=traces.active)
    app.add_middleware(HeadMethodMiddleware)
    app.add_middleware(EncodedSegmentsMiddleware)
    app.add_middleware(SeparateCookiesMiddleware)
    return app


@cache
def _routes() -> list[BaseRoute]:
    """Returns the routes of every application of this process. FastAPI needs 40 ms of CPU to prepare them for requests,
    which tests with an edge each would spend each time.
    """
    every = APIRouter(redirect_slashes=False)
    for routes in (
        health, session, sessions, oidc, logout, terminals, ankra, events, hooks, keys, history, insights, receipts,
        decisions, zero, crewship, docs, dashboard,
    ):
        every.include_router(routes.router)
    every.include_router(crewship.websocket_router)
    return every.routes
