"""The client of Alertmanager against servers that answer wrongly, late, or never."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from ops.process.ports import free_port
from streams.connectors.alertmanager.client import AlertmanagerClient, SilenceRejected
from streams.connectors.peer import PeerUnavailable

STATUS = {"uptime": "2026-11-30T10:00:00.000Z"}


class Member:
    """One member: `answers` by method and path below /api/v2; else 404. `seen`: requests with their Authorization."""

    def __init__(self) -> None:
        self.answers: dict[str, web.Response | Any] = {"GET status": STATUS, "GET alerts": [], "GET silences": []}
        self.seen: list[tuple[str, str | None]] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        name = f"{request.method} {request.path.removeprefix('/am/api/v2/')}"
        self.seen.append((name, request.headers.get("authorization")))
        found = self.answers.get(name)
        if isinstance(found, tuple):
            return web.Response(status=found[0], text=found[1], headers=found[2] if len(found) > 2 else None)
        return web.Response(status=404) if found is None else web.json_response(found)


@asynccontextmanager
async def serving(count: int = 1) -> AsyncIterator[list[Member]]:
    members, runners = [Member() for _ in range(count)], []
    try:
        for member in members:
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", member.answer)
            runner = web.AppRunner(app)
            await runner.setup()
            runners.append(runner)
            port = free_port()
            await web.TCPSite(runner, "127.0.0.1", port).start()
            member.url = f"http://127.0.0.1:{port}/am/"
        yield members
    finally:
        for runner in runners:
            await runner.cleanup()


@asynccontextmanager
async def client_of(*urls: str, **more: Any) -> AsyncIterator[AlertmanagerClient]:
    client = AlertmanagerClient(urls, **more)
    try:
        yield client
    finally:
        await client.close()


@pytest.mark.parametrize("answer", [
    (500, "boom"), (401, "no"), (302, "", {"location": "http://127.0.0.1:1/"}), (200, "<html>"), (200, '{"a": 1}'),
    (200, "null"),
], ids=["500", "401", "redirect", "html", "object", "null"])
async def test_an_answer_that_is_no_list_of_alerts_is_an_error(answer: tuple[Any, ...]) -> None:
    async with serving() as [member], client_of(member.url) as client:
        member.answers["GET alerts"] = answer
        with pytest.raises(PeerUnavailable):
            await client.truth()
        member.answers["GET silences"] = answer
        with pytest.raises(PeerUnavailable):
            await client.silences_everywhere()


@pytest.mark.parametrize("status", [{}, {"uptime": "soon"}, {"uptime": None}, []], ids=["none", "text", "null", "list"])
async def test_without_the_start_of_alertmanager_nothing_is_known_to_have_ended(status: Any) -> None:
    async with serving() as [member], client_of(member.url) as client:
        member.answers["GET status"] = status
        with pytest.raises(PeerUnavailable):
            await client.truth()


async def test_the_next_member_is_read_when_one_fails_and_stays_the_first() -> None:
    async with serving(2) as [first, second], client_of(first.url, second.url, authorization="Bearer t") as client:
        assert (await client.truth()).url == first.url.rstrip("/")
        first.answers["GET alerts"] = (503, "")
        assert (await client.truth()).url == second.url.rstrip("/")
        del first.answers["GET alerts"]
        assert (await client.truth()).url == second.url.rstrip("/")
        assert {authorization for _, authorization in first.seen + second.seen} == {"Bearer t"}
        first.answers["GET silences"], second.answers["GET silences"] = (500, ""), [
            {"id": "s", "updatedAt": "2026-11-30T10:00:00Z"}]
        assert [one["id"] for one in await client.silences_everywhere()] == ["s"]


@pytest.mark.parametrize(("status", "text", "reason"), [
    (400, '"invalid silence: no"', "invalid silence: no"), (422, '{"code":612,"message":"matchers"}', "matchers"),
    (413, "", "status 413"), (400, "\xff plain  text\n", "\xff plain text"),
])
async def test_a_silence_that_is_not_accepted_has_the_reason(status: int, text: str, reason: str) -> None:
    async with serving() as [member], client_of(member.url) as client:
        member.answers["POST silences"] = (status, text)
        with pytest.raises(SilenceRejected) as caught:
            await client.create_silence({})
        assert str(caught.value) == reason


@pytest.mark.parametrize("status", [401, 403, 404, 405, 429, 500, 503])
async def test_other_errors_of_a_silence_are_retried(status: int) -> None:
    async with serving() as [member], client_of(member.url) as client:
        member.answers["POST silences"] = (status, "")
        with pytest.raises(PeerUnavailable, match=str(status)):
            await client.create_silence({})


async def test_no_member_answers() -> None:
    async with client_of(f"http://127.0.0.1:{free_port()}") as client:
        for call in (client.truth, client.silences, client.silences_everywhere):
            with pytest.raises(PeerUnavailable):
                await call()
