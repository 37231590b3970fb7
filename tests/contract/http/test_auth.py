"""Authentication of every route, and the format of errors."""

from __future__ import annotations

import json
import time

import jwt
import pytest
from structlog.testing import capture_logs
from support.edge.edges import SECRET, Fed, bearer, settings, token
from support.edge.random_rows import marker

from api.http.app import create_app
from api.http.auth.tokens import Authenticator, Unauthorized

ROUTES = [
    "/org/me/inbox", "/org/me/feed", "/org/me/recent-drafts", "/org/me/preferences", "/org/me/activity",
    "/org/me/insights", "/cases/c/history", "/inbox",
    "/inbox/count", "/events/stream", "/cases/c/events", "/api/v1/inbox", "/api/v1/inbox/count", "/api/v1/inbox/x",
    "/api/v1/inbox/x/decision/receipt",
]


@pytest.mark.parametrize("route", ROUTES)
async def test_every_route_needs_a_caller(route: str) -> None:
    fed = Fed()
    async with fed.client() as client:
        for headers in ({}, {"authorization": "Bearer nonsense"}, {"authorization": f"Basic {token()}"}):
            client.headers = headers  # type: ignore[assignment]
            answer = await client.get(route)
            assert answer.status_code == 401
            assert set(answer.json()) == {"error"}
            assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("route", ROUTES)
async def test_every_route_is_503_until_the_view_has_caught_up(route: str) -> None:
    fed = Fed()
    fed.edge.ready = False
    async with fed.client() as client:
        assert (await client.get(route)).status_code == 503
        if route.endswith(("feed", "stream", "events")):
            answer = await client.get(route, headers={"accept": "text/event-stream"})
            assert answer.status_code == 200, "browsers do not reconnect an event stream after an error status"
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert answer.text.startswith("retry: ")


async def test_a_load_balancer_that_asks_for_it_gets_502_for_a_get_until_the_view_has_caught_up() -> None:
    fed = Fed()
    asked = {"attn-next-edge": "1", "accept": "text/event-stream"}
    async with fed.client() as client:
        assert (await client.get("/org/me/inbox", headers=asked)).status_code == 200
        fed.edge.ready = False
        for route in ("/org/me/inbox", "/org/me/feed"):
            answer = await client.get(route, headers=asked)
            assert (answer.status_code, answer.json()) == (502, {"error": "the view has not caught up yet"})
        answer = await client.patch("/org/me/preferences", json={}, headers={"attn-next-edge": "1"})
        assert answer.status_code == 503, "a load balancer must not send a write to another edge"


@pytest.mark.parametrize("claims", [
    {"sub": None}, {"workspace_id": None}, {"role": None}, {"exp": None}, {"sub": ""}, {"sub": 7}, {"role": "BOSS"},
    {"exp": int(time.time()) - 1}, {"exp": "soon"}, {"nbf": int(time.time()) + 86400}, {"workspace_id": " "},
])
async def test_claims_that_are_missing_or_wrong_are_401(claims: dict[str, object]) -> None:
    fed = Fed()
    async with fed.client() as client:
        client.headers["authorization"] = f"Bearer {token(**{'seconds': 60, **claims})}"  # type: ignore[arg-type]
        assert (await client.get("/inbox")).status_code == 401


async def test_wrong_algorithms_and_signatures_are_401() -> None:
    fed = Fed()
    claims = {"sub": "ann", "role": "OWNER", "workspace_id": "w1", "exp": int(time.time()) + 60}
    good = token()
    wrong = [
        jwt.encode(claims, None, "none"), jwt.encode(claims, SECRET, "HS512"),
        jwt.encode(claims, SECRET + "x", "HS256"),
        good[:-2], good.rsplit(".", 1)[0] + ".", "a.b.c", "", " ", "x" * 10_000,
    ]
    async with fed.client() as client:
        for encoded in wrong:
            client.headers["authorization"] = f"Bearer {encoded}"
            assert (await client.get("/inbox")).status_code == 401, encoded[:40]
        with pytest.raises(Unauthorized):
            await Authenticator(fed.edge.settings).caller(f"Bearer {good}é")
        client.headers["authorization"] = f"bearer {good}"
        assert (await client.get("/inbox")).status_code == 200


async def test_the_cookie_holds_a_token_too() -> None:
    fed = Fed()
    async with fed.client() as client:
        del client.headers["authorization"]
        client.cookies.set("attn_session", token())
        assert (await client.get("/inbox")).status_code == 200
        client.cookies.set("attn_session", token(seconds=-5))
        assert (await client.get("/inbox")).status_code == 401


async def test_a_short_secret_is_accepted() -> None:
    fed = Fed(jwt_secret="short")
    claims = {"sub": "ann", "role": "OWNER", "workspace_id": "w1", "exp": int(time.time()) + 60}
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        encoded = jwt.encode(claims, "short", "HS256")
    async with fed.client() as client:
        client.headers["authorization"] = f"Bearer {encoded}"
        assert (await client.get("/inbox")).status_code == 200


async def test_an_error_is_always_an_error_object() -> None:
    fed = Fed()
    async with fed.client() as client:
        for method, path, status in (
            ("GET", "/nowhere", 404), ("DELETE", "/inbox", 405), ("GET", "/org/me/inbox?limit=abc", 400),
            ("GET", "/org/me/inbox?next=!!", 400), ("GET", "/org/me/inbox?next=AAAA", 400),
            ("GET", "/org/me/inbox?dismissed=maybe", 400), ("GET", "/org/me/feed?limit=0", 400),
            ("GET", "/inbox?limit=many", 400), ("GET", "/inbox/", 404),
        ):
            answer = await client.request(method, path)
            assert answer.status_code == status, path
            assert set(answer.json()) == {"error"}, path
            assert isinstance(answer.json()["error"], str)
        fed.edge.pages.inbox_page = None  # type: ignore[assignment,method-assign]
        with capture_logs():
            broken = await client.get("/org/me/inbox")
        assert (broken.status_code, broken.json()) == (500, {"error": "internal error"})


async def test_health_readiness_and_metrics_need_no_token() -> None:
    fed = Fed()
    async with fed.client() as client:
        client.headers = {}  # type: ignore[assignment]
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 200
        fed.edge.ready = False
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 503
        text = (await client.get("/metrics")).text
    assert "attn_edge_streams" in text
    assert marker("w1", None, None) not in text


async def test_openapi_lists_the_routes() -> None:
    fed = Fed()
    paths = create_app(fed.edge).openapi()["paths"]
    assert {"/org/me/inbox", "/org/me/feed", "/inbox", "/events/stream", "/cases/{case}/events"} <= set(paths)
    json.dumps(paths)


async def test_partitions_of_another_edge_are_refused() -> None:
    fed = Fed(log_partitions=4, partitions="1-2")
    assert fed.edge.replica.served == {1, 2}
    other = next(name for name in map(str, range(99)) if not fed.edge.replica.serves(name))
    async with fed.client() as client:
        client.headers.update(bearer(ws=other))
        answer = await client.get("/inbox")
        assert (answer.status_code, int(answer.headers["attn-partition"])) == (421, fed.edge.replica.partition(other))
    with pytest.raises(ValueError, match="must be among"):
        Fed(log_partitions=2, partitions="0-2")
    assert settings(partitions="").partitions == ""
