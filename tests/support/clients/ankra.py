"""Client of Ankra's routes."""

from __future__ import annotations

from typing import Any

import httpx
from support.edge.edge_with_fold import WS, Deciding, message

from streams.core.domain.keys import item_id

M = item_id(WS, "message", "m")
URL = f"/org/me/inbox/{M}/dismiss"


def filled() -> Deciding:
    """Returns two edges with two messages, an hour old."""
    attn = Deciding(edges=2)
    attn.happen(message("m", minutes=-60), message("n", minutes=-60, cluster="c2"))
    return attn


async def inbox(client: httpx.AsyncClient, **params: Any) -> Any:
    answer = await client.get("/org/me/inbox", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def listed(client: httpx.AsyncClient, **params: Any) -> list[str]:
    """Returns the source ids of the listed items."""
    page = await inbox(client, **params)
    assert page["counts"]["total"] == len(page["items"]) or params
    return [item["source_id"] for item in page["items"]]


async def item_of(attn: Deciding, kind: str) -> dict[str, Any]:
    """Returns the only open item of a kind."""
    async with attn.client() as client:
        [item] = (await inbox(client, kind=kind))["items"]
        return item  # type: ignore[no-any-return]
