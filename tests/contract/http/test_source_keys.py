"""Keys of sources over HTTP: create, list, revoke, and the routes that refuse a key."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
from support.edge.edge_with_fold import WS, Deciding, message, waitpoint
from support.edge.edges import bearer, serving
from websockets.asyncio.client import connect

from api.http.app import create_app
from schemas.scalars import HOUR, SECOND

YEARS = 10 * 365 * 86400
WANTED = {"name": "CI", "topics": ["waitpoints", "run-failures"]}


async def create(attn: Deciding, **more: Any) -> dict[str, Any]:
    """Creates a key as an owner, and returns the response's body."""
    async with attn.client("ann", "OWNER") as client:
        answer = await client.post("/org/me/keys", json=WANTED | more)
        assert answer.status_code == 201, answer.text
        body: dict[str, Any] = answer.json()
        return body


def with_key(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


async def status(attn: Deciding, secret: str, edge: int = 0) -> int:
    """Returns the status of a request that every valid key may make."""
    async with attn.client(edge=edge, headers=with_key(secret)) as client:
        return (await client.get("/org/me/decisions")).status_code


async def test_a_key_is_shown_once_and_then_listed_without_its_text() -> None:
    attn = Deciding()
    body = await create(attn, source="/ci", expires_at="2026-06-01T00:00:00Z")
    assert re.fullmatch(r"attn_[0-9A-Za-z]{16}_[0-9A-Za-z]{49}", body["secret"])
    async with attn.client("bob", "ADMIN") as client:
        answer = await client.get("/org/me/keys")
        assert answer.json() == {"keys": [body["key"]]}
        assert body["key"] == {
            "id": body["secret"][5:21], "name": "CI", "topics": ["run-failures", "waitpoints"], "source": "/ci",
            "created_at": "2026-05-20T12:00:00Z", "created_by": "ann", "expires_at": "2026-06-01T00:00:00Z"}
    everything = b"".join(attn.log) + b"".join(attn.rows.values()) + repr(attn.facts).encode()
    assert body["secret"][22:].encode() not in everything


async def test_a_revoked_key_is_refused_on_every_edge() -> None:
    attn = Deciding(edges=2)
    body = await create(attn)
    assert [await status(attn, body["secret"], edge) for edge in (0, 1)] == [200, 200]
    async with attn.client("bob", "ADMIN", edge=1) as client:
        answer = await client.delete(f"/org/me/keys/{body['key']['id']}")
        assert (answer.status_code, answer.json()) == (200, {"id": body["key"]["id"], "revoked": True})
        assert (await client.delete(f"/org/me/keys/{body['key']['id']}")).status_code == 404
    assert [await status(attn, body["secret"], edge) for edge in (0, 1)] == [401, 401]
    attn.restart()
    assert [await status(attn, body["secret"], edge) for edge in (0, 1)] == [401, 401]


async def test_a_key_outlives_a_restart_of_the_edges() -> None:
    attn = Deciding(edges=2)
    secret = (await create(attn))["secret"]
    attn.restart()
    assert [await status(attn, secret, edge) for edge in (0, 1)] == [200, 200]


async def test_a_key_expires_by_the_clock_without_a_record() -> None:
    attn = Deciding()
    secret = (await create(attn, expires_at="2026-05-20T13:00:00Z"))["secret"]
    assert await status(attn, secret) == 200
    attn.now += 3600 - 1
    assert await status(attn, secret) == 200
    attn.now += 1
    assert await status(attn, secret) == 401


async def test_use_is_recorded_once_per_hour_by_one_record() -> None:
    attn = Deciding(edges=2)
    body = await create(attn)
    for edge in (0, 1, 0, 1, 0):
        await status(attn, body["secret"], edge)
        await _settle()
    begin = int(attn.now * SECOND) // HOUR * HOUR
    assert attn.edges[0].replica.source_keys.get(body["key"]["id"]).last_used == begin  # type: ignore[union-attr]
    records = len(attn.log)
    attn.now += 600
    await status(attn, body["secret"])
    await _settle()
    assert len(attn.log) == records
    attn.now += 3600
    await status(attn, body["secret"])
    await _settle()
    assert attn.edges[1].replica.source_keys.get(body["key"]["id"]).last_used == begin + HOUR  # type: ignore[union-attr]


async def _settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_wrong_secret_is_refused_like_an_unknown_key() -> None:
    attn = Deciding()
    secret = (await create(attn))["secret"]
    other = (await create(Deciding()))["secret"]  # a valid key of another installation
    assert await status(attn, other) == 401
    assert await status(attn, secret[:-1] + ("a" if secret[-1] != "a" else "b")) == 401
    for text in ("attn_", "attn_x", secret + "0", secret[:-1], secret.replace("attn_", "ATTN_"), " " + secret + "x"):
        assert await status(attn, text) == 401, text


async def test_an_edge_that_has_not_caught_up_does_not_call_a_key_invalid() -> None:
    attn = Deciding(log_partitions=2, partitions="0")
    secret = (await create(Deciding()))["secret"]
    attn.edges[0].ready = False
    assert await status(attn, secret) == 503
    attn.edges[0].ready = True
    assert await status(attn, secret) == 401, "an edge knows the keys of all partitions"
    assert await status(attn, secret + "x") == 401


async def test_a_websocket_does_not_take_a_key() -> None:
    attn = Deciding()
    secret = (await create(attn))["secret"]
    async with serving(attn.edges[0]) as base:
        for headers in ({}, {"authorization": f"Bearer {secret}"}):
            url = base.replace("http", "ws") + "/api/v1/ws"
            async with connect(url, additional_headers=headers, proxy=None) as socket:
                await socket.send(json.dumps({"type": "auth", "token": secret}))
                assert json.loads(await asyncio.wait_for(socket.recv(), 30))["type"] == "error"


async def test_no_answer_without_the_view() -> None:
    attn = Deciding()
    secret = (await create(attn))["secret"]
    attn.edges[0].ready = False
    assert await status(attn, secret) == 503


@pytest.mark.parametrize("role", ["MANAGER", "MEMBER", "VIEWER"])
async def test_other_roles_neither_see_nor_make_keys(role: str) -> None:
    attn = Deciding()
    made = await create(attn)
    async with attn.client("eve", role) as client:
        assert (await client.get("/org/me/keys")).status_code == 403
        assert (await client.post("/org/me/keys", json=WANTED)).status_code == 403
        assert (await client.delete(f"/org/me/keys/{made['key']['id']}")).status_code == 403
    assert await status(attn, made["secret"]) == 200


async def test_keys_of_another_workspace_are_invisible() -> None:
    attn = Deciding()
    made = await create(attn)
    async with attn.client("ann", "OWNER", ws="other") as client:
        assert (await client.get("/org/me/keys")).json() == {"keys": []}
        assert (await client.delete(f"/org/me/keys/{made['key']['id']}")).status_code == 404
    assert await status(attn, made["secret"]) == 200


@pytest.mark.parametrize("body", [
    {}, {"name": "CI"}, {"name": "", "topics": ["plans"]}, {"name": " ", "topics": ["plans"]},
    {"name": "CI", "topics": []},
    {"name": "CI", "topics": ["attn.log"]}, {"name": "CI", "topics": "plans"}, {"name": 1, "topics": ["plans"]},
    {"name": "x" * 201, "topics": ["plans"]}, {"name": "CI", "topics": ["plans"], "source": ""},
    {"name": "CI", "topics": ["plans"], "expires_at": "tomorrow"}, {"name": "CI", "topics": ["plans"], "more": 1},
    {"name": "CI", "topics": ["plans"], "expires_at": "2020-01-01T00:00:00Z"},
    {"name": "CI", "topics": ["plans"], "expires_at": 1}, [],
])
async def test_a_wrong_request_creates_nothing(body: Any) -> None:
    attn = Deciding()
    async with attn.client("ann", "OWNER") as client:
        assert (await client.post("/org/me/keys", json=body)).status_code == 400
        assert (await client.get("/org/me/keys")).json() == {"keys": []}


async def test_a_repeat_creates_one_key_and_does_not_show_its_text_again() -> None:
    attn = Deciding()
    async with attn.client("ann", "OWNER") as client:
        first, again = [await client.post("/org/me/keys", json=WANTED, headers={"idempotency-key": "k"})
                        for _ in range(2)]
        assert (first.status_code, again.status_code) == (201, 201)
        assert again.json() == {"key": first.json()["key"]}
        assert len((await client.get("/org/me/keys")).json()["keys"]) == 1


async def test_a_cookie_needs_the_csrf_header_and_writes_are_limited() -> None:
    attn = Deciding(write_burst=2, write_rate=0.001)
    cookie = bearer("ann", "OWNER", ws=WS, seconds=YEARS)["authorization"].removeprefix("Bearer ")
    async with attn.client(headers={"cookie": f"attn_session={cookie}"}) as client:
        assert (await client.post("/org/me/keys", json=WANTED)).status_code == 403
    async with attn.client("ann", "OWNER") as client:
        answers = [(await client.post("/org/me/keys", json=WANTED)).status_code for _ in range(4)]
        assert answers == [201, 201, 429, 429]


# Routes that need no caller, or that take their token from the body.
OPEN = {
    ("get", "/healthz"), ("get", "/readyz"), ("get", "/metrics"), ("post", "/auth/session"), ("post", "/auth/link"),
    ("delete", "/auth/session"), ("get", "/auth/methods"), ("post", "/auth/logout"),
    ("post", "/auth/device"), ("post", "/auth/device/token"),
    ("get", "/.well-known/attn-decision-keys.json"), ("options", "/events"),
}
OWN = {("get", "/api/v1/inbox"), ("get", "/api/v1/inbox/{item}"), ("get", "/org/me/decisions"), ("post", "/events"),
       ("post", "/hooks/{name}")}


async def test_every_other_route_is_closed_to_a_key() -> None:
    attn = Deciding()
    attn.happen(waitpoint("w"))
    secret = (await create(attn))["secret"]
    schema = create_app(attn.edges[0]).openapi()
    walked = 0
    async with attn.client(headers=with_key(secret)) as client:
        for path, methods in schema["paths"].items():
            for method in methods:
                if (method, path) in OPEN | OWN:
                    continue
                url = re.sub(r"\{[^}]*\}", "x", path)
                answer = await client.request(method.upper(), url, json={} if method in ("post", "patch") else None)
                assert answer.status_code == 403, f"{method} {path}: {answer.status_code} {answer.text}"
                walked += 1
        assert walked >= 25
        assert (await client.post("/auth/session", json={"token": secret})).status_code == 401
    async with attn.client(headers={"cookie": f"attn_session={secret}"}) as client:
        assert (await client.get("/org/me/decisions")).status_code == 401


ASK = {"options": [{"id": "yes", "does": "approve"}, {"id": "no", "does": "reject"}]}


async def test_a_key_reads_the_questions_of_its_source_only() -> None:
    attn = Deciding()
    attn.happen(
        waitpoint("asked", ask=ASK, target_user_id="bob"), waitpoint("plain"), message("m", ask=ASK))
    keys = {name: (await create(attn, **more))["secret"] for name, more in {
        "own": {"source": "/test"}, "any": {}, "above": {"source": "/"}, "other": {"source": "/te"},
        "topic": {"topics": ["messages"]}}.items()}
    async with attn.client("bob", "OWNER") as client:
        rows = (await client.get("/api/v1/inbox")).json()["rows"]
        ids = {row["source_id"]: row["id"] for row in rows}
        digest = {row["source_id"]: row.get("digest") for row in rows}["asked"]
        vote = await client.post(f"/api/v1/inbox/{ids['asked']}/decision", json={"option": "yes", "digest": digest})
        assert vote.status_code == 201, vote.text
    allowed = {"own": {"asked"}, "any": {"asked"}, "above": {"asked"}, "other": set(), "topic": {"m"}}
    for name, secret in keys.items():
        async with attn.client(headers=with_key(secret)) as client:
            read = {source: await client.get(f"/api/v1/inbox/{item}") for source, item in ids.items()}
            seen = {source for source, answer in read.items() if answer.status_code == 200}
            assert seen == allowed[name], name
            decided = [row["item"] for row in (await client.get("/org/me/decisions")).json()["decisions"]]
            assert decided == ([ids["asked"]] if "asked" in allowed[name] else []), name


async def test_pages_of_a_keys_decisions_end_at_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.readmodel.filtered_pages.MAX_SCANNED", 3)
    attn = Deciding()
    for number in range(9):
        attn.happen(waitpoint(f"w{number}", ask=ASK))
    async with attn.client("ann", "OWNER") as client:
        for row in (await client.get("/api/v1/inbox")).json()["rows"]:
            attn.now += 1
            vote = {"option": "yes", "digest": row["digest"]}
            await client.post(f"/api/v1/inbox/{row['id']}/decision", json=vote)
        everything = [row["id"] for row in (await client.get("/org/me/decisions")).json()["decisions"]]
    secret, other = (await create(attn))["secret"], (await create(attn, source="/other"))["secret"]
    assert len(everything) == 9
    assert await _pages(attn, secret) == [everything[:3], everything[3:6], everything[6:]]
    assert [page for page in await _pages(attn, other) if page] == []


async def _pages(attn: Deciding, secret: str) -> list[list[str]]:
    pages, params = [], {}
    async with attn.client(headers=with_key(secret)) as client:
        while True:
            body = (await client.get("/org/me/decisions", params=params)).json()
            pages.append([row["id"] for row in body["decisions"]])
            if "next" not in body:
                return pages
            params = {"next": body["next"]}
