"""Ankra's rules A13-A18 (seeds/ankra.md): dismissing, snoozing, drafts and preferences of one user."""

from __future__ import annotations

from typing import Any

import pytest
from support.clients.ankra import URL, M, filled, listed
from support.edge.edge_with_fold import Deciding, message
from support.fold.fold_driver import at, event


@pytest.fixture
def attn() -> Deciding:
    return filled()


async def test_a13_a_dismissal_applies_to_its_user_only(attn: Deciding) -> None:
    async with attn.client("ann") as client, attn.client("bob") as other:
        answer = await client.post(URL)
        assert (answer.status_code, answer.json()) == (200, {"id": M, "dismissed": True})
        assert await listed(client) == ["n"]
        assert await listed(client, dismissed="true") == ["m"]
        assert sorted(await listed(other)) == ["m", "n"]
        answer = await client.delete(URL)
        assert (answer.status_code, answer.json()) == (200, {"id": M, "dismissed": False})
        assert sorted(await listed(client)) == ["m", "n"]
        assert (await client.delete(URL)).status_code == 200, "a repeated restore is no error"


async def test_a14_a_snooze_ends_on_every_edge(attn: Deciding) -> None:
    async with attn.client("ann") as client, attn.client("ann", edge=1) as second:
        answer = await client.post(URL, json={"dismissed_until": at(30)})
        assert answer.json() == {"id": M, "dismissed": True, "dismissed_until": at(30)}
        assert await listed(client) == await listed(second) == ["n"]
        away = (await second.get("/org/me/inbox?dismissed=true")).json()["items"]
        assert [item["dismissed_until"] for item in away] == [at(30)]
        attn.tick(30 * 60)
        assert sorted(await listed(client)) == sorted(await listed(second)) == ["m", "n"]


@pytest.mark.parametrize("until", [at(-1), at(0), "tomorrow", "2030-01-01T00:00:00", 5, "", True])
async def test_a13_a_time_that_is_past_or_unreadable(attn: Deciding, until: Any) -> None:
    async with attn.client() as client:
        answer = await client.post(URL, json={"dismissed_until": until})
        assert answer.status_code == 400
        assert "dismissed_until" in answer.json()["error"]
        unknown = await client.post(URL, json={"until": at(30)})
        assert unknown.status_code == 400
        assert "until" in unknown.json()["error"]
    assert len(attn.log) == 1


async def test_a_dismissed_item_returns_when_it_is_raised_or_opens_again(attn: Deciding) -> None:
    async with attn.client("ann") as client:
        await client.post(URL)
        attn.happen(message("m", minutes=-30, priority="urgent"))
        assert await listed(client) == ["m", "n"]
        await client.post(URL)
        await client.patch(f"/api/v1/inbox/{M}", json={"state": "resolved"})
        assert await listed(client) == ["n"]
        await client.patch(f"/api/v1/inbox/{M}", json={"state": "unread"})
        assert await listed(client) == ["m", "n"]


async def test_an_invisible_item_cannot_be_dismissed(attn: Deciding) -> None:
    async with attn.client("bob", ws="other") as client:
        for call in (client.post, client.delete):
            answer = await call(URL)
            assert (answer.status_code, answer.json()) == (404, {"error": "not found"})


async def test_dismiss_takes_a_revision(attn: Deciding) -> None:
    async with attn.client() as client:
        row = (await client.get(f"/api/v1/inbox/{M}")).json()
        await client.patch(f"/api/v1/inbox/{M}", json={"state": "read"})
        stale = await client.post(URL, headers={"if-match": f'"{row["revision"]}"'})
        assert stale.status_code == 412
        assert (stale.json()["item"]["id"], stale.json()["item"]["state"]) == (M, "read")


async def test_a17_preferences(attn: Deciding) -> None:
    async with attn.client("ann") as client, attn.client("bob") as other:
        response = await client.patch("/org/me/preferences", json={"pinned_clusters": ["c2", "c1", "c2"]})
        assert (response.status_code, response.json()) == (200, {"pinned_clusters": ["c2", "c1"], "widgets": []})
        widgets = [{"id": "drafts", "visible": True}, {"id": "momentum", "visible": False}]
        response = await client.patch("/org/me/preferences", json={"widgets": widgets})
        assert response.json() == {"pinned_clusters": ["c2", "c1"], "widgets": widgets}
        assert (await client.get("/org/me/preferences")).json() == response.json()
        assert await listed(client) == ["n", "m"], "items of a pinned cluster come first"
        first = (await client.get("/org/me/inbox")).json()["items"][0]
        assert "pinned" in first["rank_reasons"]
        assert (await other.get("/org/me/preferences")).json() == {"pinned_clusters": [], "widgets": []}
        assert (await client.patch("/org/me/preferences", json={})).json() == response.json()


@pytest.mark.parametrize("body", [
    {"pinned": []}, {"pinned_clusters": "c1"}, {"pinned_clusters": [1]}, {"pinned_clusters": None},
    {"pinned_clusters": [""]}, {"widgets": [{"id": "x"}]}, {"widgets": [{"id": "x", "visible": "yes"}]},
    {"widgets": [{"id": "x", "visible": True, "size": 3}]}, {"widgets": {}}, [], "x", {"pinned_clusters": ["c"] * 201},
])
async def test_a17_unknown_keys_and_wrong_shapes(attn: Deciding, body: Any) -> None:
    async with attn.client() as client:
        answer = await client.patch("/org/me/preferences", json=body)
        assert answer.status_code == 400
        assert answer.json()["error"]
    assert len(attn.log) == 1


