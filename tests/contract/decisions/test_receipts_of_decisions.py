"""Receipts of decisions that the real fold made: each state, quorum, expiry, edits, a question that changed."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from typing import Any

import httpx
from support.edge.edge_with_fold import WS, Deciding, waitpoint
from support.fold.fold_driver import event

from streams.core.receipts import read_key_set, verify_receipt

OPTIONS = [{"id": "yes", "does": "approve"}, {"id": "no", "does": "reject"}, {"id": "other", "does": "edit"},
           {"id": "hold", "does": "ignore", "safe": True}]
ACTION = {"name": "deploy", "args": {"n": 1, "where": "staging"}, "editable": True}
KEYS = "/.well-known/attn-decision-keys.json"


class AskedItem:
    """One item with an ask, decided over HTTP; `user` acts as OWNER."""

    def __init__(self, **ask: Any) -> None:
        self.attn = Deciding(edges=2)
        self.attn.happen(waitpoint("wp", ask={"options": OPTIONS, "action": ACTION, **ask}))

    async def request(self, method: str, path: str, user: str = "ann", edge: int = 0, **more: Any) -> httpx.Response:
        async with self.attn.client(user, "OWNER", edge=edge) as client:
            return await client.request(method, path, **more)

    async def item(self) -> dict[str, Any]:
        (row,) = (await self.request("GET", "/api/v1/inbox?state=all")).json()["rows"]
        return dict(row)

    async def decide(self, user: str = "ann", option: str = "yes", **more: Any) -> httpx.Response:
        item = await self.item()
        return await self.request("POST", f"/api/v1/inbox/{item['id']}/decision", user, json={
            "option": option, "digest": item["digest"], **more})

    async def receipt(self, **params: str) -> dict[str, Any]:
        """Checks that both edges give the same bytes, and that their keys verify them. Returns the receipt's
        payload."""
        path = f"/api/v1/inbox/{(await self.item())['id']}/decision/receipt"
        answers = [await self.request("GET", path, edge=edge, params=params) for edge in (0, 1)]
        assert answers[0].status_code == 200, answers[0].text
        assert answers[0].content == answers[1].content
        keys = read_key_set((await self.request("GET", KEYS, edge=1)).content)
        verify_receipt(answers[0].content, keys)
        text = answers[0].json()["payload"]
        return dict(json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4))))


async def test_a_receipt_says_the_same_as_the_item_and_follows_the_state() -> None:
    question = AskedItem()
    path = f"/api/v1/inbox/{(await question.item())['id']}/decision/receipt"
    assert (await question.request("GET", path)).status_code == 404
    decision = (await question.decide(comment="go")).json()["decision"]
    stated = await question.receipt()
    item = await question.item()
    assert stated["workspace"] == WS
    assert stated["item"] == item["id"]
    assert stated["question"]["digest"] == item["digest"]
    assert stated["question"]["shown"] == {
        "workspace": WS, "source": item["source"], "subject": "wp", "title": "T", "body": None, "ask": item["ask"]}
    expected = {"id": decision["id"], "option": "yes", "does": "approve", "state": "made",
            "undo_until": decision["undo_until"], "comment": "go"}
    assert {name: stated["decision"][name] for name in expected} == expected
    assert [(actor["user"], actor["role"], actor["vote"]) for actor in stated["actors"]] == [("ann", "OWNER", "yes")]
    seen = [stated]
    for state in ("sending", "unconfirmed", "applied"):
        question.attn.tick({"sending": 6, "unconfirmed": 901, "applied": 30}[state])
        if state == "applied":
            question.attn.happen(event("decision.applied", "wp", 16))
        seen.append(await question.receipt())
    assert [(payload["decision"]["state"], payload["decision"].get("returned")) for payload in seen] == [
        ("made", None), ("sending", None), ("sending", "unconfirmed"), ("applied", None)]
    assert [payload["issued_at"] for payload in seen] == sorted({payload["issued_at"] for payload in seen})
    assert {json.dumps([payload["fence"], payload["question"]]) for payload in seen} == {
        json.dumps([stated["fence"], stated["question"]])}


async def test_each_vote_of_a_quorum_is_in_the_receipt() -> None:
    question = AskedItem(quorum={"approve": 2})
    assert (await question.decide("ann", comment="first")).status_code == 202
    assert (await question.decide("bob", "hold")).status_code == 202
    assert (await question.decide("cy", comment="second")).status_code == 201
    stated = await question.receipt()
    assert [(actor["user"], actor["vote"], actor.get("comment")) for actor in stated["actors"]] == [
        ("ann", "yes", "first"), ("cy", "yes", "second")]


async def test_edited_arguments_are_in_the_receipt_with_their_digits() -> None:
    question = AskedItem()
    item = await question.item()
    body = f'{{"option":"other","digest":"{item["digest"]}","args":{{"n":12345678901234567891,"where":"prod"}}}}'
    answer = await question.request(
        "POST", f"/api/v1/inbox/{item['id']}/decision", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 201, answer.text
    stated = await question.receipt()
    assert sorted(stated["decision"]["edited"]) == ["/n", "/where"]
    assert stated["decision"]["args"] == {"n": 12345678901234567891, "where": "prod"}
    assert stated["question"]["shown"]["ask"]["action"]["args"] == ACTION["args"]


async def test_an_expired_question_has_a_receipt_without_an_answer() -> None:
    question = AskedItem(expires_at="2026-05-20T12:10:00Z")
    question.attn.tick(900)
    stated = await question.receipt()
    assert (stated["decision"]["state"], stated["actors"]) == ("expired", [])
    assert "option" not in stated["decision"]


async def test_earlier_decisions_of_a_question_that_changed_keep_their_receipts() -> None:
    question = AskedItem()
    first = (await question.decide()).json()["decision"]["id"]
    question.attn.tick(6)
    question.attn.happen(event("decision.refused", "wp", 5, reason="quota"))
    refused = await question.receipt()
    assert (refused["decision"]["state"], refused["decision"]["reason"]) == ("refused", "quota")
    question.attn.happen(waitpoint("wp", title="Deploy less?", ask={"options": OPTIONS, "action": ACTION}, minutes=6))
    assert "decision" not in await question.item()
    earlier = await question.receipt()
    assert earlier["decision"]["id"] == first
    assert "shown" not in earlier["question"]
    second = (await question.decide("bob", "no")).json()["decision"]["id"]
    assert second != first
    assert (await question.receipt())["decision"]["id"] == second
    assert (await question.receipt(decision=first))["decision"]["id"] == first
