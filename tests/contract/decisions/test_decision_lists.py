"""Lists of decisions and decided items over HTTP, and the feed when a decision is made or comes back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.clients.feed import Copy, frames
from support.edge.asking import APPROVAL, W, answer, asking, decide, deciding, get_item
from support.edge.edge_with_fold import Deciding, message
from support.edge.sinks import Kept
from support.fold.fold_driver import event

from api.contract.responses.decisions import Decisions
from api.readmodel.readers import Reader
from schemas.log import Report
from streams.core.domain.keys import item_id

URL = "/org/me/decisions"


def names(*ids: str) -> list[str]:
    return [item_id("ws", "waitpoint", name) for name in ids]


def report(attn: Deciding, decision: str, state: str, reason: str | None = None) -> None:
    attn.happen(Report(ws="ws", id=f"{decision}.{state}", time=int(attn.now * 1e6), decision=decision, state=state,
                       reason=reason))  # type: ignore[arg-type]


async def test_own_decisions_are_listed_newest_first_with_their_state() -> None:
    attn = deciding(asking(APPROVAL, "a", cluster="c1"), asking(APPROVAL, "b"), asking(APPROVAL, "c"))
    async with attn.client("ann", name="Ann") as client:
        made = []
        for number, item in enumerate(names("a", "b", "c")):
            attn.tick(1)
            _, body = await decide(client, "ok" if number else "no", item, comment=f"because {number}")
            made.append(body["decision"]["id"])
        attn.tick(6)
        report(attn, made[1], "refused", "no such deploy")
        attn.happen(event("waitpoint.approved", "c", 20))
        page = (await client.get(URL)).json()
        Decisions.model_validate_json(json.dumps(page))
        assert [(row["id"], row["state"]) for row in page["decisions"]] == [
            (made[2], "applied"), (made[1], "refused"), (made[0], "sending")]
        assert (page["decisions"][1]["reason"], page["decisions"][1]["returned"]) == ("no such deploy", "refused")
        last = page["decisions"][2]
        item = await get_item(client, names("a")[0])
        assert (last["item"], last["source"], last["source_id"], last["cluster"]) == (item["id"], "/test", "a", "c1")
        assert last["question"] == {"id": "a", "digest": item["digest"]}
        assert (last["option"], last["does"], last["comment"]) == ("no", "reject", "because 0")
        assert last["actors"] == item["decision"]["actors"]
        assert last["at"] == item["decision"]["at"]
        for state, expected in (("applied", [made[2]]), ("sending", [made[0]]), ("taken_back", [])):
            filtered = (await client.get(URL, params={"state": state})).json()
            assert [row["id"] for row in filtered["decisions"]] == expected


async def test_pages_of_decisions_follow_by_token() -> None:
    attn = deciding(*(asking(APPROVAL, f"n{number}") for number in range(7)))
    async with attn.client("ann") as client:
        for number in range(7):
            attn.tick(1)
            await decide(client, item=names(f"n{number}")[0])
        whole = (await client.get(URL)).json()["decisions"]
        assert len(whole) == 7
        listed, token = [], None
        while True:
            page = (await client.get(URL, params={"limit": 3, **({"next": token} if token else {})})).json()
            listed += page["decisions"]
            if "next" not in page:
                break
            token = page["next"]
        assert listed == whole
        for params in ({"next": "!"}, {"next": ""}, {"next": "AAAA"}, {"limit": 0}, {"state": "done"}, {"state": ""}):
            status, body = await answer(client.get(URL, params=params))
            assert (status, set(body)) == (400, {"error"}), params


async def test_a_decision_is_visible_to_its_deciders_and_to_readers_of_its_item() -> None:
    attn = deciding(asking(APPROVAL, "o", target_role="OWNER"), asking(APPROVAL, "all"))
    async with attn.client("ann", "OWNER") as ann, attn.client("bob", "MEMBER") as bob:
        await decide(ann, item=names("o")[0])
        attn.tick(1)
        await decide(bob, item=names("all")[0])
        attn.happen(asking(APPROVAL, "all", minutes=1, target_role="OWNER", title="T"))

        async def items_of(client: Any) -> list[str]:
            return [row["source_id"] for row in (await client.get(URL)).json()["decisions"]]

        assert await items_of(ann) == ["all", "o"]
        assert await items_of(bob) == ["all"], "the item is for another role now, but bob made a decision about it"
        async with attn.client("cyd", "MEMBER") as cyd, attn.client("ann", "OWNER", ws="other") as stranger:
            assert await items_of(cyd) == []
            assert await items_of(stranger) == []


async def test_decided_items_are_listed_by_state_and_not_counted() -> None:
    attn = deciding(asking(APPROVAL), message("m"))
    async with attn.client("ann") as client:
        await decide(client)

        async def listed(state: str) -> list[str]:
            rows = (await client.get("/api/v1/inbox", params={"state": state})).json()["rows"]
            return sorted(row["kind"] for row in rows)

        assert await listed("decided") == ["waitpoint"]
        assert await listed("active") == ["message"]
        assert await listed("resolved") == []
        assert await listed("all") == ["message", "waitpoint"]
        assert (await client.get("/api/v1/inbox/count")).json() == {"unread_count": 1}
        assert (await client.get("/inbox")).json()["count"] == 1, "Zero's dialect lists open items"
        attn.happen(event("waitpoint.approved", "w", 5))
        assert await listed("decided") == []
        assert await listed("resolved") == ["waitpoint"]


@pytest.mark.parametrize("state", ["read", "unread", "resolved"])
async def test_a_decided_item_is_not_changed_by_users(state: str) -> None:
    """Only its source closes it (409). `read` sets `read_at` only, as on a resolved item."""
    attn = deciding(asking(APPROVAL))
    async with attn.client("ann") as client:
        await decide(client)
        status, body = await answer(client.patch(f"/api/v1/inbox/{W}", json={"state": state}))
        item = await get_item(client)
        assert item["state"] == "decided"
        if state == "read":
            assert (status, "read_at" in item) == (200, True)
        else:
            assert (status, "/pipelines/waitpoints/{token}/approve" in body["error"]) == (409, True)


@pytest.mark.parametrize("state", ["unread", "resolved"])
async def test_users_close_and_reopen_no_decided_item_of_any_kind(state: str) -> None:
    attn = deciding(asking(APPROVAL, "m", kind="message.posted"))
    m = item_id("ws", "message", "m")
    async with attn.client("ann") as client:
        await decide(client, item=m)
        status, body = await answer(client.patch(f"/api/v1/inbox/{m}", json={"state": state}))
        assert (status, "DELETE /api/v1/inbox/{id}/decision" in body["error"]) == (409, True)
        _, bulk = await answer(client.post("/api/v1/inbox/bulk", json={"ids": [m], "state": state}))
        assert bulk["skipped_ids"] == [m]
        assert (await get_item(client, m))["state"] == "decided"


async def test_dismissing_a_decided_item_is_personal_and_a_return_is_seen_by_others() -> None:
    attn = deciding(asking(APPROVAL))
    async with attn.client("ann") as ann, attn.client("bob") as bob:
        _, made = await decide(ann)
        assert (await client_dismiss(bob)) == 200
        attn.tick(6)
        report(attn, made["decision"]["id"], "refused", "no")
        for client in (ann, bob):
            page = (await client.get("/org/me/inbox")).json()
            assert [item["rank_reasons"] for item in page["items"]] == [["normal", "refused", "blocking"]]


async def client_dismiss(client: Any) -> int:
    return int((await client.post(f"/org/me/inbox/{W}/dismiss")).status_code)


async def test_the_feed_removes_a_decided_item_and_adds_one_that_comes_back() -> None:
    attn = deciding(asking(APPROVAL), message("m", priority="urgent"), asking({}, "other"))
    edge, sink, copy = attn.edges[0], Kept(), Copy()
    read = 0

    def new_frames() -> list[tuple[str, Any]]:
        nonlocal read
        new = [frame for frame in frames(sink.raw[read:]) if frame[1] != "heartbeat"]
        read = len(sink.raw)
        for frame in new:
            copy.apply(frame)
        return [(name, data) for _, name, data in new]

    edge.feed_hub.open(Reader("ws", "bob", frozenset({"MEMBER"})), 500, None, sink)  # type: ignore[arg-type]
    assert [name for name, _ in new_frames()] == ["snapshot"]
    async with attn.client("ann") as ann, attn.client("bob", "MEMBER") as bob:

        async def check_copy() -> None:
            page = (await bob.get("/org/me/inbox")).json()
            assert copy.page["items"] == page["items"]
            assert copy.page["counts"] == page["counts"]

        _, made = await decide(ann)
        [(name, data)] = new_frames()
        assert (name, data["reason"], data["counts"]["total"]) == ("removed", "decided", 2)
        assert "resolved_action" not in data
        await check_copy()
        attn.tick(6)
        assert new_frames() == [], "sending the decision changes no list"
        report(attn, made["decision"]["id"], "undeliverable", "410 Gone")
        [(name, data)] = new_frames()
        assert (name, data["item"]["decision"]["reason"], data["item"]["decision"]["returned"]) == (
            "added", "410 Gone", "undeliverable")
        await check_copy()
        assert [item["source_id"] for item in copy.page["items"]] == ["m", "w", "other"], (
            "the item is at the top of its band")
        assert (await decide(ann, digest=data["item"]["digest"]))[0] == 200, "the same answer is sent again"
        assert [(name, data["reason"]) for name, data in new_frames()] == [("removed", "decided")]
        attn.happen(event("waitpoint.approved", "w", 30))
        new_frames()
        await check_copy()
