"""Events with an ask, and requests that answer it, for edges with the real fold."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import httpx
import msgspec
import rfc8785
from support.edge.edge_with_fold import WS, Deciding
from support.fold.fold_driver import event

from schemas.log import Event
from streams.core.domain.keys import item_id

__all__ = ["APPROVAL", "W", "answer", "asking", "decide", "deciding", "digest_of", "get_item"]

W = item_id(WS, "waitpoint", "w")
APPROVAL: dict[str, Any] = {"options": [
    {"id": "ok", "does": "approve"}, {"id": "no", "does": "reject", "comment": "required"}]}


def asking(
    ask: dict[str, Any] | str | None = None, source_id: str = "w", kind: str = "waitpoint.created", **data: Any,
) -> Event:
    """Returns an event that opens an item with an ask. An `ask` passed as text keeps its digits."""
    opened = event(kind, source_id, **{"title": "T", **data})
    opened.data.ask = msgspec.Raw((ask if isinstance(ask, str) else json.dumps(ask or {})).encode())
    return opened


async def get_item(client: httpx.AsyncClient, item: str = W) -> Any:
    return (await client.get(f"/api/v1/inbox/{item}")).json()


def digest_of(item: dict[str, Any]) -> str:
    """Computes the digest from the JSON of an item, with another implementation of RFC 8785 than attn's."""
    return hashlib.sha256(rfc8785.dumps({
        "workspace": item["workspace_id"], "source": item["source"], "subject": item["source_id"],
        "title": item["title"], "body": item.get("body_md"), "ask": item["ask"],
    })).hexdigest()


async def decide(
    client: httpx.AsyncClient, option: str = "ok", item: str = W, headers: dict[str, str] | None = None, **body: Any,
) -> tuple[int, Any]:
    """Answers a question. Default of `digest`: that of the item's current question."""
    digest = body.pop("digest", None) or (await get_item(client, item)).get("digest", "none")
    return await answer(client.post(
        f"/api/v1/inbox/{item}/decision", json={"option": option, "digest": digest, **body}, headers=headers))


async def answer(request: Any) -> tuple[int, Any]:
    """Returns status and parsed body of a response."""
    response = await request
    return response.status_code, response.json()


def deciding(*events: Event, **settings: Any) -> Deciding:
    """Returns an edge with the fold, to which these events have been applied."""
    attn = Deciding(**{"write_rate": 1e6, "write_burst": 10**6, **settings})
    attn.happen(*(events or (asking(APPROVAL),)))
    return attn
