"""attn's own sessions over HTTP: workspaces, lists, ends, lifetimes, CSRF (CONTRACT §9)."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
from support.edge.edge_with_fold import WS, Deciding, message, waitpoint
from support.edge.sessions import cookie_of, signed_in

from api.http.app import create_app
from api.http.auth.sessions import change_session, end_sessions, refresh_token_of
from schemas.scalars import HOUR, SECOND


async def status(attn: Deciding, headers: dict[str, str], edge: int = 0, path: str = "/org/me/inbox") -> int:
    async with attn.client(edge=edge, headers=headers) as client:
        return (await client.get(path)).status_code


async def test_a_session_is_a_short_cookie_that_every_edge_accepts() -> None:
    attn = Deciding(edges=2)
    attn.happen(message("all"), message("hers", target_user_id="ann"), message("his", target_user_id="bob"))
    opened = await signed_in(attn, name="Ann")
    assert re.fullmatch(r"attns_[0-9A-Za-z]{16}_[0-9A-Za-z]{49}", opened.text)
    assert len(opened.text) < 100
    for edge in (0, 1):
        async with attn.client(edge=edge, headers=cookie_of(opened, writes=False)) as client:
            me = await client.get("/org/me")
            assert me.json() == {
                "user_id": "ann", "name": "Ann", "workspace_id": WS, "role": "MEMBER", "session_id": opened.id,
                "expires_at": "2026-05-23T13:00:00Z", "workspaces": [{"id": WS, "role": "MEMBER"}]}
            assert me.headers["x-csrf-token"]
            items = (await client.get("/org/me/inbox")).json()["items"]
            assert sorted(item["source_id"] for item in items) == ["all", "hers"]
    attn.restart()
    assert [await status(attn, cookie_of(opened), edge) for edge in (0, 1)] == [200, 200]


async def test_the_text_of_a_session_is_in_no_record() -> None:
    attn = Deciding()
    opened = await signed_in(attn, refresh_token="the issuer's refresh token")
    secret = opened.text[len("attns_") + 17:]
    everything = b"".join(attn.log) + b"".join(attn.rows.values()) + repr(attn.facts).encode()
    assert secret.encode() not in everything
    assert b"refresh token" not in everything
    row = attn.edges[0].replica.access.sessions.get(opened.id, WS)
    assert row is not None
    assert refresh_token_of(attn.edges[0], row) == "the issuer's refresh token"


async def test_the_request_chooses_among_the_workspaces_of_the_session() -> None:
    attn = Deciding()
    opened = await signed_in(attn, "ann", "", ("one", "OWNER"), ("zwei & drei/ü", "VIEWER"))
    both = [{"id": "one", "role": "OWNER"}, {"id": "zwei & drei/ü", "role": "VIEWER"}]

    async def me(path: str = "/org/me", **headers: str) -> tuple[int, Any]:
        sent = cookie_of(opened)
        if "cookie" in headers:
            headers["cookie"] = f"{sent['cookie']}; {headers['cookie']}"
        async with attn.client(headers=sent | headers) as client:
            answer = await client.get(path)
            return answer.status_code, answer.json().get("workspace_id", answer.json().get("error"))

    encoded = "zwei%20%26%20drei%2F%C3%BC"
    assert await me(f"/org/me?workspace={encoded}") == (200, "zwei & drei/ü")
    assert await me(**{"x-attn-workspace": encoded}) == (200, "zwei & drei/ü")
    assert await me(**{"x-attn-workspace": "one"}) == (200, "one")
    assert await me(cookie=f"attn_workspace={encoded}") == (200, "zwei & drei/ü")
    assert await me(cookie="attn_workspace=one", **{"x-attn-workspace": encoded}) == (200, "zwei & drei/ü")
    assert await me(cookie="attn_workspace=gone") == await me(), (
        "a remembered workspace that the session no longer has is ignored")
    absent = await me("/org/me?workspace=absent")
    attn.happen(message("m", ws="not-hers"))
    assert await me("/org/me?workspace=not-hers") == absent == (404, "not found")
    async with attn.client(headers=cookie_of(opened)) as client:
        assert (await client.get("/org/me")).json()["workspaces"] == both


async def test_writes_with_a_session_need_its_csrf_value() -> None:
    attn = Deciding()
    attn.happen(message("m"))
    opened, other = await signed_in(attn), await signed_in(attn, "bob")
    async with attn.client("ann", "MEMBER") as client:
        item = (await client.get("/org/me/inbox")).json()["items"][0]["id"]
    wrong = cookie_of(opened, **{"x-csrf-token": cookie_of(other)["x-csrf-token"]})
    for headers, wanted in ((cookie_of(opened, writes=False), 403), (wrong, 403), (cookie_of(opened), 200),
                            ({"authorization": f"Bearer {opened.text}"}, 200)):
        async with attn.client(headers=headers) as client:
            assert (await client.post(f"/org/me/inbox/{item}/dismiss")).status_code == wanted


async def test_own_sessions_are_listed_and_ended() -> None:
    attn = Deciding(edges=2)
    first, second, other = await signed_in(attn), await signed_in(attn, edge=1), await signed_in(attn, "bob")
    async with attn.client(headers=cookie_of(first)) as client:
        listed = (await client.get("/org/me/sessions")).json()["sessions"]
        assert {(session["id"], session["current"]) for session in listed} == {(first.id, True), (second.id, False)}
        assert set(listed[0]) == {"id", "user_id", "role", "via", "device", "address", "created_at", "last_used",
                                  "expires_at", "current"}
        assert (await client.delete(f"/org/me/sessions/{other.id}")).status_code == 404
        assert (await client.delete("/org/me/sessions/absent")).status_code == 404
        ended = await client.delete(f"/org/me/sessions/{second.id}")
        assert (ended.status_code, ended.json()) == (200, {"ended": [second.id]})
        assert [await status(attn, cookie_of(second), edge) for edge in (0, 1)] == [401, 401]
    third = await signed_in(attn)
    async with attn.client(headers=cookie_of(first)) as client:
        assert (await client.delete("/org/me/sessions?others=true")).json() == {"ended": [third.id]}
        assert (await client.delete("/org/me/sessions")).json() == {"ended": [first.id]}
        assert (await client.get("/org/me")).status_code == 401
    assert await status(attn, cookie_of(other)) == 200


async def test_a_session_ends_in_all_its_workspaces_by_its_user_and_in_one_by_an_administrator() -> None:
    attn = Deciding()
    both = (("one", "MEMBER"), ("two", "OWNER"))
    a, b, c = [await signed_in(attn, "ann", "", *both) for _ in range(3)]
    async with attn.client(headers=cookie_of(a)) as client:
        assert (await client.delete(f"/org/me/sessions/{b.id}?workspace=one")).status_code == 200
    assert not attn.edges[0].replica.access.sessions.of(b.id)
    async with attn.client("root", "ADMIN", ws="two") as client:
        assert len((await client.get("/org/sessions")).json()["sessions"]) == 2
        assert len((await client.get("/org/sessions?user=ann")).json()["sessions"]) == 2
        assert (await client.get("/org/sessions?user=bob")).json()["sessions"] == []
        assert sorted((await client.delete("/org/users/ann/sessions")).json()["ended"]) == sorted([a.id, c.id])
    assert await status(attn, cookie_of(a, **{"x-attn-workspace": "two"})) == 404
    assert await status(attn, cookie_of(a, **{"x-attn-workspace": "one"})) == 200
    async with attn.client("ann", "MEMBER", ws="one") as client:  # a token is for one workspace
        attn_rows = attn.edges[0].replica.access.sessions
        d = await signed_in(attn, "ann", "", *both)
        assert (await client.delete(f"/org/me/sessions/{d.id}")).status_code == 200
        assert [row.ws for row in attn_rows.of(d.id)] == ["two"], "the answer has only the caller's workspace"


@pytest.mark.parametrize("role", ["MANAGER", "MEMBER", "VIEWER"])
async def test_other_roles_manage_only_their_own_sessions(role: str) -> None:
    attn = Deciding()
    opened, victim = await signed_in(attn, "eve", role), await signed_in(attn, "ann")
    async with attn.client(headers=cookie_of(opened)) as client:
        assert (await client.get("/org/sessions")).status_code == 403
        assert (await client.delete("/org/users/ann/sessions")).status_code == 403
        assert (await client.post("/org/tokens/revoke", json={"sub": "ann"})).status_code == 403
    assert await status(attn, cookie_of(victim)) == 200


async def test_signing_out_ends_the_session_and_deletes_the_cookies() -> None:
    attn = Deciding()
    opened = await signed_in(attn, "ann", "", (WS, "OWNER"), ("two", "OWNER"))
    async with attn.client(headers=cookie_of(opened)) as client:
        answer = await client.delete("/auth/session")
        assert answer.status_code == 204
        assert any(cookie.startswith('attn_session=""') for cookie in answer.headers.get_list("set-cookie"))
    assert not attn.edges[0].replica.access.sessions.of(opened.id)
    assert await status(attn, cookie_of(opened)) == 401


async def test_sign_out_without_a_log_reports_that_the_session_is_still_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    attn = Deciding(write_seconds=0.05)
    opened = await signed_in(attn)
    attn.edges[0].command_log.append = None
    async with attn.client(headers=cookie_of(opened)) as client:
        answer = await client.delete("/auth/session")
        assert answer.status_code == 503
        assert "end it in the list" in answer.json()["error"]
        assert answer.headers.get_list("set-cookie")


async def test_a_session_slides_and_ends_after_its_lifetime() -> None:
    attn = Deciding(session_idle_hours=2, session_days=1)
    used, idle = await signed_in(attn), await signed_in(attn)
    for _ in range(11):
        attn.now += 2 * 3600
        assert await status(attn, cookie_of(used)) == 200
        await settle()
    assert await status(attn, cookie_of(idle)) == 401
    attn.tick(2 * 3600)
    assert await status(attn, cookie_of(used)) == 401, "the absolute lifetime ended a day after the sign-in"
    attn.tick(1)
    assert len(attn.edges[0].replica.access.sessions) == 0


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_use_is_recorded_once_per_hour() -> None:
    attn = Deciding(edges=2)
    opened = await signed_in(attn)
    records = len(attn.log)
    for edge in (0, 1, 0):
        await status(attn, cookie_of(opened), edge)
        await settle()
    assert len(attn.log) == records, "use within the hour of the sign-in is not recorded again"
    attn.now += 3600
    for edge in (0, 1, 0):
        await status(attn, cookie_of(opened), edge)
        await settle()
    assert len(attn.log) == records + 1
    begin = int(attn.now * SECOND) // HOUR * HOUR
    assert attn.edges[1].replica.access.sessions.get(opened.id, WS).used_at == begin  # type: ignore[union-attr]


async def test_a_user_has_a_number_of_sessions() -> None:
    attn = Deciding(max_sessions=2)
    first, *others = [await signed_in(attn) for _ in range(3)]
    assert await status(attn, cookie_of(first)) == 401
    assert [await status(attn, cookie_of(session)) for session in others] == [200, 200]


async def test_a_wrong_text_is_refused_like_an_unknown_session() -> None:
    attn = Deciding()
    opened, foreign = await signed_in(attn), await signed_in(Deciding())
    for text in (foreign.text, opened.text[:-1] + ("a" if opened.text[-1] != "a" else "b"), "attns_", opened.text + "0",
                 opened.text.replace("attns_", "attnl_"), opened.text.replace("attns_", "attn_")):
        assert await status(attn, {"cookie": f"attn_session={text}"}) == 401, text
        assert await status(attn, {"authorization": f"Bearer {text}"}) == 401, text


async def test_an_edge_that_has_not_caught_up_answers_503() -> None:
    attn = Deciding()
    opened = await signed_in(attn)
    attn.edges[0].ready = False
    assert await status(attn, cookie_of(opened)) == 503
    assert await status(Deciding(log_partitions=2, partitions="0"), cookie_of(opened)) == 401


async def test_sessions_that_an_issuer_names_end_by_sid_or_by_subject() -> None:
    attn = Deciding()
    identity = {"issuer": "https://id.example", "subject": "s-1"}
    a = await signed_in(attn, "ann", "", (WS, "OWNER"), ("two", "VIEWER"), issuer_sid="sid-a", **identity)
    b = await signed_in(attn, issuer_sid="sid-b", **identity)
    c = await signed_in(attn, issuer="https://other.example", subject="s-1", issuer_sid="sid-a")
    edge = attn.edges[0]
    assert await end_sessions(edge, issuer="https://id.example", issuer_sid="sid-a", reason="logout") == [a.id]
    assert [await status(attn, cookie_of(session)) for session in (a, b, c)] == [401, 200, 200]
    assert await end_sessions(edge, issuer="https://id.example", subject="s-1", reason="logout") == [b.id]
    assert [await status(attn, cookie_of(session)) for session in (b, c)] == [401, 200]


async def test_a_changed_role_counts_from_the_next_request_on() -> None:
    attn = Deciding()
    attn.happen(waitpoint("w", target_role="OWNER"))
    opened = await signed_in(attn)
    await change_session(attn.edges[0], opened.id, WS, role="OWNER")
    async with attn.client(headers=cookie_of(opened)) as client:
        assert (await client.get("/org/me")).json()["role"] == "OWNER"
        assert len((await client.get("/org/me/inbox")).json()["items"]) == 1
    await change_session(attn.edges[0], opened.id, WS, role="VIEWER")
    async with attn.client(headers=cookie_of(opened)) as client:
        assert (await client.get("/org/me/inbox")).json()["items"] == []
    roles = [(fact.type, fact.role, fact.reason) for fact in attn.facts if getattr(fact, "type", "") == "role.changed"]
    assert roles == [("role.changed", "OWNER", "was MEMBER"), ("role.changed", "VIEWER", "was OWNER")]


async def test_a_session_reaches_every_route_that_a_token_reaches() -> None:
    """Each documented route answers a session and a token of the same user with the same status."""
    attn = Deciding()
    attn.happen(waitpoint("w"))
    opened = await signed_in(attn, "ann", "OWNER")
    schema, walked = create_app(attn.edges[0]).openapi(), 0
    for path, methods in schema["paths"].items():
        for method in methods:
            if path.startswith("/auth/") or path in ("/org/me/feed", "/events/stream") or method == "delete":
                continue
            answers = []
            for headers in (cookie_of(opened), None):
                async with attn.client("ann", "OWNER", headers=headers) as client:
                    url = re.sub(r"\{[^}]*\}", "x", path)
                    body = {} if method in ("post", "patch") else None
                    answers.append((await client.request(method.upper(), url, json=body)).status_code)
            assert answers[0] == answers[1], f"{method} {path}: {answers}"
            walked += 1
    assert walked >= 25


def test_the_openapi_document_names_the_routes() -> None:
    paths = json.loads(json.dumps(create_app(Deciding().edges[0]).openapi()))["paths"]
    assert {"/org/me/sessions", "/org/me/sessions/{session}", "/org/sessions", "/org/users/{user}/sessions",
            "/org/tokens/revoke", "/auth/link"} <= set(paths)
