"""POST /api/v1/inbox/decisions: one option for many items, each fenced by its revision."""

from __future__ import annotations

from typing import Any

import pytest
from support.edge.asking import APPROVAL, answer, asking, decide, deciding, get_item
from support.edge.edge_with_fold import message

from streams.core.domain.keys import item_id
from streams.core.packs import PackRecord

FORM = {"type": "object", "properties": {"n": {"type": "integer"}}}
URL = "/api/v1/inbox/decisions"


def ids(*names: str) -> list[str]:
    return [item_id("ws", "waitpoint", name) for name in names]


async def test_the_breakdown_names_each_item() -> None:
    quorum = {**APPROVAL, "quorum": {"approve": 2}}
    attn = deciding(
        asking(APPROVAL, "a"), asking(APPROVAL, "b"), asking(quorum, "q"), asking(APPROVAL, "won"), message("m"),
        asking({"options": [{"id": "other", "does": "approve"}]}, "o"),
        asking({"options": [{"id": "ok", "does": "approve", "form": FORM}]}, "f"),
        asking({"options": [{"id": "ok", "does": "edit"}], "action": {"name": "x", "editable": True}}, "e"),
        asking({**APPROVAL, "deciders": {"users": ["bob"]}}, "d"),
        asking({"options": [{"id": "ok", "does": "approve", "comment": "required"}]}, "c"),
        asking(APPROVAL, "hidden", target_user_id="bob"), asking(APPROVAL, "changed"))
    async with attn.client("ann") as ann, attn.client("bob", "ADMIN") as bob:
        await decide(bob, item=ids("won")[0])
        stale = (await get_item(ann, ids("changed")[0]))["revision"]
        attn.happen(asking(APPROVAL, "changed", minutes=1, title="other"))
        m = item_id("ws", "message", "m")
        status, body = await answer(ann.post(URL, json={
            "ids": [*ids("a", "b", "q", "won", "o", "f", "e", "d", "c", "hidden", "changed", "none"), m, ids("a")[0]],
            "option": "ok", "revisions": {ids("changed")[0]: stale}}))
        assert status == 200
        assert body == {
            "decided": 2, "voted": 1, "skipped": 7, "skipped_ids": [*ids("won", "o", "f", "e", "d", "c"), m],
            "changed": 1, "changed_ids": ids("changed"), "not_found": 2, "option": "ok",
        }
        states = [(await get_item(ann, item))["state"] for item in ids("a", "b", "q", "f", "changed")]
    assert states == ["decided", "decided", "unread", "unread", "unread"]


async def test_an_item_is_fenced_by_the_revision_that_the_client_saw() -> None:
    attn = deciding(asking(APPROVAL, "a"), asking(APPROVAL, "b"))
    async with attn.client("ann") as client:
        seen = {item: (await get_item(client, item))["revision"] for item in ids("a", "b")}
        attn.happen(asking(APPROVAL, "b", minutes=1, title="drop production"))
        status, body = await answer(client.post(URL, json={
            "ids": ids("a", "b"), "option": "ok", "revisions": seen, "comment": "as discussed"}))
        assert (status, body["decided"], body["changed_ids"]) == (200, 1, ids("b"))
        assert (await get_item(client, ids("a")[0]))["decision"]["actors"][0]["comment"] == "as discussed"


async def test_an_item_that_changes_meanwhile_is_fenced_by_the_revision_on_the_edge() -> None:
    attn = deciding(asking(APPROVAL, "a"), asking(APPROVAL, "b"))

    async def overtaken(pack: PackRecord) -> None:
        attn.happen(asking(APPROVAL, "b", minutes=1, title="drop production"))
        await attn._append(pack)

    attn.edges[0].command_log.append = overtaken
    async with attn.client("ann") as client:
        status, body = await answer(client.post(URL, json={"ids": ids("a", "b"), "option": "ok"}))
    assert (status, body["decided"], body["changed_ids"]) == (200, 1, ids("b"))


async def test_a_repeat_with_its_key_gives_the_first_outcome() -> None:
    """The first attempt changed the revisions that the edge fills in; the repeat still counts as the same request."""
    attn = deciding(asking(APPROVAL, "a"), asking(APPROVAL, "b"))
    async with attn.client("ann") as client:
        request = {"ids": ids("a", "b"), "option": "ok"}
        key = {"idempotency-key": "k"}
        first = await answer(client.post(URL, json=request, headers=key))
        assert first[1]["decided"] == 2
        assert await answer(client.post(URL, json=request, headers=key)) == first
        other = await answer(client.post(URL, json={**request, "option": "no"}, headers=key))
        assert other[0] == 422
        fenced = {**request, "revisions": {ids("a")[0]: 1}}
        assert (await answer(client.post(URL, json=fenced, headers=key)))[0] == 422, (
            "this request names a revision, so it is another one")


@pytest.mark.parametrize("body", [
    {}, {"ids": []}, {"ids": ["a"]}, {"option": "ok"}, {"ids": [" "], "option": "ok"}, {"ids": "a", "option": "ok"},
    {"ids": ["a"], "option": ""}, {"ids": ["a"], "option": "ok", "form": {}}, {"ids": ["a"], "option": 1},
    {"ids": ["a"], "option": "ok", "revisions": []}, {"ids": ["a"], "option": "ok", "revisions": {"a": "1"}},
    {"ids": ["a"], "option": "ok", "revisions": {"a": -1}}, {"ids": ["a"], "option": "ok", "comment": 1},
    {"ids": [str(number) for number in range(501)], "option": "ok"},
])
async def test_400_a_body_that_is_no_request(body: dict[str, Any]) -> None:
    attn = deciding()
    async with attn.client() as client:
        status, answered = await answer(client.post(URL, json=body))
    assert (status, set(answered)) == (400, {"error"})


async def test_many_ids_cost_as_in_a_bulk_change() -> None:
    names = [f"n{number}" for number in range(100)]
    attn = deciding(*(asking(APPROVAL, name) for name in names), write_rate=0.001, write_burst=5)
    async with attn.client("ann") as client:
        assert (await client.post(URL, json={"ids": ids(*names), "option": "ok"})).status_code == 200
        assert (await client.post(URL, json={"ids": ids("n1"), "option": "ok"})).status_code == 429
    limited = deciding(asking(APPROVAL, "a"), max_bulk=1)
    async with limited.client("ann") as client:
        assert (await client.post(URL, json={"ids": ids("a", "b"), "option": "ok"})).status_code == 400
