"""Rules of writes that CONTRACT adds to the seeds: revisions, races, idempotency keys, timeouts, rate limits."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from support.edge.edge_with_fold import Deciding, message

from streams.core.domain.keys import item_id
from streams.core.packs import PackRecord

M = item_id("ws", "message", "m")


@pytest.fixture
def attn() -> Deciding:
    deciding = Deciding()
    deciding.happen(message("m", minutes=-60))
    return deciding


async def patch(client: httpx.AsyncClient, item: str, **body: Any) -> tuple[int, Any]:
    answer = await client.patch(f"/api/v1/inbox/{item}", json=body)
    return answer.status_code, answer.json()


async def get(client: httpx.AsyncClient, item: str) -> Any:
    return (await client.get(f"/api/v1/inbox/{item}")).json()


async def test_if_match_is_the_items_revision(attn: Deciding) -> None:
    async with attn.client() as client:
        old = await get(client, M)
        url = f"/api/v1/inbox/{M}"
        fresh = {"if-match": f'"{old["revision"]}"'}
        assert (await client.patch(url, json={"state": "read"}, headers=fresh)).status_code == 200
        stale = await client.patch(url, json={"state": "resolved"}, headers=fresh)
        now = await get(client, M)
        assert stale.status_code == 412
        assert stale.json() == {"error": "the item has changed", "revision": now["revision"], "item": now}
        assert (await client.patch(url, json={"state": "read"}, headers={"if-match": "*"})).status_code == 200
        assert (await client.patch(url, json={"state": "read"}, headers={"if-match": "abc"})).status_code == 400


async def test_a_race_lost_in_the_fold_has_the_right_status(attn: Deciding) -> None:
    """The edge's replica is behind the log, so the fold decides."""
    async with attn.client() as client:
        old = (await get(client, M))["revision"]
        hand = attn.edges[0].command_log

        async def behind(pack: PackRecord) -> None:
            attn.happen(message("m", minutes=-1, priority="urgent"))
            await attn._append(pack)

        hand.append = behind
        url = f"/api/v1/inbox/{M}"
        late = await client.patch(url, json={"state": "read"}, headers={"if-match": f'"{old}"'})
        assert (late.status_code, late.json()["item"]["priority"]) == (412, "urgent")


async def test_the_same_key_has_the_same_outcome_for_a_day(attn: Deciding) -> None:
    url, key = f"/api/v1/inbox/{M}", {"idempotency-key": "k1"}
    async with attn.client() as client, attn.client("bob") as other:
        first = await client.patch(url, json={"state": "resolved"}, headers=key)
        facts = len(attn.facts)
        await client.patch(url, json={"state": "unread"})
        again = await client.patch(url, json={"state": "resolved"}, headers=key)
        assert (again.status_code, again.content) == (first.status_code, first.content) == (200, first.content)
        assert (await get(client, M))["state"] == "unread", "the repeat was not applied"
        assert len(attn.facts) == facts + 3, "the write has a fact and an outcome, the repeat only an outcome"
        clash = await client.patch(url, json={"state": "read"}, headers=key)
        assert (clash.status_code, clash.json()) == (
            422, {"error": "this Idempotency-Key was used for another request"})
        assert (await other.patch(url, json={"state": "read"}, headers=key)).status_code == 200, "a key counts per user"
        attn.tick(86_400)
        assert (await client.patch(url, json={"state": "resolved"}, headers=key)).status_code == 200
        assert (await get(client, M))["state"] == "resolved", "after a day the request is a new one"


async def test_a_write_without_an_outcome_in_time_is_503_and_applies_once() -> None:
    attn = Deciding(write_seconds=0.05)
    attn.happen(message("m"))
    attn.held = True
    url, key = f"/api/v1/inbox/{M}", {"idempotency-key": "k"}
    async with attn.client() as client:
        late = await client.patch(url, json={"state": "resolved"}, headers=key)
        assert (late.status_code, late.headers["retry-after"]) == (503, "1")
        attn.held = False
        async with asyncio.timeout(60):
            while (again := await client.patch(url, json={"state": "resolved"}, headers=key)).status_code == 503:
                pass  # the outcome took longer than the timeout of 50 ms
        assert (again.status_code, again.json()) == (200, {"id": M, "state": "resolved"})
        done = [fact for fact in attn.facts if getattr(fact, "type", "") == "item.resolved"]
        assert len(done) == 1


async def test_writes_of_one_user_are_limited() -> None:
    attn = Deciding(write_rate=0.5, write_burst=3)
    attn.happen(message("m"))
    async with attn.client() as client, attn.client("bob") as other:
        statuses = [(await patch(client, M, state="read"))[0] for _ in range(4)]
        assert statuses == [200, 200, 200, 429]
        refused = await client.patch(f"/api/v1/inbox/{M}", json={"state": "read"})
        assert (refused.headers["retry-after"], refused.json()["limit"]) == ("2", 3)
        assert (await patch(other, M, state="read"))[0] == 200
        assert (await client.get("/api/v1/inbox")).status_code == 200
