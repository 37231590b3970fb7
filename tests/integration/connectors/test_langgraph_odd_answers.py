"""The LangGraph client against responses of older servers, proxies and other JSON libraries. The real server of the
other tests never sends these, so a server in this process does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from streams.connectors.langgraph.deployments import Deployment
from streams.connectors.langgraph.server import LangGraphServer
from streams.connectors.peer import PeerUnavailable


class Odd:
    """A server with threads as JSON texts, and one response for all other requests."""

    def __init__(self) -> None:
        self.threads: list[str] = []
        self.page: str | None = None
        self.status, self.text = 200, "null"
        self.requests: list[web.Request] = []

    async def search(self, request: web.Request) -> web.Response:
        if self.page is not None:
            return web.Response(status=self.status, text=self.page, headers={"Location": "/elsewhere"})
        body = await request.json()
        threads = self.threads if body.get("status") == "interrupted" else []
        page = threads[body.get("offset", 0):][:body["limit"]]
        return web.Response(text=f"[{','.join(page)}]", content_type="application/json")

    async def other(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        return web.Response(status=self.status, text=self.text, headers={"Location": "/elsewhere"})


@pytest.fixture
def odd() -> Odd:
    return Odd()


@pytest.fixture
async def client(odd: Odd) -> AsyncIterator[LangGraphServer]:
    app = web.Application()
    app.router.add_post("/api/threads/search", odd.search)
    app.router.add_route("*", "/{path:.*}", odd.other)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        yield LangGraphServer(Deployment("odd", f"{server.make_url('/api/')}", {"X-Api-Key": "k1"}), session)


def thread(name: str, value: str = '"why?"', **more: Any) -> str:
    return json.dumps({"thread_id": name, "status": "interrupted", "metadata": {}, "updated_at": "x", **more})[:-1] + (
        f', "interrupts": {{"task": [{{"id": "i", "value": {value}}}]}}}}')


async def test_a_thread_that_cannot_be_read_does_not_hide_the_others(odd: Odd, client: LangGraphServer) -> None:
    odd.threads = [thread(str(number), "NaN" if number in (3, 7) else '"why?"') for number in range(230)]
    assert [one.id async for one in client.waiting()] == [str(number) for number in range(230) if number not in (3, 7)]


@pytest.mark.parametrize("interrupts", [None, [], {"task": None}, {"task": [None, {"value": 1}, {"id": 1}]}, "x"])
async def test_threads_without_usable_interrupts_do_not_wait(
    odd: Odd, client: LangGraphServer, interrupts: Any,
) -> None:
    odd.threads = [json.dumps({"thread_id": "t", "status": "interrupted", "interrupts": interrupts}), "null", "[]"]
    assert [one async for one in client.waiting()] == []


@pytest.mark.parametrize(("status", "text", "error"), [
    (404, '{"detail": "Not Found"}', "unsupported"), (422, '{"detail": "no"}', "unknown_error"),
    (200, '{"type": "error", "error": "no_such_interrupt", "message": "m"}', "no_such_interrupt"),
    (200, "null", "unsupported"), (200, "[]", "unknown_error"),
    (400, '{"error": "invalid_argument"}', "invalid_argument"),
])
async def test_every_status_but_success_is_an_error(
    odd: Odd, client: LangGraphServer, status: int, text: str, error: str,
) -> None:
    odd.status, odd.text = status, text
    answer = await client.respond("t", "i", "yes", "dec_1", "ann")
    assert answer is not None
    assert answer[0] == error
    assert odd.requests[0].headers["X-Api-Key"] == "k1"
    assert odd.requests[0].path == "/api/threads/t/commands"


@pytest.mark.parametrize("status", [200, 307, 401, 403, 404, 429, 500, 503])
@pytest.mark.parametrize("text", ["<html>", "null", "{}"])
async def test_a_page_of_a_proxy_does_not_mean_that_threads_were_deleted(
    odd: Odd, client: LangGraphServer, status: int, text: str,
) -> None:
    odd.status, odd.text, odd.page = status, text, text
    with pytest.raises(PeerUnavailable):
        await client.threads(["t"])
    with pytest.raises(PeerUnavailable):
        [one async for one in client.waiting()]
    for call in (client.runs_marked("t", "dec_1"), client.has_checkpoint("t", "dec_1")):
        with pytest.raises(PeerUnavailable):
            await call
    if status not in (200, 404):
        with pytest.raises(PeerUnavailable):
            await client.respond("t", "i", "yes", "dec_1", "ann")


async def test_a_thread_that_a_search_misses_is_read_by_its_id(odd: Odd, client: LangGraphServer) -> None:
    odd.text = thread("t1")
    assert list(await client.threads(["t1"])) == ["t1"]
    odd.status = 404
    assert await client.threads(["t1"]) == {}


async def test_a_run_of_attn_is_recognised_among_hundreds_of_runs(odd: Odd, client: LangGraphServer) -> None:
    odd.text = json.dumps([{"run_id": "r", "status": "success", "metadata": {"attn_decision": "dec_1 dec_2"}}, None,
                           {"run_id": "s", "status": "success", "metadata": {"attn_decision": "dec_12"}}])
    assert [run.id for run in await client.runs_marked("t", "dec_2")] == ["r"]
    assert await client.runs_marked("t", "dec") == []
