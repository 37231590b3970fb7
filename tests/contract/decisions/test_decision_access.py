"""Access to the decision routes: an authenticated caller, with the CSRF header if a cookie authenticates, within
limits."""

from __future__ import annotations

from typing import Any

import pytest
from support.edge.asking import APPROVAL, W, answer, asking, decide, deciding, get_item
from support.edge.edge_with_fold import WS
from support.edge.edges import token

YEARS = 10 * 365 * 86400
WRITES: list[tuple[str, str, Any]] = [
    ("POST", f"/api/v1/inbox/{W}/decision", {"option": "ok", "digest": "d"}),
    ("DELETE", f"/api/v1/inbox/{W}/decision", None),
    ("POST", "/api/v1/inbox/decisions", {"ids": [W], "option": "ok"}),
    ("POST", "/pipelines/waitpoints/w/approve", None),
    ("POST", "/pipelines/waitpoints/w/reject", {"comment": "c"}),
]


@pytest.mark.parametrize(("method", "path", "body"), [*WRITES, ("GET", "/org/me/decisions", None)])
async def test_401_without_a_caller(method: str, path: str, body: Any) -> None:
    attn = deciding()
    async with attn.client(headers={}) as client:
        status, answered = await answer(client.request(method, path, json=body))
        assert (status, set(answered)) == (401, {"error"})
        expired = {"authorization": f"Bearer {token('ann', ws=WS, seconds=-(10**9))}"}
        assert (await client.request(method, path, json=body, headers=expired)).status_code == 401
    assert not attn.log[1:], "nothing was appended to the log"


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
async def test_403_with_the_cookie_and_without_its_csrf_header(method: str, path: str, body: Any) -> None:
    attn = deciding()
    async with attn.client(headers={}) as client:
        session = token("ann", ws=WS, seconds=YEARS)
        for csrf, sent in (("c", None), ("c", "other"), (None, "c")):
            cookies = f"attn_session={session}" + (f"; attn_csrf={csrf}" if csrf else "")
            headers = {"cookie": cookies, **({"x-csrf-token": sent} if sent else {})}
            assert (await client.request(method, path, json=body, headers=headers)).status_code == 403
        assert not attn.log[1:], "nothing was appended to the log"
        headers = {"cookie": f"attn_session={session}; attn_csrf=c", "x-csrf-token": "c"}
        assert (await client.request(method, path, json=body, headers=headers)).status_code != 403


async def test_429_too_many_writes() -> None:
    attn = deciding(asking(APPROVAL), write_rate=0.001, write_burst=1)
    async with attn.client("ann") as ann:
        digest = (await get_item(ann))["digest"]
        assert (await decide(ann, digest=digest))[0] == 201
        response = await ann.post(f"/api/v1/inbox/{W}/decision", json={"option": "ok", "digest": digest})
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) > 0


async def test_413_a_body_beyond_the_limit() -> None:
    attn = deciding(max_request=2048)
    async with attn.client("ann") as ann:
        assert (await decide(ann, digest="d", comment="x" * 4000))[0] == 413


async def test_503_while_the_log_cannot_be_written_and_the_repeat_with_its_key_is_counted_once() -> None:
    attn = deciding(write_seconds=0.05)
    async with attn.client("ann") as ann:
        digest = (await get_item(ann))["digest"]
        key = {"idempotency-key": "k"}
        attn.held = True
        status, body = await decide(ann, digest=digest, headers=key)
        assert (status, "may still be applied" in body["error"]) == (503, True)
        attn.held = False
        attn.work()
        attn.edges[0].command_log._seconds = 30
        status, body = await decide(ann, digest=digest, headers=key)
        assert (status, body["decision"]["actors"][0]["user"]) == (201, "ann")
    assert [fact.type for fact in attn.facts if getattr(fact, "type", "") == "vote.cast"] == ["vote.cast"]


async def test_a_role_that_sees_lower_roles_decides_in_its_own_role() -> None:
    attn = deciding(asking({**APPROVAL, "deciders": {"roles": ["MEMBER"]}}, target_role="MEMBER"),
                    role_visibility="at-least")
    async with attn.client("ann", "OWNER") as ann, attn.client("bob", "MEMBER") as bob:
        assert (await get_item(ann))["state"] == "unread", "an owner sees items of members"
        assert (await decide(ann))[0] == 403, "the ask names members as deciders"
        assert (await decide(bob))[0] == 201
