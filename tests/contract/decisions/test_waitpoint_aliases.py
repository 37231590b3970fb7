"""POST /pipelines/waitpoints/{token}/approve and /reject: the routes that the 409 of a source-managed item names."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.edge.asking import APPROVAL, W, answer, asking, decide, deciding, get_item
from support.edge.edge_with_fold import message, waitpoint
from support.examples import law
from support.fold.fold_driver import event

from streams.core.domain.keys import item_id

PLAIN: dict[str, Any] = {}  # default options of the kind: approve, reject


@pytest.mark.parametrize(("verb", "does"), [("approve", "approve"), ("reject", "reject")])
@pytest.mark.parametrize("keyed", [{}, {"idempotency-key": "k"}])
async def test_the_alias_is_a_decision(verb: str, does: str, keyed: dict[str, str]) -> None:
    attn = deciding(asking(PLAIN))
    async with attn.client("ann") as client:
        url = f"/pipelines/waitpoints/w/{verb}"
        status, body = await answer(client.post(url, headers=keyed))
        assert (status, body["decision"]["does"]) == (201, does)
        assert (await get_item(client))["decision"] == body["decision"]
        again = await answer(client.post(url, headers=keyed))
        assert again == ((201 if keyed else 200), body), "the stored outcome, or 200 for the same answer"


async def test_the_hint_of_the_409_names_a_working_route() -> None:
    attn = deciding(asking(PLAIN))
    async with attn.client("ann") as client:
        status, body = await answer(client.patch(f"/api/v1/inbox/{W}", json={"state": "resolved"}))
        assert status == 409
        [path] = re.findall(r"/pipelines\S+?/approve", body["error"])
        assert (await answer(client.post(path.replace("{token}", "w"))))[0] == 201
        status, _ = await answer(client.patch(f"/api/v1/inbox/{W}", json={"state": "resolved"}))
        assert status == 409, "only the source resolves a decided item"


async def test_the_body_is_that_of_a_decision() -> None:
    form = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    attn = deciding(asking({"options": [{"id": "go", "does": "approve", "form": form, "comment": "required"}]}))
    async with attn.client("ann") as client:
        url = "/pipelines/waitpoints/w/approve"
        for body in (None, {}, {"form": {"n": 1}}, {"comment": "c"}):
            assert (await answer(client.post(url, json=body)))[0] == 422
        assert (await answer(client.post(url, json={"digest": "seen", "form": {"n": 1}, "comment": "c"})))[0] == 412
        for body in ([], {"option": "go"}, {"more": 1}):
            assert (await answer(client.post(url, json=body)))[0] == 400
        digest = (await get_item(client))["digest"]
        status, made = await answer(client.post(url, json={"digest": digest, "form": {"n": 1}, "comment": "c"}))
        assert (status, made["decision"]["option"]) == (201, "go")


async def test_each_status_of_a_decision() -> None:
    attn = deciding(asking({**APPROVAL, "deciders": {"users": ["ann", "cyd"]}}, target_role="OWNER"))
    url = "/pipelines/waitpoints/w/approve"
    async with attn.client("ann") as ann, attn.client("bob") as bob, attn.client("cyd") as cyd:
        async with attn.client("dan", "MEMBER") as invisible:
            assert await answer(invisible.post(url)) == (404, {"error": "not found"})
            assert await answer(invisible.post("/pipelines/waitpoints/none/approve")) == (404, {"error": "not found"})
        assert (await answer(bob.post(url)))[0] == 403
        _, made = await answer(ann.post(url))
        assert await answer(ann.post(url)) == (200, made)
        status, lost = await answer(cyd.post(url))
        assert (status, lost["decision"]) == (409, made["decision"])
    attn = deciding(asking(PLAIN), event("waitpoint.cancelled", "w", 1))
    async with attn.client() as client:
        assert (await answer(client.post(url)))[0] == 410


async def test_a_waitpoint_without_an_ask_says_what_to_do() -> None:
    attn = deciding(waitpoint("w"), message("m"))
    async with attn.client() as client:
        status, body = await answer(client.post("/pipelines/waitpoints/w/approve"))
        assert (status, body["kind"]) == (409, "waitpoint")
        assert "ATTN_DECISIONS" in body["error"]
        assert (await answer(client.post("/pipelines/waitpoints/m/approve")))[0] == 404, (
            "no waitpoint has this source id")
    attn = deciding(waitpoint("w"), decisions="all")
    async with attn.client() as client:
        assert (await answer(client.post("/pipelines/waitpoints/w/approve")))[0] == 201


@pytest.mark.parametrize(("options", "expected"), [
    ([{"id": "a", "does": "reject"}], 409),
    ([{"id": "staging", "does": "approve"}, {"id": "production", "does": "approve"}], 409),
    ([{"id": "production", "does": "approve"}, {"id": "approve", "does": "approve"}], "approve"),
    ([{"id": "approve", "does": "reject"}, {"id": "yes", "does": "approve"}], "yes"),
])
async def test_an_alias_never_guesses_what_is_approved(options: list[dict[str, str]], expected: int | str) -> None:
    attn = deciding(asking({"options": options}))
    async with attn.client() as client:
        status, body = await answer(client.post("/pipelines/waitpoints/w/approve"))
        if expected == 409:
            assert status == 409
            assert f"/api/v1/inbox/{W}/decision" in body["error"]
            assert all(option["id"] in body["error"] for option in options if option["does"] == "approve")
            assert (await get_item(client))["state"] == "unread"
        else:
            assert (status, body["decision"]["option"]) == (201, expected)


async def test_a_repeat_with_its_key_is_the_same_after_the_question_changed() -> None:
    """The edge fills in the digest, which must not change the identity of the request."""
    attn = deciding(asking({**PLAIN, "quorum": {"approve": 2}}))
    async with attn.client("ann") as client:
        key = {"idempotency-key": "k"}
        first = await answer(client.post("/pipelines/waitpoints/w/approve", headers=key))
        assert first[0] == 202
        attn.happen(asking({**PLAIN, "quorum": {"approve": 2}}, minutes=1, title="other"))
        assert await answer(client.post("/pipelines/waitpoints/w/approve", headers=key)) == first
        assert (await get_item(client))["votes"] == [], "the vote was for the earlier question"
        other = await answer(client.post("/pipelines/waitpoints/w/approve", headers=key, json={"comment": "c"}))
        assert other[0] == 422


@law(25)
@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30).filter(str.strip))
async def test_any_source_id_can_be_named(token: str) -> None:
    if token.strip(".") == "" and len(token) <= 2:
        return  # HTTP clients drop the segments . and .., even percent-encoded
    attn = deciding(asking(PLAIN, token))
    async with attn.client() as client:
        response = await client.post(f"/pipelines/waitpoints/{quote(token, safe='')}/approve")
        assert response.status_code == 201
        row = await get_item(client, item_id("ws", "waitpoint", token))
        assert (row["source_id"], row["state"]) == (token, "decided")


async def test_decide_and_the_alias_are_one_decision() -> None:
    attn = deciding(asking(PLAIN))
    async with attn.client("ann") as ann, attn.client("bob") as bob:
        _, made = await decide(ann, "approve")
        status, lost = await answer(bob.post("/pipelines/waitpoints/w/reject"))
        assert (status, lost["decision"]["id"]) == (409, made["decision"]["id"])
