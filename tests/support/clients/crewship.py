"""Client of Crewship's routes."""

from __future__ import annotations

from typing import Any

import httpx
from support.edge.edge_with_fold import WS, Deciding, message, waitpoint

from streams.core.domain.keys import item_id

M, W = item_id(WS, "message", "m"), item_id(WS, "waitpoint", "w")
URL = "/api/v1/inbox"
MANAGED = ("use the source endpoint for this kind (e.g. /pipelines/waitpoints/{token}/approve) — inbox PATCH only "
           "supports 'read' for source-managed items")
ALWAYS = {"id", "workspace_id", "kind", "source_id", "title", "state", "priority", "blocking", "created_at",
          "updated_at"}
STATE_ERROR = (400, {"error": "state must be unread|read|resolved"})


def filled() -> Deciding:
    """Returns an edge with a message and a waitpoint, an hour old."""
    attn = Deciding()
    attn.happen(message("m", minutes=-60), waitpoint("w", minutes=-60))
    return attn


async def rows(client: httpx.AsyncClient, **params: Any) -> list[dict[str, Any]]:
    answer = await client.get(URL, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()["rows"]  # type: ignore[no-any-return]


async def sources(client: httpx.AsyncClient, **params: Any) -> list[str]:
    """Returns the source ids of the rows."""
    return [row["source_id"] for row in await rows(client, **params)]


async def patch(client: httpx.AsyncClient, item: str, **body: Any) -> tuple[int, Any]:
    answer = await client.patch(f"{URL}/{item}", json=body)
    return answer.status_code, answer.json()


async def bulk(client: httpx.AsyncClient, **body: Any) -> tuple[int, Any]:
    answer = await client.post(f"{URL}/bulk", json=body)
    return answer.status_code, answer.json()


async def get(client: httpx.AsyncClient, item: str) -> Any:
    return (await client.get(f"{URL}/{item}")).json()
