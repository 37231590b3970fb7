"""HTTP protocol: methods, oversized heads, invalid requests, unexpected bodies. Every error is JSON."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import httpx
import pytest
from support.edge.edge_with_fold import WS, Deciding, message
from support.edge.edges import Fed, bearer, serving, token
from support.fold.fold_driver import event


async def response_to(url: str, *pieces: bytes) -> tuple[int, dict[str, str], Any]:
    """Sends these bytes. Returns status, headers and body of the edge's response before it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
    for piece in pieces:
        writer.write(piece)
    await writer.drain()
    head, _, body = (await asyncio.wait_for(reader.read(), 30)).partition(b"\r\n\r\n")
    writer.close()
    status, *fields = head.decode().split("\r\n")
    return int(status.split()[1]), {
        name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}, json.loads(body)


@pytest.mark.parametrize("path", [
    "/healthz", "/readyz", "/metrics", "/org/me/inbox", "/org/me/activity", "/inbox", "/inbox/count", "/api/v1/inbox"])
async def test_head_is_get_without_the_body(path: str) -> None:
    fed = Fed()
    async with serving(fed.edge) as url, httpx.AsyncClient(base_url=url, headers=bearer()) as client:
        full, head = await client.get(path), await client.head(path)
        assert head.status_code == full.status_code == 200
        assert head.content == b""
        assert head.headers["content-type"] == full.headers["content-type"]
        if path != "/metrics":  # /metrics differs, because it counts the requests
            assert head.headers["content-length"] == str(len(full.content))


@pytest.mark.parametrize("direct", [True, False])
async def test_head_of_a_stream_uses_no_connection_slot(direct: bool) -> None:
    fed = Fed(max_streams=1)
    async with serving(fed.edge, direct) as url, httpx.AsyncClient(base_url=url, headers=bearer()) as client:
        for _ in range(3):
            async with asyncio.timeout(30):
                answer = await client.head("/org/me/feed")
            assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
        async with client.stream("GET", "/org/me/feed") as stream:
            assert stream.status_code == 200
        assert (await client.head("/org/me/feed", headers={"authorization": "Bearer x"})).status_code == 401


