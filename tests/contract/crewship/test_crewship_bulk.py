"""Crewship's rules C21-C30 (seeds/crewship.md): bulk writes and the push. C1-C20 are in test_crewship.py."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.clients.crewship import STATE_ERROR, URL, M, W, bulk, filled, get, patch, rows
from support.edge.edge_with_fold import WS, Deciding, message, waitpoint
from support.fold.fold_driver import event

from api.live.notifications import Subscriber
from api.readmodel.readers import Reader
from streams.core.domain.keys import item_id


@pytest.fixture
def attn() -> Deciding:
    return filled()



async def test_c21_bulk_accepts_up_to_500_ids_and_rejects_invalid_bodies(attn: Deciding) -> None:
    required = (400, {"error": "ids required"})
    async with attn.client() as client:
        assert await bulk(client, state="read") == required
        for ids in (None, [], [""], ["", "  ", "\t"]):
            assert await bulk(client, ids=ids, state="read") == required
        many = [f"ibx_{number}" for number in range(501)]
        assert await bulk(client, ids=many, state="read") == (400, {"error": "too many ids (max 500)"})
        body = (await bulk(client, ids=[*many[:500], "", *many[:100]], state="read"))[1]
        assert body["not_found"] == 500, "repeated and blank ids do not count"
        for state in ("open", None, 1):
            assert await bulk(client, ids=[M], state=state) == STATE_ERROR
        assert await bulk(client, ids=[M]) == STATE_ERROR
        assert await bulk(client, ids="ibx", state="read") == (400, {"error": "ids must be a list of strings"})
        assert await bulk(client, ids=[M, M], state="read") == (
            200, {"updated": 1, "skipped": 0, "skipped_ids": [], "not_found": 0, "state": "read"})


async def test_c21_fewer_ids_by_setting() -> None:
    attn = Deciding(max_bulk=2)
    async with attn.client() as client:
        assert await bulk(client, ids=["a", "b", "c"], state="read") == (400, {"error": "too many ids (max 2)"})
        assert (await bulk(client, ids=["a", "b", "a"], state="read"))[0] == 200


async def test_c22_invisible_ids_count_as_not_found_without_an_error(attn: Deciding) -> None:
    attn.happen(message("o", target_role="OWNER"), message("u", target_user_id="cyd"), message("x", ws="ws2"))
    hidden = [item_id(WS, "message", "o"), item_id(WS, "message", "u"), item_id("ws2", "message", "x"), "ibx_none"]
    async with attn.client("bob", "MEMBER") as client:
        assert await bulk(client, ids=[*hidden, M], state="resolved") == (
            200, {"updated": 1, "skipped": 0, "skipped_ids": [], "not_found": 4, "state": "resolved"})
    async with attn.client("ann", "OWNER") as client:
        assert (await get(client, hidden[0]))["state"] == "unread"


def decisions(attn: Deciding) -> dict[str, str]:
    attn.happen(message("b", blocking=True), event("escalation.opened", "e", title="T"),
                event("run.failed", "r", title="T"), event("run.failed", "rb", title="T", blocking=True))
    return {name: item_id(WS, kind, name) for name, kind in (
        ("m", "message"), ("w", "waitpoint"), ("b", "message"), ("e", "escalation"), ("r", "failed_run"),
        ("rb", "failed_run"))}


async def test_c23_bulk_resolve_skips_decisions_and_blocking_items(attn: Deciding) -> None:
    ids = decisions(attn)
    async with attn.client() as client:
        assert await bulk(client, ids=list(ids.values()), state="resolved") == (200, {
            "updated": 2, "skipped": 4, "skipped_ids": [ids[name] for name in ("w", "b", "e", "rb")], "not_found": 0,
            "state": "resolved"})
        for name in ("w", "b", "e", "rb"):
            assert (await get(client, ids[name]))["state"] == "unread"
        assert await patch(client, ids["b"], state="resolved") == (200, {"id": ids["b"], "state": "resolved"}), (
            "PATCH resolves a blocking message")


async def test_c24_bulk_unread_skips_source_managed_kinds_only(attn: Deciding) -> None:
    ids = decisions(attn)
    async with attn.client() as client:
        assert await bulk(client, ids=list(ids.values()), state="unread") == (200, {
            "updated": 4, "skipped": 2, "skipped_ids": [ids["w"], ids["e"]], "not_found": 0, "state": "unread"})


async def test_c25_bulk_read_is_for_all_and_no_batch_fails_as_a_whole(attn: Deciding) -> None:
    ids = decisions(attn)
    async with attn.client() as client:
        assert await bulk(client, ids=list(ids.values()), state="read") == (
            200, {"updated": 6, "skipped": 0, "skipped_ids": [], "not_found": 0, "state": "read"})
        assert {row["state"] for row in await rows(client)} == {"read"}
        status, body = await bulk(client, ids=[ids["w"], ids["m"], ids["r"], "ibx_none"], state="resolved",
                                  resolved_action="approved")
        assert (status, body["updated"]) == (200, 2)
        assert {(await get(client, ids[name]))["resolved_action"] for name in ("m", "r")} == {"approved"}


async def test_c26_the_breakdown(attn: Deciding) -> None:
    async with attn.client() as client:
        status, body = await bulk(client, ids=[W, "ibx_none", M], state="resolved")
    assert status == 200
    assert body == {"updated": 1, "skipped": 1, "skipped_ids": [W], "not_found": 1, "state": "resolved"}


async def test_c27_of_25_items_22_are_resolved_and_3_link_to_their_source() -> None:
    attn = Deciding()
    open_ = [waitpoint(f"w{number}", action_url=f"/pipelines/waitpoints/w{number}") for number in range(3)]
    attn.happen(*(message(f"m{number}") for number in range(22)), *open_)
    async with attn.client() as client:
        ids = [row["id"] for row in await rows(client)]
        _, body = await bulk(client, ids=ids, state="resolved")
        assert (body["updated"], body["skipped"], len(body["skipped_ids"])) == (22, 3, 3)
        items = {listed["id"]: listed for listed in (await client.get("/org/me/inbox")).json()["items"]}
        assert set(items) == set(body["skipped_ids"])
        for item in body["skipped_ids"]:
            row = await get(client, item)
            assert row["kind"] == "waitpoint"
            assert items[item]["action_url"] == f"/pipelines/waitpoints/{row['source_id']}"


class Pushes:
    """Collects the messages that a subscriber of the workspace's channel gets."""

    def __init__(self, attn: Deciding, user: str, role: str) -> None:
        self._one = Subscriber(Reader(WS, user, frozenset({role})))
        attn.edges[0].notifications.subscribe(self._one)

    def all(self) -> list[Any]:
        return [json.loads(self._one.waiting.get_nowait()) for _ in range(self._one.waiting.qsize())]


