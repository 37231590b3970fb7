"""Routes for load balancers and Prometheus. They need no authentication and return no user data."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from api.contract.errors import ApiError
from api.contract.responses.base import Error
from api.http.dependencies import CurrentEdge
from streams.runtime.health import exposition

__all__ = ["router"]

router = APIRouter(tags=["operations"])


@router.get("/healthz")
async def get_health() -> dict[str, str]:
    """Liveness: the process answers."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"model": Error, "description": "not ready; `error` is the reason"}})
async def get_readiness(edge: CurrentEdge) -> dict[str, str]:
    """Readiness: 200 if the view has caught up and is kept current, else 503 with the reason."""
    if reason := edge.not_ready_reason():
        raise ApiError(503, reason, {"retry-after": "1"})
    return {"status": "ready"}


@router.get("/metrics")
async def get_metrics(request: Request) -> Response:
    """Metrics in the Prometheus text format, or as OpenMetrics if the client accepts it."""
    content_type, body = exposition(",".join(request.headers.getlist("accept")))
    return Response(body, media_type=content_type)
