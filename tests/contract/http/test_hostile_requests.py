"""Hostile requests have bounded costs for the edge and never cause an internal error."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import httpx
import pytest
from support.clients.ankra import M, filled
from support.edge.edge_with_fold import WS
from support.edge.edges import Fed, serving, token

from api.http import middleware
from api.http.app import create_app
from api.http.protocol import header_limits

HOST = "host: x\r\n"


def encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


async def opened(base: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(base.rsplit(":", 1)[1]))


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Reads until the edge closes. Returns the status and all bytes."""
    whole = await asyncio.wait_for(reader.read(), 60)
    return int(whole.split(b" ", 2)[1]), whole


async def flood(writer: asyncio.StreamWriter, piece: bytes, max_bytes: int) -> int:
    """Sends until the edge closes the connection, at most `most` bytes. Returns the number of bytes sent."""
    sent = 0
    try:
        while sent < max_bytes:
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
            await asyncio.sleep(0)
    except ConnectionError:
        pass
    return sent


@pytest.mark.parametrize("endless", [b"x-a: " + b"a" * 8000 + b"\r\n", b"a" * 8000], ids=["fields", "one field"])
async def test_a_head_without_an_end_is_cut_off(endless: bytes) -> None:
    async with serving(Fed().edge) as base:
        _, writer = await opened(base)
        writer.write(f"GET /healthz HTTP/1.1\r\n{HOST}x-b: ".encode())
        assert await flood(writer, endless, 100 << 20) < 100 << 20
        writer.close()


async def test_trailers_without_an_end_are_cut_off() -> None:
    async with serving(Fed().edge) as base:
        _, writer = await opened(base)
        writer.write(f"PATCH /org/me/preferences HTTP/1.1\r\n{HOST}transfer-encoding: chunked\r\n\r\n0\r\n".encode())
        assert await flood(writer, b"x-a: " + b"a" * 8000 + b"\r\n", 100 << 20) < 100 << 20
        writer.close()


async def test_a_head_over_64_kib_is_431_and_smaller_ones_are_accepted() -> None:
    async with serving(Fed().edge) as base:
        reader, writer = await opened(base)
        writer.write(f"GET /healthz HTTP/1.1\r\n{HOST}x-a: ".encode() + b"a" * (65 << 10))
        assert (await answer(reader))[0] == 431
        writer.close()
        reader, writer = await opened(base)
        for number in range(5):  # the limit applies per request, not per connection
            last = "connection: close\r\n" if number == 4 else ""
            writer.write(f"GET /healthz HTTP/1.1\r\n{HOST}{last}x-a: {'a' * (20 << 10)}\r\n\r\n".encode())
        status, whole = await answer(reader)
        assert (status, whole.count(b"HTTP/1.1 200")) == (200, 5)
        writer.close()


@pytest.mark.parametrize("hosts", [
    ["x", "x"], ["x", "attacker.test"], [], ["a b"], ["a/b"], ["user@a"], ["a:b"], ["a, b"], ["[::1"], ["a?b"],
    ["http://a"], ["a%2"], ["\u00fc"], ['"a"'],
], ids=ascii)
async def test_a_request_without_exactly_one_valid_host_header_is_400(hosts: list[str]) -> None:
    """RFC 9112, 3.2."""
    async with serving(Fed().edge) as base:
        reader, writer = await opened(base)
        headers = "".join(f"Host: {host}\r\n" for host in hosts)
        writer.write(f"GET /healthz HTTP/1.1\r\n{headers}\r\n".encode())
        status, whole = await answer(reader)
        assert status == 400
        assert b"host" in whole.split(b"\r\n\r\n")[1]
        writer.close()


@pytest.mark.parametrize("host", [
    "", "x", "a.b-c_d", "127.0.0.1:80", "[::1]:8080", "[fe80::1%25eth0]", "a:", "xn--bcher-kva.example", "%41",
])
async def test_valid_host_headers(host: str) -> None:
    async with serving(Fed().edge) as base:
        reader, writer = await opened(base)
        writer.write(f"GET /healthz HTTP/1.1\r\nhOsT:{host} \r\nconnection: close\r\n\r\n".encode())
        assert (await answer(reader))[0] == 200
        writer.close()


async def test_http_1_0_needs_no_host_header() -> None:
    async with serving(Fed().edge) as base:
        reader, writer = await opened(base)
        writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert (await answer(reader))[0] == 200
        writer.close()


async def test_each_request_of_a_connection_has_a_host_header() -> None:
    async with serving(Fed().edge) as base:
        reader, writer = await opened(base)
        for number in range(3):  # one per request of a connection is fine
            last = "connection: close\r\n" if number == 2 else ""
            writer.write(f"GET /healthz HTTP/1.1\r\n{HOST}{last}\r\n".encode())
        status, whole = await answer(reader)
        assert (status, whole.count(b"HTTP/1.1 200")) == (200, 3)
        writer.close()


