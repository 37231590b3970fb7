"""Source events pass a worker and an edge into a live feed. The copy built from the feed equals the inbox page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
from support.clients.feed import Copy
from support.clients.sse import Client
from support.edge.edge_on_broker import edge
from support.edge.edges import bearer
from support.kafka.pipeline import Stack, caught_up, eventually, send, worker

from schemas.topics import TOPIC_OF_TYPE
from streams.kafka import topics

EXAMPLES = Path(__file__).parents[3] / "schemas" / "examples"


def lines() -> list[dict[str, Any]]:
    """Returns one event of every type, sorted by time."""
    examples = [json.loads(path.read_bytes()) for path in EXAMPLES.glob("*.json")]
    events = [event for event in examples if isinstance(event, dict) and event.get("type") in TOPIC_OF_TYPE]
    events.sort(key=lambda event: event["time"])
    return [{"topic": TOPIC_OF_TYPE[event["type"]], "key": None, "value": event} for event in events]


async def test_the_copy_built_from_a_feed_equals_the_page(stack: Stack) -> None:
    who = ("u_maria", "OWNER", "ws_acme")
    async with stack() as settings:
        await topics.ensure_topics(settings)
        async with worker(settings), edge(settings) as base:
            client, copy = Client(base, who=who), Copy()
            await client.get(1)
            await send(settings, lines())
            async with httpx.AsyncClient(headers=bearer(*who)) as http:
                async def page() -> dict[str, Any]:
                    body = (await http.get(f"{base}/org/me/inbox?limit=500")).json()
                    return {name: body[name] for name in ("items", "counts", "activity")}

                await eventually(lambda: caught_up(settings, len(lines())), "all events are folded")
                wanted: dict[str, Any] = {}

                async def equal() -> bool:
                    """Returns whether the copy equals the page. The page follows the fold with a delay."""
                    nonlocal wanted
                    while client.frames:
                        copy.apply(client.frames.pop(0))
                    wanted = await page()
                    return bool(wanted["items"]) and {name: copy.page[name] for name in wanted} == wanted

                await eventually(equal, "the copy built from the feed equals the page")
                rows = (await http.get(f"{base}/api/v1/inbox")).json()
            assert rows["count"] >= len(wanted["items"])
            await client.close()