def updated(**payload: str) -> dict[str, Any]:
    return {"type": "inbox.updated", "channel": f"workspace:{WS}", "payload": payload}


async def test_c28_each_successful_patch_is_pushed_to_readers_of_the_item(attn: Deciding) -> None:
    attn.happen(message("o", target_role="OWNER"))
    owners, ann, bob = item_id(WS, "message", "o"), Pushes(attn, "ann", "OWNER"), Pushes(attn, "bob", "MEMBER")
    async with attn.client("cyd", "OWNER") as client:
        for state in ("read", "resolved", "unread"):
            await patch(client, M, state=state)
            assert ann.all() == bob.all() == [updated(id=M, state=state)]
        await patch(client, owners, state="resolved")
        assert (ann.all(), bob.all()) == ([updated(id=owners, state="resolved")], []), (
            "only readers of the item get the push")
        for item, state in ((W, "resolved"), ("ibx_none", "read"), (M, "open")):
            assert (await patch(client, item, state=state))[0] >= 400
        assert (ann.all(), bob.all()) == ([], [])


async def test_c29_a_bulk_that_changes_a_visible_item_is_pushed_once(attn: Deciding) -> None:
    attn.happen(message("n"), message("o", target_role="OWNER"))
    ids = [M, item_id(WS, "message", "n"), item_id(WS, "message", "o")]
    ann, bob = Pushes(attn, "ann", "OWNER"), Pushes(attn, "bob", "MEMBER")
    async with attn.client("cyd", "OWNER") as client:
        await bulk(client, ids=[*ids, W], state="resolved")
        assert ann.all() == bob.all() == [updated(bulk="true", state="resolved")]
        await bulk(client, ids=[W, "ibx_none"], state="resolved")
        assert ann.all() == bob.all() == []
        await bulk(client, ids=[ids[2]], state="read")
        assert (ann.all(), bob.all()) == ([updated(bulk="true", state="read")], [])


async def test_c30_a_read_after_the_push_returns_the_new_list_and_count(attn: Deciding) -> None:
    pushes = Pushes(attn, "bob", "MEMBER")
    seen: list[int] = []
    space = attn.edges[0].replica.workspace(WS)
    pushes._one.enqueue = lambda _: seen.append(space.unread_count(pushes._one.reader))  # type: ignore[method-assign]
    async with attn.client("cyd") as client, attn.client("bob", "MEMBER") as other:
        await patch(client, M, state="resolved")
        assert seen == [1], "the edge shows the change when it pushes it"
        body = (await other.get(URL)).json()
        assert (body["unread_count"], {row["source_id"]: row["state"] for row in body["rows"]}) == (
            1, {"m": "resolved", "w": "unread"})
