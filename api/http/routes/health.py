"""For load balancers and Prometheus: no caller needed, and nothing about anybody told."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api.contract.errors import ApiError
from api.contract.responses import Error
from api.http.dependencies import CurrentEdge

__all__ = ["router"]

router = APIRouter(tags=["operations"])


@router.get("/healthz")
async def get_health() -> dict[str, str]:
    """The process is up."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"model": Error, "description": "not now, and why"}})
async def get_readiness(edge: CurrentEdge) -> dict[str, str]:
    """The view has caught up and is kept so. If not, the reason."""
    if reason := edge.not_ready_reason():
        raise ApiError(503, reason, {"retry-after": "1"})
    return {"status": "ready"}


@router.get("/metrics")
async def get_metrics() -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