async def test_a_body_larger_than_a_head_may_be_is_a_body() -> None:
    attn = filled()
    async with serving(attn.edges[0]) as base:
        reader, writer = await opened(base)
        body = json.dumps({"ids": [M], "state": "read"}).encode() + b" " * (200 << 10)
        ann = token("ann", "OWNER", WS, seconds=10**9)
        writer.write(f"POST /api/v1/inbox/bulk HTTP/1.1\r\n{HOST}authorization: Bearer {ann}\r\nconnection: close\r\n"
                     f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode())
        for at in range(0, len(body), 10_000):
            writer.write(body[at:at + 10_000])
            await writer.drain()
        assert (await answer(reader))[0] == 200
        writer.close()


async def test_an_unfinished_request_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header_limits, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(middleware, "PIECE_SECONDS", 0.2)
    whole = f"GET /healthz HTTP/1.1\r\n{HOST}\r\n"
    body = f"POST /auth/session HTTP/1.1\r\n{HOST}content-type: application/json\r\ncontent-length: 9\r\n\r\n{{"
    async with serving(Fed().edge) as base:
        for begun, statuses in (("", [408]), ("GET / HT", [408]), (f"{whole}GET /h", [200, 408]), (body, [408])):
            reader, writer = await opened(base)
            writer.write(begun.encode())
            response = (await answer(reader))[1]
            assert [int(part[:3]) for part in response.split(b"HTTP/1.1 ")[1:]] == statuses, begun
            writer.close()


async def test_a_body_that_stops_is_408_in_plain_asgi_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "PIECE_SECONDS", 0.05)
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/auth/session", "raw_path": b"/auth/session", "scheme": "http",
             "query_string": b"", "headers": [(b"content-type", b"application/json")], "http_version": "1.1"}
    await create_app(Fed().edge)(scope, receive, send)  # type: ignore[arg-type]
    assert sent[0]["status"] == 408
    assert "error" in json.loads(sent[1]["body"])


@pytest.mark.parametrize("body", [
    b'{"ids":["\\ud800"],"state":"read"}', b'{"ids":["a\\udc00b"],"state":"read"}', b"[" * 100_000, b"\xff",
    b'{"ids":' + b"[" * 50_000 + b"]" * 50_000 + b"}", b'{"ids":["x"],"state":' + b"9" * 5000 + b"}",
    b'{"\\ud800":1}', b'{"ids":["x"],"state":"read","resolved_action":"\\ud800"}',
])
async def test_bodies_that_are_no_text_or_too_deep_are_400(body: bytes) -> None:
    async with filled().client() as client:
        response = await client.post("/api/v1/inbox/bulk", content=body, headers={"content-type": "application/json"})
        assert response.status_code == 400
        assert response.json()["error"]


async def request_with(encoded_token: str) -> list[httpx.Response]:
    async with Fed().client() as client:
        client.headers["authorization"] = f"Bearer {encoded_token}"
        return [await client.get("/org/me"), await client.get("/inbox"),
                await client.post("/auth/session", json={"token": encoded_token})]


@pytest.mark.parametrize(("depth", "at_sign_in"), [(1400, 401), (2500, 413)])
async def test_a_token_that_is_too_deep_is_no_token(depth: int, at_sign_in: int) -> None:
    """The deeper of the two tokens is too large for a cookie as well."""
    deep = encoded(b'{"alg":"HS256","x":' + b"[" * depth + b"]" * depth + b"}") + ".e30.x"
    assert [response.status_code for response in await request_with(deep)] == [401, 401, at_sign_in]


@pytest.mark.parametrize(("claims", "status"), [
    pytest.param({"exp": 4_000_000_000_000}, 200, id="milliseconds"), pytest.param({"exp": 10**400}, 200, id="huge"),
    pytest.param({"exp": 1e300}, 200, id="float"), pytest.param({"exp": float("inf")}, 401, id="endless"),
    pytest.param({"nbf": float("nan")}, 401, id="nan"), pytest.param({"nbf": -(10**400)}, 200, id="long ago"),
    pytest.param({"exp": -(10**400)}, 401, id="before all"),
])
async def test_times_of_a_token_are_never_an_internal_error(claims: dict[str, Any], status: int) -> None:
    for response in await request_with(token(**claims)):
        assert response.status_code == status, response.text
        if status == 200 and "exp" in claims and "expires_at" in response.json():
            assert response.json()["expires_at"] == "2200-01-01T00:00:00Z", "later times become the last valid one"


@pytest.mark.parametrize("origin", ["http://[", "null", "http://x.evil", "//x", "http://x@evil"])
async def test_a_foreign_origin_cannot_open_a_socket(origin: str) -> None:
    async with serving(Fed().edge) as base:
        reader, writer = await opened(base)
        writer.write((f"GET /api/v1/ws HTTP/1.1\r\n{HOST}origin: {origin}\r\nupgrade: websocket\r\nconnection: upgrade"
                      "\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").encode())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n"), 60)
        assert head.startswith(b"HTTP/1.1 403"), head
        writer.close()


async def test_a_page_of_another_site_begins_no_session() -> None:
    async with Fed().client() as client:
        for site, status in (("cross-site", 403), ("same-origin", 200), ("none", 200)):
            response = await client.post("/auth/session", json={"token": token()}, headers={"sec-fetch-site": site})
            assert response.status_code == status
            assert bool(response.headers.get("set-cookie")) == (status == 200)
