"""The HTTP application around an edge. It starts nothing by itself: `api.main` does, and tests need not."""

from __future__ import annotations

from fastapi import FastAPI

from api.contract.openapi import document
from api.edge.services import Edge
from api.http.auth.cookies import SeparateCookiesMiddleware
from api.http.auth.tokens import Authenticator
from api.http.error_handlers import handle_errors
from api.http.middleware import BodyLimitMiddleware, HeadMethodMiddleware, ReleaseMiddleware, RequestMetricsMiddleware
from api.http.paths import EncodedSegmentsMiddleware
from api.http.routes import ankra, crewship, dashboard, docs, health, history, insights, session, zero

__all__ = ["create_app"]


def create_app(edge: Edge, auth: Authenticator | None = None) -> FastAPI:
    """The routes of CONTRACT §4 on this edge. `auth` is made from the edge's settings unless it is given."""
    app = FastAPI(title="attn", openapi_url="/openapi.json", docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.edge = edge
    app.state.auth = auth if auth is not None else Authenticator(edge.settings, edge.clock)
    handle_errors(app)
    for routes in (health, session, ankra, history, insights, zero, crewship, docs, dashboard):
        app.include_router(routes.router)
    app.include_router(crewship.websocket_router)
    document(app)
    app.add_middleware(BodyLimitMiddleware, most=edge.settings.max_request)
    app.add_middleware(ReleaseMiddleware)
    app.add_middleware(RequestMetricsMiddleware)
    app.add_middleware(HeadMethodMiddleware)
    app.add_middleware(EncodedSegmentsMiddleware)
    app.add_middleware(SeparateCookiesMiddleware)
    return app
