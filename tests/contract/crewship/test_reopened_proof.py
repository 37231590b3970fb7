"""The item of an expiring proof reopens after a user resolved it. A timer opened the item, not an event of a source."""

from __future__ import annotations

import pytest
from support.clients.crewship import URL, get, patch
from support.edge.edge_with_fold import WS, Deciding
from support.fold.fold_driver import at, event

from streams.core.domain.keys import item_id

DAYS = 24 * 60
P = item_id(WS, "proof_expiring", "p")


def attached(minutes: float, expires: float, **data: object) -> object:
    return event("proof.attached", "p", minutes, case_id="c", expires_at=at(expires), **data)


@pytest.fixture
def attn() -> Deciding:
    attn = Deciding()
    attn.happen(attached(-10 * DAYS, 60))
    return attn


async def listed(client: object) -> list[str]:
    answer = await client.get("/org/me/inbox")  # type: ignore[attr-defined]
    return [item["id"] for item in answer.json()["items"]]


async def test_unread_reopens_a_resolved_proof(attn: Deciding) -> None:
    async with attn.client() as client:
        assert await listed(client) == [P]
        for _ in range(3):
            attn.now += 1
            assert (await patch(client, P, state="resolved", resolved_action="approved"))[0] == 200
            assert await listed(client) == []
            assert (await get(client, P))["state"] == "resolved"
            assert await patch(client, P, state="unread") == (200, {"id": P, "state": "unread"})
            row = await get(client, P)
            assert row["state"] == "unread", "also within the same microsecond"
            assert not {"resolved_at", "resolved_by_user_id", "resolved_action"} & set(row)
            assert await listed(client) == [P]
        assert (await patch(client, P, state="read"))[0] == 200
        assert (await get(client, P))["state"] == "read"
        attn.happen(event("message.posted", "m", title="T"))
        assert (await get(client, P))["state"] == "read", "the item stays open"


async def test_a_later_event_of_the_source_closes_a_reopened_proof(attn: Deciding) -> None:
    async with attn.client() as client:
        await patch(client, P, state="resolved")
        await patch(client, P, state="unread")
        attn.happen(event("proof.expired", "p", -5))
        assert await listed(client) == [P], "the event is older than the user's write"
        attn.happen(event("proof.expired", "p", 5))
        row = await get(client, P)
        assert (row["state"], row["resolved_action"], row["resolved_at"]) == ("resolved", "expired", at(5))


async def test_a_newer_proof_of_the_case_ends_it(attn: Deciding) -> None:
    async with attn.client() as client:
        await patch(client, P, state="resolved")
        await patch(client, P, state="unread")
        attn.happen(event("proof.attached", "q", 5, case_id="c", expires_at=at(30 * DAYS)))
        row = await get(client, P)
        assert (row["state"], row["resolved_action"]) == ("resolved", "attached")
        attn.now += 600
        assert (await patch(client, P, state="unread"))[0] == 409, "the source closed the item"
        answer = await client.patch(f"{URL}/{P}", json={"state": "unread"}, headers={"if-match": str(row["revision"])})
        assert (answer.status_code, (await get(client, P))["state"]) == (200, "unread")


async def test_a_renewal_hides_a_reopened_proof_until_it_is_about_to_expire(attn: Deciding) -> None:
    async with attn.client() as client:
        await patch(client, P, state="resolved")
        await patch(client, P, state="unread")
        attn.happen(attached(1, 3 * DAYS))
        assert await listed(client) == []
        attn.tick(2 * 86400 + 60)
        assert await listed(client) == [P]


async def test_a_proof_resolved_by_a_user_is_deleted_after_the_retention(attn: Deciding) -> None:
    async with attn.client() as client:
        await patch(client, P, state="resolved")
        attn.tick(29 * 86400)
        assert (await client.get(f"/api/v1/inbox/{P}")).status_code == 200
        attn.tick(2 * 86400)
        assert (await client.get(f"/api/v1/inbox/{P}")).status_code == 404
