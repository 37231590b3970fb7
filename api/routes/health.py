"""For load balancers and Prometheus: no caller needed, and nothing about anybody told."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api.deps import EdgeOf
from api.errors import Problem

__all__ = ["router"]

router = APIRouter(tags=["operations"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process is up."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(edge: EdgeOf) -> dict[str, str]:
    """The view has caught up: what is asked for is answered from now on."""
    if not edge.ready:
        raise Problem(503, "the view has not caught up yet", {"retry-after": "1"})
    return {"status": "ready"}


@router.get("/metrics")
async def metrics() -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
