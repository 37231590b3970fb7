"""Sign-in links: each opens one session, on any edge, and only by a POST of the page (CONTRACT §9)."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from support.edge.edge_with_fold import WS, Deciding
from support.edge.sessions import new_link

from api.http.auth.cookies import csrf_of


async def redeem(attn: Deciding, text: str, edge: int = 0, **headers: str) -> httpx.Response:
    async with attn.client(edge=edge, headers=headers) as client:
        return await client.post("/auth/link", json={"link": text})


async def test_a_link_signs_in_once() -> None:
    attn = Deciding(edges=2)
    text = new_link(attn)
    answer = await redeem(attn, text, **{"user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:1.0) Firefox/1.0"})
    assert (answer.status_code, answer.json()) == (200, {"user_id": "me", "workspace_id": WS, "role": "MANAGER"})
    session = answer.cookies["attn_session"]
    assert answer.cookies["attn_csrf"] == csrf_of(session) == answer.headers["x-csrf-token"]
    cookies = answer.headers.get_list("set-cookie")
    assert "HttpOnly" in cookies[0]
    assert all("SameSite=lax" in cookie for cookie in cookies)
    async with attn.client(edge=1, headers={"cookie": f"attn_session={session}"}) as client:
        assert (await client.get("/org/me")).json()["name"] == "Me"
        listed = (await client.get("/org/me/sessions")).json()["sessions"][0]
        assert (listed["via"], listed["device"]) == ("link", "Firefox on Linux")
    assert [(await redeem(attn, text, edge)).status_code for edge in (0, 1)] == [410, 410]
    secret = text[-49:]
    assert secret.encode() not in b"".join(attn.log) + b"".join(attn.rows.values()) + repr(attn.facts).encode()


async def test_one_of_many_requests_on_two_edges_uses_the_link() -> None:
    attn = Deciding(edges=2)
    text = new_link(attn)
    attn.held = True  # all requests pass the edges' own check before the fold decides
    requests = [asyncio.create_task(redeem(attn, text, number % 2)) for number in range(10)]
    await asyncio.sleep(0.1)
    attn.held = False
    answers = sorted([answer.status_code for answer in await asyncio.gather(*requests)])
    assert answers == [200] + [410] * 9
    assert len(attn.edges[0].replica.access.sessions) == 1


async def test_an_expired_or_invented_link_is_like_a_used_one() -> None:
    attn = Deciding()
    old, used, other = new_link(attn, 60), new_link(attn), new_link(Deciding())
    assert (await redeem(attn, used)).status_code == 200
    attn.now += 60
    answers = [await redeem(attn, text) for text in (old, used, other, used[:-1] + "x", "x", "attnl_")]
    assert {answer.status_code for answer in answers} == {410}
    assert len({answer.text for answer in answers}) == 1
    attn.tick(600)
    assert not attn.edges[0].replica.access.links


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT"])
async def test_no_other_method_uses_a_link(method: str) -> None:
    attn = Deciding()
    text = new_link(attn)
    async with attn.client(headers={}) as client:
        for path in ("/auth/link", f"/auth/link?link={text}"):
            assert (await client.request(method, path)).status_code in (404, 405)
    assert (await redeem(attn, text)).status_code == 200


async def test_another_site_cannot_sign_a_browser_in_and_plain_http_is_refused() -> None:
    attn = Deciding()
    text = new_link(attn)
    assert (await redeem(attn, text, **{"sec-fetch-site": "cross-site"})).status_code == 403
    assert (await redeem(attn, text, origin="http://attn.example")).status_code == 400
    async with attn.client(headers={}) as client:
        form = await client.post("/auth/link", data={"link": text})
        assert form.status_code == 400, "a form of another site cannot send JSON"
    answer = await redeem(attn, text, origin="https://attn.example")
    assert "Secure" in answer.headers["set-cookie"]


async def test_an_edge_that_has_not_caught_up_answers_503() -> None:
    attn = Deciding(log_partitions=2, partitions="0")
    assert (await redeem(attn, new_link(Deciding()))).status_code == 410, "an edge knows the links of all partitions"
    attn.edges[0].ready = False
    assert (await redeem(attn, "x")).status_code == 503
