"""nginx before an edge that still loads its view: another edge answers what may be asked twice."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from support.edge.edges_nginx import JS_MODULE, NGINX, running

pytestmark = pytest.mark.skipif(
    not (NGINX.exists() and JS_MODULE.exists()), reason="Debian's nginx-light, libnginx-mod-http-js are not installed")

_STREAM = "retry: 500"  # what an edge that loads answers to EventSource without the header of nginx


class Edges:
    """Two edges that answer as `api.http.error_handlers` does. `ready`: the numbers of those that are ready."""

    def __init__(self) -> None:
        self.ready = {1, 2}
        self.posts: list[int] = []

    async def answer(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                post = head.startswith(b"POST")
                if post:
                    self.posts.append(number)
                if number in self.ready:
                    status, body = "200 OK", f"edge {number}"
                elif post:
                    status, body = "503 Service Unavailable", "not ready"
                else:
                    status, body = ("502 Bad Gateway", "not ready") if b"attn-next-edge: 1" in head.lower() else (
                        "200 OK", _STREAM)
                writer.write(f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def before(edges: Edges, directory: Path) -> AsyncIterator[httpx.AsyncClient]:
    servers = [await asyncio.start_server(lambda r, w, n=n: edges.answer(n, r, w), "127.0.0.1", 0) for n in (1, 2)]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    try:
        async with (
            running(directory, (ports[0], ports[1])) as port,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client,
        ):
            yield client
    finally:
        for server in servers:
            server.close()


def of(workspace: int) -> dict[str, str]:
    claims = json.dumps({"workspace_id": f"ws_{workspace}", "sub": "ann"}).encode()
    return {"authorization": f"Bearer e30.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.sig"}


async def test_another_edge_answers_a_get_of_an_edge_that_loads(tmp_path: Path) -> None:
    edges = Edges()
    async with before(edges, tmp_path) as client:
        own = [(await client.get("/org/me/feed", headers=of(number))).text for number in range(20)]
        assert set(own) == {"edge 1", "edge 2"}
        edges.ready = {2}
        for number in range(20):
            answer = await client.get("/org/me/feed", headers=of(number))
            assert (answer.status_code, answer.text) == (200, "edge 2")


async def test_a_post_to_an_edge_that_loads_is_not_sent_again(tmp_path: Path) -> None:
    edges = Edges()
    async with before(edges, tmp_path) as client:
        edges.ready = {2}
        for number in range(20):
            edges.posts.clear()
            answer = await client.post("/events", headers=of(number))
            assert (answer.status_code, edges.posts) in ((503, [1]), (200, [2]))


async def test_a_stream_ends_with_a_delay_while_no_edge_is_ready(tmp_path: Path) -> None:
    """EventSource would not reconnect after a 502. nginx regards both edges as failed after two of these answers."""
    edges = Edges()
    edges.ready = set()
    async with before(edges, tmp_path) as client:
        for number in range(20):
            answer = await client.get("/org/me/feed", headers=of(number))
            assert (answer.status_code, answer.text) == (200, _STREAM)
