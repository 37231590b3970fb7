"""Sign-in of a terminal: it requests a code, a user answers in a browser, and it gets its own session (CONTRACT §9, RFC
8628)."""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakKeyDictionary

import httpx
import pytest
from support.edge.edge_with_fold import WS, Deciding
from support.edge.edges import bearer
from support.edge.sessions import cookie_of, signed_in

from api.http.app import create_app
from api.http.auth.sessions import OpenedSession, change_session, end_sessions

_apps: WeakKeyDictionary[Deciding, dict[int, Any]] = WeakKeyDictionary()
START, TOKEN, SHOW, ANSWER = "/auth/device", "/auth/device/token", "/auth/device/request", "/auth/device/answer"


async def post(attn: Deciding, path: str, body: Any, edge: int = 0, **headers: str) -> httpx.Response:
    apps = _apps.setdefault(attn, {})
    # one app per edge, because it counts polls and wrong codes
    app = apps[edge] = apps.get(edge) or create_app(attn.edges[edge])
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://127.0.0.1", headers=headers,
    ) as client:
        return await client.post(path, json=body)


async def start(attn: Deciding, edge: int = 0) -> dict[str, Any]:
    answer = await post(attn, START, {"device": "attn on\x1b[2J host"}, edge)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    return dict(answer.json())


def sealed(started: dict[str, Any]) -> str:
    base, _, text = started["verification_uri"].partition("/#device=")
    assert base == "http://127.0.0.1"
    return str(text)


async def respond(
    attn: Deciding, started: dict[str, Any], opened: OpenedSession, edge: int = 0, allow: bool = True,
    code: str | None = None,
) -> httpx.Response:
    body = {"request": sealed(started), "allow": allow, "user_code": started["user_code"] if code is None else code}
    return await post(attn, ANSWER, body, edge, **cookie_of(opened))


async def poll(attn: Deciding, started: dict[str, Any], edge: int = 0) -> tuple[int, str]:
    attn.now += 5
    answer = await post(attn, TOKEN, {"device_code": started["device_code"]}, edge)
    body = answer.json()
    return answer.status_code, body.get("error") or body["access_token"]


async def terminal(attn: Deciding, opened: OpenedSession) -> str:
    started = await start(attn)
    assert (await respond(attn, started, opened)).status_code == 200
    status, text = await poll(attn, started)
    assert status == 200
    return text


async def test_a_terminal_gets_a_session_of_its_own_from_two_edges() -> None:
    attn = Deciding(edges=2)
    opened = await signed_in(attn, "ann", "MANAGER", name="Ann")
    started = await start(attn)
    assert (started["expires_in"], started["interval"]) == (600, 5)
    records = len(attn.log)
    assert await poll(attn, started, 1) == (400, "authorization_pending")
    shown = await post(attn, SHOW, {"request": sealed(started)}, 1, **cookie_of(opened))
    assert shown.status_code == 200
    assert shown.json()["device"] == "attn on [2J host"
    assert len(attn.log) == records  # a request without an answer is not stored
    assert (await respond(attn, started, opened, 1, code=started["user_code"].lower().replace("-", " "))).json() == {
        "allowed": True}
    status, text = await poll(attn, started)
    assert status == 200
    async with attn.client(edge=1, headers={"authorization": f"Bearer {text}"}) as client:
        me = (await client.get("/org/me")).json()
        assert (me["user_id"], me["name"], me["role"], me["workspace_id"]) == ("ann", "Ann", "MANAGER", WS)
        sessions = (await client.get("/org/me/sessions")).json()["sessions"]
        own = next(session for session in sessions if session["current"])
        assert (own["via"], own["device"]) == ("device", "attn on [2J host")
        assert (await client.delete(f"/org/me/sessions/{own['id']}")).status_code == 200
        assert (await client.get("/org/me")).status_code == 401
    stored = b"".join(attn.log) + b"".join(attn.rows.values()) + repr(attn.facts).encode()
    for secret in (text[-49:], started["device_code"][22:70]):
        assert secret.encode() not in stored


async def test_a_code_counts_once_on_any_edge() -> None:
    attn = Deciding(edges=2)
    opened, started = await signed_in(attn), await start(attn)
    assert (await respond(attn, started, opened)).status_code == 200
    assert (await respond(attn, started, opened, 1)).status_code == 409
    attn.held = True  # both requests pass the edges' own check before the fold decides
    polls = [asyncio.create_task(poll(attn, started, edge)) for edge in (0, 1)]
    await asyncio.sleep(0.1)
    attn.held = False
    statuses = sorted([status for status, _ in await asyncio.gather(*polls)])
    assert statuses == [200, 400]
    assert await poll(attn, started) == await poll(attn, started, 1) == (400, "invalid_grant")
    assert (await respond(attn, started, opened)).status_code == 409  # the same terminal cannot be approved twice
    assert await poll(attn, started) == (400, "invalid_grant")


async def test_denied() -> None:
    attn = Deciding(edges=2)
    opened, started = await signed_in(attn), await start(attn)
    assert (await respond(attn, started, opened, allow=False, code="")).json() == {"allowed": False}
    assert await poll(attn, started, 1) == (400, "access_denied")
    assert (await respond(attn, started, opened, 1)).status_code == 409
    assert await poll(attn, started) == (400, "access_denied")


async def test_expired() -> None:
    attn = Deciding()
    opened, late, allowed = await signed_in(attn), await start(attn), await start(attn)
    assert (await respond(attn, allowed, opened)).status_code == 200
    attn.now += 600
    assert (await respond(attn, late, opened)).status_code == 410
    assert await poll(attn, late) == await poll(attn, allowed) == (400, "expired_token")
    attn.tick(601)
    assert not attn.edges[0].replica.access.links


