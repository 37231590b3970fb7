"""For load balancers and Prometheus: no caller needed, and nothing about anybody told."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api.contract.errors import ApiError as Problem
from api.contract.responses import Error
from api.http.dependencies import EdgeOf

__all__ = ["router"]

router = APIRouter(tags=["operations"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process is up."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"model": Error, "description": "not now, and why"}})
async def readyz(edge: EdgeOf) -> dict[str, str]:
    """The view has caught up and is kept so. If not, the reason."""
    if reason := edge.unready():
        raise Problem(503, reason, {"retry-after": "1"})
    return {"status": "ready"}


@router.get("/metrics")
async def metrics() -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