@pytest.mark.parametrize(("method", "path", "allowed"), [
    ("DELETE", "/api/v1/inbox/x", {"GET", "HEAD", "PATCH"}), ("GET", "/org/me/inbox/x/dismiss", {"DELETE", "POST"}),
    ("PUT", "/org/me/preferences", {"GET", "HEAD", "PATCH"}), ("OPTIONS", "/inbox", {"GET", "HEAD"}),
])
async def test_405_names_all_methods_of_the_path(method: str, path: str, allowed: set[str]) -> None:
    async with Fed().client() as client:
        answer = await client.request(method, path)
        assert (answer.status_code, answer.json()) == (405, {"error": "method not allowed"})
        assert set(answer.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize("pieces", [
    [b"GET / HTTP/1.1\r\nhost: x\r\nx-large: " + b"a" * 70_000 + b"\r\n\r\n"],
    [b"GET / HTTP/1.1\r\nhost: x\r\n", *[b"x-many: " + b"a" * 1000 + b"\r\n"] * 80],
    [b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n"],
    [b"GET / HTTP/1.1\r\nhost: x\r\ncookie: " + b"; ".join(b"c%d=1" % n for n in range(8000)) + b"\r\n\r\n"],
], ids=["field", "fields", "url", "cookies"])
async def test_a_head_that_is_too_large_is_refused_before_it_is_kept(pieces: list[bytes]) -> None:
    fed = Fed()
    async with serving(fed.edge) as url:
        status, fields, body = await response_to(url, *pieces)
        assert (status, set(body), fields["content-type"]) == (431, {"error"}, "application/json")
        assert fields["connection"] == "close"
        assert "cookies count" in body["error"]


@pytest.mark.parametrize(("length", "status"), [
    (b"0" * 5000 + b"2", 400), (b"0" * 5000, 400), (b"1" + b"0" * 18, 413), (b"9" * 30, 400), (b"9" * 5000, 400),
    (b"-1", 400), (b"+2", 400), (b"2, 2", 400), (b"\xb2", 400), (b"0x2", 400),
])
async def test_a_length_of_any_digits_is_answered(length: bytes, status: int) -> None:
    """The first cases send a body that is no JSON of a token."""
    fed = Fed()
    async with serving(fed.edge) as url:
        answered, fields, body = await response_to(
            url, b"POST /auth/session HTTP/1.1\r\nhost: x\r\nconnection: close\r\n",
            b"content-type: application/json\r\ncontent-length: " + length + b"\r\n\r\n{}")
        assert (answered, set(body) - {"limit"}, fields["content-type"]) == (status, {"error"}, "application/json")


async def test_a_field_without_end_ends_the_connection() -> None:
    fed = Fed()
    async with serving(fed.edge) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
        assert (await reader.readuntil(b"}")).split()[1] == b"405"
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nx-endless: ")
        for _ in range(60):
            writer.write(b"a" * 16_000)
        async with asyncio.timeout(60):
            assert b"HTTP/1.1 431 " in await reader.read(), "the client gets the response although it goes on sending"
        writer.close()


async def test_large_bodies_are_no_large_heads() -> None:
    fed = Fed(max_request=1 << 20)
    async with serving(fed.edge) as url, httpx.AsyncClient(base_url=url) as client:
        for user in ("ann", "bob", "eve"):  # a body of 512 KB uses up the write rate of a user
            client.headers.update(bearer(user))
            answer = await client.patch("/org/me/preferences", json={"pinned_clusters": "c" * 500_000})
            assert answer.status_code == 400
        assert (await client.get("/inbox", headers={"x-large": "a" * 30_000})).status_code == 200


@pytest.mark.parametrize("sent", [
    b"nonsense\r\n\r\n", b"FROB /inbox HTTP/1.1\r\nhost: x\r\n\r\n", b"\x16\x03\x01\r\n\r\n"])
async def test_an_invalid_http_request_is_400_in_json(sent: bytes) -> None:
    fed = Fed()
    async with serving(fed.edge) as url:
        status, fields, body = await response_to(url, sent)
    assert (status, fields["content-type"], body) == (400, "application/json", {"error": "not an HTTP request"})


@pytest.mark.parametrize(("method", "path"), [
    ("PATCH", "/api/v1/inbox/x"), ("POST", "/api/v1/inbox/bulk"), ("PATCH", "/org/me/preferences"),
    ("POST", "/org/me/inbox/x/dismiss")])
async def test_a_body_that_is_no_json_object_is_400_with_the_expected_type(method: str, path: str) -> None:
    expected = {"error": "the body must be a JSON object, sent as content-type: application/json"}
    fed = Fed()
    async with fed.client() as client:
        for body, kind in ((b"[]", "application/json"), (b'"x"', "application/json"), (b"1", "application/json"),
                           (b'{"state":"read"}', "text/plain"), (b"state=read", "application/x-www-form-urlencoded")):
            answer = await client.request(method, path, content=body, headers={"content-type": kind})
            assert (answer.status_code, answer.json()) == (400, expected), body
        if not path.endswith("dismiss"):  # the body of dismiss is optional
            answer = await client.request(method, path)
            assert (answer.status_code, answer.json()) == (400, expected)


@pytest.mark.parametrize("claims", [
    {"nbf": 10**400}, {"sub": "\ud800"}, {"workspace_id": "w\udfff"},
    {"role": "\ud800"}])
async def test_claims_that_no_answer_could_hold_are_401(claims: dict[str, Any]) -> None:
    fed = Fed()
    async with fed.client() as client:
        client.headers["authorization"] = f"Bearer {token(**claims)}"
        for path in ("/org/me", "/inbox", "/org/me/feed"):
            answer = await client.get(path)
            assert (answer.status_code, set(answer.json())) == (401, {"error"}), path


async def test_a_name_claim_that_is_no_text_is_ignored() -> None:
    async with Fed().client(name="\ud800") as client:
        answer = await client.get("/org/me")
        assert answer.status_code == 200
        assert "name" not in answer.json()


async def test_a_token_nested_too_deep_is_401() -> None:
    nested = base64.urlsafe_b64encode(b"[" * 5000).rstrip(b"=").decode()
    async with Fed().client() as client:
        client.headers["authorization"] = f"Bearer {nested}.e30.x"
        assert (await client.get("/inbox")).status_code == 401


async def lines_of(url: str, path: str, params: dict[str, str], frames: int) -> list[str]:
    """Returns the first lines of a stream as httpx splits text: at every Unicode line separator."""
    received: list[str] = []
    async with httpx.AsyncClient(headers=bearer(ws=WS), timeout=60) as client, client.stream(
            "GET", url + path, params=params) as answer:
        async for line in answer.aiter_lines():
            received.append(line)
            if sum(each.startswith("data: ") for each in received) == frames:
                break
    return received


async def test_data_is_one_line_with_any_line_separators_in_a_text() -> None:
    attn = Deciding()
    odd = "".join(map(chr, (0x2028, 0x2029, 0x85, 0x0B, 0x0C, 0x1C, 0x1D, 0x1E, 0x0A, 0x0D))).join("abcdefgh")
    async with serving(attn.edges[0]) as url:
        attn.happen(message("m", title=f"one {odd}", case_id="c"))
        [snapshot] = [line for line in await lines_of(url, "/org/me/feed", {}, 1) if line.startswith("data: ")]
        assert json.loads(snapshot[6:])["items"][0]["title"] == f"one {odd}"
        attn.happen(message("n", title=f"two {odd}"), event("case.state_changed", "c", state=odd))
        added = [line for line in await lines_of(url, "/org/me/feed", {
            "last_event_id": str(json.loads(snapshot[6:])["cursor"])}, 1) if line.startswith("data: ")]
        assert json.loads(added[0][6:])["item"]["title"] == f"two {odd}"
        response_to = [line for line in await lines_of(url, "/cases/c/events", {"last_event_id": "0"}, 1)
                if line.startswith("data: ")]
        assert json.loads(response_to[0][6:])["state"] == odd
