"""AttnClient against real edges behind a proxy that drops connections and answers with 429, 503 or smaller limits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from support.edge.edge_with_fold import Deciding
from support.edge.topic_writer import TopicWriter
from support.fold.fold_driver import cloud_event

from schemas.topics import SOURCE_TYPES
from streams.connectors import attn_client
from streams.connectors.attn_client import AttnClient, AttnRefused, EventRejected

ASK = {"options": [{"id": "yes", "does": "approve"}, {"id": "no", "does": "reject"}]}
Fault = Callable[[web.Request], web.StreamResponse | None]


class World:
    """A running attn with a key, behind a proxy. `faults`: faults of the next requests, in order."""

    def __init__(self) -> None:
        self.attn = Deciding(write_rate=1e6, write_burst=10**6, event_rate=1e6, event_burst=10**6)
        self.topics = TopicWriter(self.attn)
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, int]] = []
        self.url = self.key = ""

    async def forward(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests.append((request.method, len(body)))
        if self.faults and (answer := self.faults.pop(0)(request)) is not None:
            return answer
        headers = {name: value for name, value in request.headers.items()
                   if name.lower() in ("authorization", "content-type", "if-none-match", "prefer")}
        async with self.attn.client(headers=headers) as client:
            answer = await client.request(request.method, str(request.rel_url), content=body)
        return web.Response(status=answer.status_code, body=answer.content, headers={
            name: value for name, value in answer.headers.items() if name in ("etag", "retry-after")})

    async def decide(self, subject: str) -> None:
        async with self.attn.client("ann", "OWNER") as client:
            [row] = (await client.get("/api/v1/inbox", params={"source_id": subject})).json()["rows"]
            answer = await client.post(
                f"/api/v1/inbox/{row['id']}/decision", json={"option": "yes", "digest": row["digest"]})
            assert answer.status_code == 201, answer.text


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(attn_client, "_FIRST_RETRY", 0.001)
    made = World()
    async with made.attn.client("ann", "OWNER") as client:
        made.key = (await client.post(
            "/org/me/keys", json={"name": "n", "topics": list(SOURCE_TYPES), "source": "/a"})).json()["secret"]
    application = web.Application(client_max_size=1 << 26)
    application.router.add_route("*", "/{path:.*}", made.forward)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    yield made
    await runner.cleanup()


def question(subject: str, **more: Any) -> dict[str, Any]:
    return cloud_event("waitpoint.created", subject, title="T", ask=ASK, **more) | {"source": "/a"}


def answering(status: int, **headers: str) -> Fault:
    return lambda request: web.Response(status=status, text="<html>", headers={
        name.replace("_", "-"): value for name, value in headers.items()})


def dropping(request: web.Request) -> web.StreamResponse | None:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def test_events_survive_lost_connections_and_overload(world: World) -> None:
    world.faults = [dropping, answering(429, retry_after="0"), answering(503), answering(502), dropping]
    async with AttnClient(world.url, world.key) as attn:
        assert await attn.send([question(f"w{number}") for number in range(3)]) == 3
        assert len(world.requests) == 6
        assert {row["source_id"] for row in await attn.items()} == {"w0", "w1", "w2"}


async def test_a_repeat_after_a_lost_answer_counts_once(world: World) -> None:
    async with AttnClient(world.url, world.key) as attn:
        for _ in range(2):
            await attn.send([question("w")])
        assert len(await attn.items()) == 1


async def test_the_last_error_is_raised_after_the_attempts(world: World) -> None:
    async with AttnClient(world.url, world.key, attempts=2) as attn:
        world.faults = [dropping, dropping]
        with pytest.raises(aiohttp.ClientError):
            await attn.send([question("w")])
        world.faults = [answering(503), answering(503)]
        with pytest.raises(AttnRefused, match="503"):
            await attn.items()
    assert len(world.requests) == 4


async def test_rejected_events_are_named_and_the_others_durable(world: World) -> None:
    async with AttnClient(world.url, world.key) as attn:
        with pytest.raises(EventRejected, match="of 'bad' and 1 more: ") as rejected:
            await attn.send([
                question("w1"), question("bad") | {"time": "soon"}, question("w2") | {"source": "/b"}, question("w3")])
        assert [event["subject"] for event, _ in rejected.value.rejected] == ["bad", "w2"]
        assert {row["source_id"] for row in await attn.items()} == {"w1", "w3"}
        with pytest.raises(EventRejected, match="time"):
            await attn.send([question("bad") | {"time": "soon"}])


async def test_large_sends_are_split(world: World) -> None:
    async with AttnClient(world.url, world.key) as attn:
        assert await attn.send(question(f"w{number}") for number in range(1100)) == 1100
        assert len(world.requests) == 3
        world.requests.clear()
        assert await attn.send(question(f"x{number}", payload={"x": "y" * 60_000}) for number in range(40)) == 40
        assert all(size <= attn_client.BATCH_BYTES + 100_000 for _, size in world.requests)
        world.requests.clear()
        world.faults = [answering(413)]
        assert await attn.send([question("y1"), question("y2")]) == 2
        assert len(world.requests) == 3, "the client must send all events, then each half"
        world.faults = [answering(413)]
        with pytest.raises(EventRejected):
            await attn.send([question("z")])


async def test_numbers_keep_their_digits(world: World) -> None:
    async with AttnClient(world.url, world.key) as attn:
        await attn.send([question("w", payload={"n": 12345678901234567890123, "s": "\ud83d"})])
        assert world.topics.records[0].value.count(b"12345678901234567890123") == 1
        [row] = await attn.items(source_id="w")
        assert row["payload"]["n"] == 12345678901234567890123
        item = await attn.item(row["id"])
        assert item is not None
        assert item["source_id"] == "w"
        assert await attn.item("ibx_" + "0" * 32) is None


async def test_a_watch_yields_each_changed_list(world: World) -> None:
    world.attn.happen()
    async with AttnClient(world.url, world.key) as attn, asyncio.timeout(30):
        await attn.send([question("w1"), question("w2")])
        watch = attn.watch_decisions(state="made", source="/a")
        assert await anext(watch) == []
        following = asyncio.ensure_future(anext(watch))
        await world.decide("w1")
        assert [row["source_id"] for row in await following] == ["w1"]
        world.faults = [dropping, answering(503), answering(304)]
        following = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0.05)
        await world.decide("w2")
        assert {row["source_id"] for row in await following} == {"w1", "w2"}


async def test_all_pages_are_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attn_client, "PAGE", 2)
    async with AttnClient(world.url, world.key) as attn:
        await attn.send([question(f"w{number}") for number in range(5)])
        for number in range(5):
            await world.decide(f"w{number}")
            world.attn.now += 1
        assert [row["source_id"] for row in await attn.decisions()] == ["w4", "w3", "w2", "w1", "w0"]
        assert [row["source_id"] for row in await attn.decisions(source_id="w3")] == ["w3"]


@pytest.mark.parametrize(("status", "fault"), [(401, None), (302, answering(302, location="http://127.0.0.1:9/")),
                                               (200, answering(200))])
async def test_a_permanent_error_is_raised_without_a_retry(world: World, status: int, fault: Fault | None) -> None:
    key = world.key if fault is not None else world.key[:-1] + ("0" if world.key[-1] != "0" else "1")
    world.faults = [fault] if fault is not None else []
    async with AttnClient(world.url, key) as attn:
        with pytest.raises(AttnRefused) as refused:
            await attn.decisions()
    assert refused.value.status == status
    assert len(world.requests) == 1
    assert key not in str(refused.value) + repr(attn)


def test_batches_keep_the_order() -> None:
    events = [{"id": str(number)} for number in range(1001)]
    batches = [[json.loads(raw)["id"] for _, raw in batch] for batch in attn_client._batches(events)]
    assert [len(batch) for batch in batches] == [500, 500, 1]
    assert [name for batch in batches for name in batch] == [event["id"] for event in events]
    assert list(attn_client._batches([])) == []


async def test_an_endless_response_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attn_client, "_MAX_BODY", 1000)
    world.faults = [lambda request: web.Response(body=b"x" * 5000)] * 2
    async with AttnClient(world.url, world.key, attempts=2) as attn:
        with pytest.raises(aiohttp.ClientPayloadError, match="more than 1000 bytes"):
            await attn.items()