async def test_a14_a_snoozed_item_returns_by_itself(attn: Deciding) -> None:
    async with attn.client("ann") as client:
        await client.post(URL, json={"dismissed_until": at(30)})
        attn.tick(29 * 60)
        assert await listed(client) == ["n"]
        attn.tick(60)
        assert sorted(await listed(client)) == ["m", "n"]
        assert await listed(client, dismissed="true") == []


async def test_a15_an_item_is_restored_at_any_time(attn: Deciding) -> None:
    async with attn.client("ann") as client:
        for body in (None, {"dismissed_until": at(30)}):
            await client.post(URL, json=body)
            assert await listed(client) == ["n"]
            answer = await client.delete(URL)
            assert (answer.status_code, answer.json()) == (200, {"id": M, "dismissed": False})
            assert sorted(await listed(client)) == ["m", "n"]


async def test_a16_recent_drafts() -> None:
    attn = Deciding()
    ai, ann = {"type": "ai", "id": "ag", "name": "Planner"}, {"type": "user", "id": "ann", "name": "Ann"}
    attn.happen(
        event("draft.edited", "d1", minutes=-30, title="One", cluster="c", stack="s", editor=ann),
        event("draft.edited", "d1", minutes=-20, title="One", editor=ai),
        event("draft.edited", "d2", minutes=-10, title="Two", editor=ann),
        event("draft.edited", "d3", minutes=-5, title="Three", editor={"type": "user", "id": "bob"}),
        event("draft.edited", "d4", minutes=-9, title="Four", editor=ann), event("draft.committed", "d4", minutes=-1))
    async with attn.client("ann") as client:
        assert (await client.get("/org/me/recent-drafts")).json() == {"drafts": [
            {"draft_id": "d2", "title": "Two", "last_touched_at": at(-10), "has_ai_edits": False, "co_editors": []},
            {"draft_id": "d1", "title": "One", "cluster": "c", "stack": "s", "last_touched_at": at(-20),
             "has_ai_edits": True, "co_editors": [ai]},
        ]}


async def test_a18_pins_stay_on_top_and_widgets_keep_their_order(attn: Deciding) -> None:
    attn.happen(message("u", priority="urgent", cluster="c9"), message("p", cluster="c2"))
    async with attn.client("ann") as client:
        assert (await listed(client))[-1] == "p"
        layout = [{"id": "momentum", "visible": False}, {"id": "drafts", "visible": True}]
        await client.patch("/org/me/preferences", json={"pinned_clusters": ["c2"], "widgets": layout})
        assert await listed(client) == ["u", "n", "p", "m"], "pins reorder within band and blocking"
        await client.patch("/org/me/preferences", json={"widgets": layout[::-1]})
        assert (await client.get("/org/me/preferences")).json() == {
            "pinned_clusters": ["c2"], "widgets": layout[::-1]}
        twice = [*layout, {"id": "momentum", "visible": True}]
        response = await client.patch("/org/me/preferences", json={"widgets": twice})
        assert response.json()["widgets"] == layout, "a repeated widget counts once, at its first position"


async def test_a_single_item_equals_its_entry_in_the_list(attn: Deciding) -> None:
    async with attn.client("ann") as client, attn.client("bob", ws="other") as stranger:
        url = f"/org/me/inbox/{M}"
        listed_as = {item["id"]: item for item in (await client.get("/org/me/inbox")).json()["items"]}
        assert (await client.get(url)).json() == listed_as[M]
        await client.post(URL, json={"dismissed_until": at(30)})
        [away] = (await client.get("/org/me/inbox?dismissed=true")).json()["items"]
        assert (await client.get(url)).json() == away
        await client.patch(f"/api/v1/inbox/{M}", json={"state": "resolved"})
        over = (await client.get(url)).json()
        assert (over["state"], over["resolved_by_user_id"]) == ("resolved", "ann")
        for caller, item in ((stranger, M), (client, "ibx_none")):
            answer = await caller.get(f"/org/me/inbox/{item}")
            assert (answer.status_code, answer.json()) == (404, {"error": "not found"})


async def test_a_run_of_an_incident_can_be_read_as_a_single_item(attn: Deciding) -> None:
    attn.happen(*(event("run.failed", f"r{name}", minutes=-5, title="T", pipeline="p", step="s", cluster=name)
                  for name in ("c1", "c2")))
    async with attn.client("ann") as client:
        await client.patch("/org/me/preferences", json={"pinned_clusters": ["c1"]})
        items = (await client.get("/org/me/inbox")).json()["items"]
        [incident] = [item for item in items if item["kind"] == "incident"]
        runs = [(await client.get(f"/org/me/inbox/{run}")).json() for run in incident["members"]]
        assert sorted((run["kind"], run["cluster"], "pinned" in run["rank_reasons"]) for run in runs) == [
            ("failed_run", "c1", True), ("failed_run", "c2", False)]
        assert (await client.get(f"/org/me/inbox/{incident['id']}")).json() == incident
