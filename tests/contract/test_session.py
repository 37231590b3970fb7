"""Cookies, CSRF and who I am (CONTRACT §4, A2)."""

from __future__ import annotations

from http.cookies import SimpleCookie

from support.deciding import Deciding, message
from support.edges import token

from streams.core.keys import item_id

M = item_id("ws", "message", "m")
URL = f"/api/v1/inbox/{M}"
READ = {"state": "read"}


def attn() -> Deciding:
    found = Deciding()
    found.happen(message("m"))
    return found


def mine(**more: object) -> str:
    return token("ann", "OWNER", ws="ws", seconds=10 * 365 * 86400, **more)


async def test_a_token_becomes_cookies_and_goes_again() -> None:
    async with attn().client(headers={}) as client:
        answer = await client.post("/auth/session", json={"token": mine(name="Ann")})
        assert answer.status_code == 200
        who = answer.json()
        assert {name: who[name] for name in ("user_id", "name", "workspace_id", "role")} == {
            "user_id": "ann", "name": "Ann", "workspace_id": "ws", "role": "OWNER"}
        assert (await client.get("/org/me")).json() == who
        assert (await client.get("/org/me/inbox")).status_code == 200
        ended = await client.delete("/auth/session", headers={"x-csrf-token": client.cookies["attn_csrf"]})
        assert ended.status_code == 204
        assert (await client.get("/org/me")).status_code == 401


async def test_cookies_are_not_for_scripts_nor_for_plain_http_beyond_this_machine() -> None:
    for url, secure in (("http://127.0.0.1:8080", False), ("http://localhost", False), ("http://attn.example", True)):
        async with attn().client(headers={}) as client:
            answer = await client.post(f"{url}/auth/session", json={"token": mine()})
            cookies = {name: one for line in answer.headers.get_list("set-cookie")
                       for name, one in SimpleCookie(line).items()}
            session, csrf = cookies["attn_session"], cookies["attn_csrf"]
            assert (bool(session["httponly"]), bool(csrf["httponly"])) == (True, False)
            assert {one["samesite"] for one in (session, csrf)} == {"lax"}
            assert {bool(one["secure"]) for one in (session, csrf)} == {secure}
            assert int(session["max-age"]) > 0


async def test_a2_a_write_with_the_cookie_needs_the_header() -> None:
    async with attn().client(headers={}) as client:
        await client.post("/auth/session", json={"token": mine()})
        csrf = client.cookies["attn_csrf"]
        for headers in ({}, {"x-csrf-token": ""}, {"x-csrf-token": "guess"}, {"x-csrf-token": csrf + "x"}):
            answer = await client.patch(URL, json=READ, headers=headers)
            assert answer.status_code == 403, headers
            assert "X-CSRF-Token" in answer.json()["error"]
            assert (await client.delete("/auth/session", headers=headers)).status_code == 403
        assert (await client.patch(URL, json=READ, headers={"x-csrf-token": csrf})).status_code == 200
        del client.cookies["attn_csrf"]
        assert (await client.patch(URL, json=READ, headers={"x-csrf-token": ""})).status_code == 403
        assert (await client.patch(URL, json=READ, headers={"authorization": f"Bearer {mine()}"})).status_code == 200


async def test_what_is_no_token_makes_no_session() -> None:
    async with attn().client(headers={}) as client:
        for body, status in (({"token": "x"}, 401), ({"token": ""}, 400), ({}, 400), ({"token": mine(), "x": 1}, 400),
                             ({"token": token(seconds=-10**9)}, 401)):
            answer = await client.post("/auth/session", json=body)
            assert answer.status_code == status, body
            assert answer.json()["error"]
            assert "set-cookie" not in answer.headers
        assert (await client.get("/org/me")).status_code == 401
        assert (await client.patch(URL, json=READ)).status_code in (401, 403)
