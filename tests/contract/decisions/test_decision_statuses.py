"""Each status of CONTRACT §7 from POST and DELETE /api/v1/inbox/{id}/decision, by the edge and by the fold.

The edge does not check a request with an Idempotency-Key on its replica, so the fold answers it. Every case runs both
ways, and both answers are equal.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.edge.asking import APPROVAL, W, answer, asking, decide, deciding, digest_of, get_item
from support.edge.edge_with_fold import message
from support.fold.fold_driver import event

from streams.core.domain.keys import item_id
from streams.core.packs import PackRecord

FORM = {"type": "object", "required": ["reason"], "properties": {
    "reason": {"type": "string", "minLength": 3}, "count": {"type": "integer", "minimum": 1},
    "share": {"type": "number"}}}
EDITABLE = {
    "options": [{"id": "edit", "does": "edit"}, {"id": "ok", "does": "approve"}],
    "action": {"name": "pay", "args": {"to": "a", "amount": 5, "note": ""}, "editable": ["amount", "note"]},
}


@pytest.fixture(params=[False, True], ids=["checked by the edge", "by the fold alone"])
def keyed(request: pytest.FixtureRequest) -> Any:
    """Returns headers for a request: none, or an Idempotency-Key that no other request has."""
    numbers = iter(range(1000))
    return lambda: {"idempotency-key": f"k{next(numbers)}"} if request.param else {}


async def test_201_is_the_decision_and_the_item_shows_it(keyed: Any) -> None:
    attn = deciding()
    async with attn.client("ann", name="Ann") as client:
        before = await get_item(client)
        assert before["digest"] == digest_of(before)
        assert (before["votes"], before["deciders"]["excluded"], before["state"]) == ([], [], "unread")
        status, body = await decide(client, comment="checked", viewed=4.5, headers=keyed())
        after = await get_item(client)
        listed = (await client.get("/org/me/inbox")).json()
    assert (status, list(body)) == (201, ["decision"])
    made = body["decision"]
    assert (made["option"], made["does"], made["state"]) == ("ok", "approve", "made")
    [actor] = made["actors"]
    assert {name: actor[name] for name in ("user", "name", "role", "vote", "comment")} == {
        "user": "ann", "name": "Ann", "role": "OWNER", "vote": "ok", "comment": "checked"}
    assert after["decision"] == made
    assert (after["state"], listed["items"], listed["counts"]["total"]) == ("decided", [], 0)
    assert [fact.viewed for fact in attn.facts if getattr(fact, "type", "") == "vote.cast"] == [4.5]


async def test_202_counts_the_vote_until_the_quorum(keyed: Any) -> None:
    attn = deciding(asking({**APPROVAL, "quorum": {"approve": 3}}))
    async with attn.client("ann") as ann, attn.client("bob", "MEMBER") as bob, attn.client("cyd", "ADMIN") as cyd:
        assert (await get_item(ann))["needed"] == 3
        status, body = await decide(ann, headers=keyed())
        assert (status, [vote["user"] for vote in body["votes"]], body["needed"]) == (202, ["ann"], 2)
        again, same = await decide(ann, headers=keyed())
        assert (again, same) == (200, body), "the same answer of the same user"
        assert (await decide(bob, headers=keyed()))[1]["needed"] == 1
        item = await get_item(cyd)
        assert [vote["user"] for vote in item["votes"]] == ["ann", "bob"]
        assert (item["needed"], item["state"]) == (1, "unread")
        status, body = await decide(cyd, headers=keyed())
        assert (status, [actor["user"] for actor in body["decision"]["actors"]]) == (201, ["ann", "bob", "cyd"])
        assert "needed" not in await get_item(cyd)


async def test_200_repeats_the_same_answer_of_the_same_person(keyed: Any) -> None:
    attn = deciding()
    async with attn.client("ann") as client:
        _, first = await decide(client, headers=keyed())
        assert await decide(client, headers=keyed()) == (200, first)
    assert [fact.type for fact in attn.facts if getattr(fact, "type", "").startswith("decision")] == ["decision.made"]


async def test_a_form_without_values_is_the_same_answer_as_no_form(keyed: Any) -> None:
    attn = deciding(asking({"form": {"properties": {"note": {"type": "string"}}}}))
    async with attn.client("ann") as client:
        _, first = await decide(client, "approve", form={}, headers=keyed())
        for form in ({}, None):
            assert await decide(client, "approve", form=form, headers=keyed()) == (200, first)
        assert await decide(client, "approve", headers=keyed()) == (200, first)
        assert (await decide(client, "approve", form={"note": ""}, headers=keyed()))[0] == 409, "a different answer"


async def test_spelling_and_order_of_an_answer_do_not_matter(keyed: Any) -> None:
    attn = deciding(asking({"form": FORM, "quorum": {"approve": 2}}))
    async with attn.client("ann") as ann, attn.client("bob") as bob:
        digest = (await get_item(ann))["digest"]

        async def post(client: Any, form: str) -> int:
            response = await client.post(
                f"/api/v1/inbox/{W}/decision", headers={**keyed(), "content-type": "application/json"},
                content=f'{{"form": {form}, "option": "approve", "digest": "{digest}"}}')
            return int(response.status_code)

        assert await post(ann, '{"reason": "caf\\u00e9", "count": 2}') == 202
        assert await post(bob, '{ "count":2,\n "reason":"café" }') == 201


async def test_409_names_the_winner(keyed: Any) -> None:
    attn = deciding()
    async with attn.client("ann", name="Ann") as ann, attn.client("bob", "ADMIN") as bob:
        _, won = await decide(ann)
        for option, more in (("no", {"comment": "c"}), ("ok", {})):
            status, body = await decide(bob, option, headers=keyed(), **more)
            assert (status, body["decision"]) == (409, won["decision"])
            assert body["error"]
        assert (await decide(ann, "no", comment="changed my mind", headers=keyed()))[0] == 409


async def test_409_an_item_that_asks_nothing(keyed: Any) -> None:
    attn = deciding(message("m"))
    m = item_id("ws", "message", "m")
    async with attn.client() as client:
        assert not {"ask", "digest", "votes", "deciders"} & (await get_item(client, m)).keys()
        status, body = await decide(client, item=m, headers=keyed())
    assert (status, body["kind"], "decision" in body) == (409, "message", False)
    assert "ATTN_DECISIONS" in body["error"], "the error names the setting"


@pytest.mark.parametrize("kind", ["waitpoint.cancelled", "waitpoint.expired"])
async def test_410_a_source_that_closed_it(keyed: Any, kind: str) -> None:
    attn = deciding()
    async with attn.client() as client:
        digest = (await get_item(client))["digest"]
        attn.happen(event(kind, "w", 1))
        assert (await get_item(client))["state"] == "resolved"
        for seen in (digest, "another question"):
            status, body = await decide(client, digest=seen, headers=keyed())
            assert (status, set(body)) == (410, {"error"})


async def test_410_a_question_that_expired(keyed: Any) -> None:
    attn = deciding(asking({**APPROVAL, "expires_at": "2026-05-20T12:30:00Z"}))
    async with attn.client() as client:
        digest = (await get_item(client))["digest"]
        attn.tick(31 * 60)
        attn.tick(0)
        status, body = await decide(client, digest=digest, headers=keyed())
    assert (status, body["decision"]["state"], body["decision"]["actors"]) == (410, "expired", [])
    assert "option" not in body["decision"]


async def test_412_a_changed_question_comes_with_the_current_item(keyed: Any) -> None:
    attn = deciding()
    async with attn.client() as client:
        old = await get_item(client)
        attn.happen(asking(APPROVAL, minutes=1, title="Another title"))
        now = await get_item(client)
        assert now["digest"] != old["digest"]
        status, body = await decide(client, digest=old["digest"], headers=keyed())
        assert (status, body["item"], body["digest"]) == (412, now, now["digest"])
        assert (await decide(client, digest=body["item"]["digest"], headers=keyed()))[0] == 201


async def test_412_of_a_question_that_changes_before_the_answer_arrives() -> None:
    """The replica has the old question; the log has the new one before the answer."""
    attn = deciding()
    async with attn.client() as client:
        digest = (await get_item(client))["digest"]
        edge_log = attn.edges[0].command_log

        async def overtaken(pack: PackRecord) -> None:
            attn.happen(asking(APPROVAL, minutes=1, body_md="now with a body"))
            await attn._append(pack)

        edge_log.append = overtaken
        status, body = await decide(client, digest=digest)
        assert (status, body["item"]["body_md"]) == (412, "now with a body")
        assert body["item"]["digest"] == body["digest"] == digest_of(body["item"])


@pytest.mark.parametrize(("deciders", "refused"), [
    (None, [("vic", "VIEWER")]),
    ({"roles": ["ADMIN"]}, [("ann", "OWNER"), ("bob", "MEMBER")]),
    ({"users": ["ann"]}, [("bob", "OWNER")]),
    ({"not": ["requester"]}, [("req", "OWNER")]),
    ({"roles": ["OWNER"], "not": ["requester"], "requester": "ann"}, [("ann", "OWNER")]),
])
async def test_403_of_a_reader_who_may_not_decide(
    keyed: Any, deciders: dict[str, Any] | None, refused: list[tuple[str, str]],
) -> None:
    attn = deciding(asking({**APPROVAL, **({"deciders": deciders} if deciders else {})}, by_user_id="req"))
    for user, role in refused:
        async with attn.client(user, role) as client:
            item = await get_item(client)
            shown = item["deciders"]
            may = user not in shown["excluded"] and (user in shown["users"] or role in shown["roles"])
            assert not may, "the item shows in advance that the user may not decide"
            status, body = await decide(client, headers=keyed())
            assert (status, set(body)) == (403, {"error"})
            assert (await get_item(client))["state"] == "unread"


async def test_the_default_deciders_are_a_setting(keyed: Any) -> None:
    attn = deciding(decider_roles="VIEWER,OWNER")
    async with attn.client("vic", "VIEWER") as vic, attn.client("bob", "MEMBER") as bob:
        for path in (f"/api/v1/inbox/{W}", f"/org/me/inbox/{W}"):
            assert (await vic.get(path)).json()["deciders"]["roles"] == ["OWNER", "VIEWER"]
        for path, name in (("/org/me/inbox", "items"), ("/api/v1/inbox", "rows")):
            assert (await vic.get(path)).json()[name][0]["deciders"]["roles"] == ["OWNER", "VIEWER"]
        assert (await decide(bob, headers=keyed()))[0] == 403
        assert (await decide(vic, headers=keyed()))[0] == 201


@pytest.mark.parametrize("target", [{"target_user_id": "bob"}, {"target_role": "ADMIN"}])
async def test_404_is_the_same_for_missing_and_invisible_items(
    keyed: Any, target: dict[str, str],
) -> None:
    attn = deciding(asking(APPROVAL, **target), asking({**APPROVAL}, "w2"))
    async with attn.client("ann", "OWNER") as ann, attn.client("bob", "ADMIN") as bob:
        digest = (await get_item(bob))["digest"]
        invisible = await decide(ann, digest=digest, headers=keyed())
        assert invisible == (404, {"error": "not found"})
        assert await decide(ann, item="ibx_none", digest=digest, headers=keyed()) == invisible
        assert await answer(ann.delete(f"/api/v1/inbox/{W}/decision", headers=keyed())) == invisible
        assert await answer(ann.delete("/api/v1/inbox/ibx_none/decision", headers=keyed())) == invisible
    async with attn.client("bob", "ADMIN", ws="other") as stranger:
        assert await decide(stranger, digest=digest, headers=keyed()) == invisible


@pytest.mark.parametrize(("ask", "option", "body", "fields"), [
    (APPROVAL, "maybe", {}, {"option"}),
    (APPROVAL, "no", {}, {"comment"}),
    (APPROVAL, "no", {"comment": "  "}, {"comment"}),
    (APPROVAL, "ok", {"comment": "x" * 4097}, {"comment"}),
    (APPROVAL, "ok", {"form": {"a": 1}}, {"form"}),
    (APPROVAL, "ok", {"args": {"a": 1}}, {"args"}),
    ({"form": FORM}, "approve", {}, {"form.reason"}),
    ({"form": FORM}, "approve", {"form": {"reason": "ab", "more": 1}}, {"form.reason", "form.more"}),
    ({"form": FORM}, "approve", {"form": {"reason": "abc", "count": 1.5}}, {"form.count"}),
    ({"form": FORM}, "approve", {"form": {"reason": "abc", "count": "1"}}, {"form.count"}),
    ({"form": FORM}, "approve", {"form": {"reason": 123}}, {"form.reason"}),
    ({"form": FORM}, "approve", {"form": ["reason"]}, {"form"}),
    ({"form": FORM}, "approve", {"form": "reason"}, {"form"}),
    (EDITABLE, "edit", {}, {"args"}),
    (EDITABLE, "edit", {"args": []}, {"args"}),
    (EDITABLE, "edit", {"args": {"to": "b", "amount": 5, "note": ""}}, {"args.to"}),
    (EDITABLE, "edit", {"args": {"amount": 5, "note": ""}}, {"args.to"}),
    (EDITABLE, "ok", {"args": {"to": "a", "amount": 5, "note": ""}}, {"args"}),
])
async def test_422_names_each_field(
    keyed: Any, ask: dict[str, Any], option: str, body: dict[str, Any], fields: set[str],
) -> None:
    attn = deciding(asking(ask))
    async with attn.client() as client:
        status, refused = await decide(client, option, headers=keyed(), **body)
        assert (status, set(refused["fields"])) == (422, fields)
        assert refused["error"]
        item = await get_item(client)
        assert (item["state"], item["votes"]) == ("unread", [])


async def test_an_answer_of_more_than_64_kib_is_refused(keyed: Any) -> None:
    attn = deciding(asking({"form": FORM}))
    async with attn.client() as client:
        status, body = await decide(client, "approve", form={"reason": "x" * 65_536}, headers=keyed())
        assert (status, set(body["fields"])) == (422, {"form"})
        assert (await decide(client, "approve", form={"reason": "x" * 65_000}, headers=keyed()))[0] == 201


async def test_the_digits_of_an_answer_reach_the_source(keyed: Any) -> None:
    attn = deciding(asking(
        '{"options":[{"id":"edit","does":"edit"}],"action":{"name":"pay","editable":["rate"],'
        '"args":{"id":12345678901234567890123,"amount":0.10000000000000000001,"rate":12.50}}}'))
    async with attn.client() as client:
        shown = (await client.get(f"/api/v1/inbox/{W}")).text
        assert '"args":{"id":12345678901234567890123,"amount":0.10000000000000000001,"rate":12.50}' in shown
        digest = json.loads(shown)["digest"]

        async def post(args: str) -> tuple[int, Any]:
            return await answer(client.post(
                f"/api/v1/inbox/{W}/decision", headers={**keyed(), "content-type": "application/json"},
                content=f'{{"digest":"{digest}", "option": "edit", "args": {args}}}'))

        other = '{"id":12345678901234567890124,"amount":0.10000000000000000002,"rate":12.50}'
        status, body = await post(other)
        assert (status, set(body["fields"])) == (422, {"args.id", "args.amount"}), "a change of the last digit counts"
        status, _ = await post('{"rate": 1.0e1, "id":12345678901234567890123,"amount":0.10000000000000000001}')
        assert status == 201
        [entry] = (await client.get("/org/me/decisions")).text.split('"decisions":')[1:]
        assert '"args":{"amount":0.10000000000000000001,"id":12345678901234567890123,"rate":1.0e1}' in entry
        assert json.loads((await client.get("/org/me/decisions")).text)["decisions"][0]["edited"] == ["/rate"]


@pytest.mark.parametrize("body", [
    "", "nothing", "[]", '"ok"', '{"option":"ok"}', '{"digest":"d"}', '{"option":1,"digest":"d"}',
    '{"option":"","digest":"d"}', '{"option":"ok","digest":"d","more":1}', '{"option":"ok","digest":"d","viewed":-1}',
    '{"option":"ok","digest":"d","viewed":"long"}', '{"option":"ok","digest":"d","comment":5}',
    '{"option":"ok","digest":"d","form":NaN}', '{"option":"ok","digest":"d","form":' + "[" * 200 + "]" * 200 + "}",
    '{"option":"ok","digest":"d","form":{"a":' + "9" * 5000 + "}}",
])
async def test_400_a_body_that_is_no_answer(body: str) -> None:
    attn = deciding()
    async with attn.client() as client:
        response = await client.post(
            f"/api/v1/inbox/{W}/decision", content=body, headers={"content-type": "application/json"})
        assert (response.status_code, set(response.json())) == (400, {"error"})


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH"])
@pytest.mark.parametrize("path", [
    f"/api/v1/inbox/{W}/decision", "/api/v1/inbox/decisions", "/pipelines/waitpoints/w/approve",
    "/pipelines/waitpoints/w/reject",
])
async def test_no_other_method_decides(method: str, path: str) -> None:
    attn = deciding()
    async with attn.client() as client:
        response = await client.request(method, path)
        expected = (404, 400) if (method, path) == ("PATCH", "/api/v1/inbox/decisions") else (405,)
        assert response.status_code in expected
        if response.status_code == 405:
            assert "POST" in response.headers["allow"]
        assert (await get_item(client))["state"] == "unread"
    assert not [fact for fact in attn.facts if getattr(fact, "type", "") == "vote.cast"]


# --- DELETE ---


async def take_back(client: Any, headers: dict[str, str]) -> tuple[int, Any]:
    return await answer(client.delete(f"/api/v1/inbox/{W}/decision", headers=headers))


async def test_a_decision_is_undone_and_made_again(keyed: Any) -> None:
    attn = deciding()
    async with attn.client("ann") as ann, attn.client("bob", "ADMIN") as bob:
        assert await take_back(ann, keyed()) == (404, {"error": "not found"}), "no decision exists yet"
        _, made = await decide(ann)
        status, body = await take_back(bob, keyed())
        assert (status, body["decision"]) == (403, made["decision"])
        status, body = await take_back(ann, keyed())
        assert (status, body["decision"]["id"], body["decision"]["state"]) == (
            200, made["decision"]["id"], "taken_back")
        assert await take_back(ann, keyed()) == (200, body), "a repeat gives the same answer"
        item = await get_item(bob)
        assert (item["state"], item["decision"]["state"]) == ("unread", "taken_back")
        status, again = await decide(bob, "no", comment="c", headers=keyed())
        assert (status, again["decision"]["id"] != made["decision"]["id"]) == (201, True)


async def test_a_decision_is_not_taken_back_after_its_time(keyed: Any) -> None:
    attn = deciding()
    async with attn.client("ann") as ann:
        await decide(ann)
        attn.tick(5)
        status, body = await take_back(ann, keyed())
    assert (status, body["decision"]["state"]) == (409, "sending")


async def test_decisions_are_off(keyed: Any) -> None:
    attn = deciding(decisions="off")
    async with attn.client() as client:
        assert "ask" not in await get_item(client)
        assert (await decide(client, headers=keyed()))[0] == 409
        assert (await decide(client, item="ibx_none", headers=keyed()))[0] == 404
        assert (await take_back(client, keyed()))[0] == 404
        assert (await answer(client.post("/pipelines/waitpoints/w/approve")))[0] == 409
        status, body = await answer(client.post("/api/v1/inbox/decisions", json={"ids": [W], "option": "ok"}))
        assert (status, body["skipped_ids"]) == (200, [W])
        assert (await client.get("/org/me/decisions")).json()["decisions"] == []


async def test_a_digest_is_of_an_empty_body_too() -> None:
    attn = deciding(asking(APPROVAL, "w", body_md=""), asking(APPROVAL, "w2"))
    async with attn.client() as client:
        for name in ("w", "w2"):
            item = await get_item(client, item_id("ws", "waitpoint", name))
            assert item["digest"] == digest_of(item)


