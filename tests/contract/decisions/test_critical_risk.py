"""An action with risk `critical` needs a recent and strong sign-in (ATTN_CRITICAL_MAX_AGE, ATTN_CRITICAL_ACR)."""

from __future__ import annotations

from typing import Any

import pytest
from support.edge.asking import APPROVAL, asking, get_item
from support.edge.edge_with_fold import Deciding

from api.http.auth.cookies import csrf_of
from api.http.auth.sessions import Grant, Identity, open_session
from streams.core.domain.keys import item_id

CRITICAL = {**APPROVAL, "action": {"name": "drop", "risk": "critical"}}
ITEM = item_id("ws", "waitpoint", "a")


async def answers(attn: Deciding, client: Any, csrf: dict[str, str]) -> list[int]:
    """Returns the status of the four ways to decide; the last one has an idempotency key."""
    digest = (await get_item(client, ITEM))["digest"]
    body = {"option": "ok", "digest": digest}
    url = f"/api/v1/inbox/{ITEM}/decision"
    return [
        (await client.post("/api/v1/inbox/decisions", json={"ids": [ITEM], "option": "ok"}, headers=csrf)).status_code,
        (await client.post("/pipelines/waitpoints/a/approve", json={}, headers=csrf)).status_code,
        (await client.post(url, json=body, headers=csrf | {"idempotency-key": "k"})).status_code,
        (await client.post(url, json=body, headers=csrf)).status_code]


async def in_session(attn: Deciding, age: float, acr: str | None) -> list[int]:
    identity = Identity("ann", auth_time=attn.now - age, acr=acr)
    opened = await open_session(attn.edges[0], identity, [Grant("ws", "ADMIN")], device="", via="oidc")
    csrf = csrf_of(opened.text)
    cookie = {"cookie": f"attn_session={opened.text}; attn_csrf={csrf}"}
    async with attn.client(headers=cookie) as client:
        return await answers(attn, client, {"x-csrf-token": csrf})


@pytest.mark.parametrize(("settings", "age", "acr", "allowed"), [
    ({"critical_max_age": 300}, 299, None, True),
    ({"critical_max_age": 300}, 301, "mfa", False),
    ({"critical_acr": "mfa hardware"}, 10**6, "hardware", True),
    ({"critical_acr": "mfa"}, 1, "pwd", False),
    ({"critical_acr": "mfa"}, 1, None, False),
    ({"critical_acr": "mfa", "critical_max_age": 300}, 301, "mfa", False),
    ({}, 10**6, None, True),
])
async def test_a_session_by_its_sign_in(settings: dict[str, Any], age: float, acr: str | None, allowed: bool) -> None:
    attn = Deciding(**settings)
    attn.happen(asking(CRITICAL, "a"))
    statuses = await in_session(attn, age, acr)
    assert statuses == [403] * 4 if not allowed else statuses[0] == 200


async def test_other_risks_are_decided_by_everyone() -> None:
    attn = Deciding(critical_acr="mfa", critical_max_age=1)
    attn.happen(asking({**APPROVAL, "action": {"name": "drop", "risk": "high"}}, "a"))
    assert (await in_session(attn, 10**6, None))[0] == 200


async def test_a_token_has_no_acr() -> None:
    attn = Deciding(critical_acr="mfa")
    attn.happen(asking(CRITICAL, "a"))
    async with attn.client("ann") as client:
        assert await answers(attn, client, {}) == [403] * 4
        answer = await client.post("/pipelines/waitpoints/a/approve", json={})
    assert answer.json()["sign_in"] == "/auth/login?strong"