async def test_wrong_codes_use_the_request_up() -> None:
    attn = Deciding()
    opened, started = await signed_in(attn), await start(attn)
    for code in ("", "BCDF-GHJK", "\u00df" * 100, started["user_code"][:-1], started["user_code"] + "B"):
        answer = await respond(attn, started, opened, code=code)
        assert answer.status_code == 400
        assert "user_code" in answer.json()["error"]
    assert (await respond(attn, started, opened)).status_code == 410
    assert await poll(attn, started) == (400, "authorization_pending")


async def test_polls_are_limited() -> None:
    attn = Deciding()
    started = await start(attn)
    body = {"device_code": started["device_code"]}
    errors = [(await post(attn, TOKEN, body)).json()["error"] for _ in range(3)]
    assert errors == ["authorization_pending", "slow_down", "slow_down"]
    assert await poll(attn, started) == (400, "authorization_pending")


async def test_texts_that_no_edge_issued() -> None:
    attn, other = Deciding(), Deciding(jwt_secret="another secret of more than 32 bytes, for tests")
    opened = await signed_in(attn)
    first, second, foreign = await start(attn), await start(attn), await start(other)
    secret, _, _ = first["device_code"].partition(".")
    for code in (secret, f"{secret}.{sealed(second)}", foreign["device_code"], sealed(first),
                 "\u00e4.s1.x.\u00e4", "."):
        answer = await post(attn, TOKEN, {"device_code": code})
        assert (answer.status_code, answer.json()) == (400, {"error": "invalid_grant"})
    for text in (sealed(foreign), sealed(first)[:-2], "\u00e4", "s1.", first["device_code"]):
        assert (await post(attn, SHOW, {"request": text}, **cookie_of(opened))).status_code == 410
    used = await post(attn, "/auth/link", {"link": secret})
    assert used.status_code == 410


async def test_users_who_may_answer() -> None:
    attn = Deciding()
    opened, started = await signed_in(attn), await start(attn)
    body = {"request": sealed(started), "allow": True, "user_code": started["user_code"]}
    assert (await post(attn, ANSWER, body)).status_code == 401
    # a request of another site has no CSRF header
    assert (await post(attn, ANSWER, body, **cookie_of(opened, writes=False))).status_code == 403
    token = bearer("ann", "OWNER", ws=WS, seconds=10**9)
    assert (await post(attn, ANSWER, body, **token)).status_code == 403
    text = await terminal(attn, opened)
    assert (await post(attn, ANSWER, body, authorization=f"Bearer {text}")).status_code == 403
    async with attn.client(headers=cookie_of(opened)) as client:
        for path in (START, TOKEN, SHOW, ANSWER):
            assert (await client.get(path, params=body)).status_code in (404, 405)
    assert await poll(attn, started) == (400, "authorization_pending")


async def test_answers_of_a_user_are_bounded() -> None:
    attn = Deciding(write_burst=1000)
    opened = await signed_in(attn)
    for number in range(21):
        answer = await respond(attn, await start(attn), opened, allow=False)
        assert answer.status_code == (200 if number < 20 else 429)
    attn.tick(1300)
    assert (await respond(attn, await start(attn), opened)).status_code == 200


async def status_of(attn: Deciding, text: str) -> int:
    async with attn.client(headers={"authorization": f"Bearer {text}"}) as client:
        return (await client.get("/org/me")).status_code


@pytest.mark.parametrize("end", ["signed out", "expired"])
async def test_the_session_of_a_terminal_ends_with_the_one_that_approved_it(end: str) -> None:
    attn = Deciding()
    opened, other = await signed_in(attn), await signed_in(attn)
    text, stays = await terminal(attn, opened), await terminal(attn, other)
    waiting = await start(attn)
    assert (await respond(attn, waiting, opened)).status_code == 200
    if end == "signed out":
        await end_sessions(attn.edges[0], session=opened.id, reason=end)
    else:
        await change_session(attn.edges[0], other.id, WS, expires_at=int((attn.now + 10**7) * 10**6))
        attn.tick(31 * 86400)
    assert await status_of(attn, text) == 401
    assert await poll(attn, waiting) == (400, "invalid_grant" if end == "signed out" else "expired_token")
    assert await status_of(attn, stays) == (200 if end == "signed out" else 401)


async def test_the_session_of_a_terminal_follows_the_role() -> None:
    attn = Deciding()
    opened = await signed_in(attn, "ann", "ADMIN")
    text, waiting = await terminal(attn, opened), await start(attn)
    assert (await respond(attn, waiting, opened)).status_code == 200
    await change_session(attn.edges[0], opened.id, WS, role="VIEWER")
    async with attn.client(headers={"authorization": f"Bearer {text}"}) as client:
        assert (await client.get("/org/me")).json()["role"] == "VIEWER"
    # the terminal was approved with a role that the user no longer has
    assert await poll(attn, waiting) == (400, "invalid_grant")


async def test_the_session_of_a_terminal_is_no_new_sign_in() -> None:
    attn = Deciding()
    opened = await signed_in(attn, auth_time=attn.now - 1000, acr="mfa")
    await terminal(attn, opened)
    rows = attn.edges[0].replica.access.sessions.of_user(WS, "ann")
    child = next(row for row in rows if row.via == "device")
    parent = next(row for row in rows if row.id == opened.id)
    assert (child.auth_time, child.acr, child.expires_at) == (parent.auth_time, None, parent.expires_at)


async def test_the_oldest_session_ends_but_not_the_one_that_approves() -> None:
    attn = Deciding(max_sessions=2)
    opened, second = await signed_in(attn), await signed_in(attn)
    text = await terminal(attn, opened)
    assert await status_of(attn, text) == 200
    assert await status_of(attn, opened.text) == 200
    assert await status_of(attn, second.text) == 401
