"""Reads with the key of a source: its questions and decisions, by source and source id, and long polls of both."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import orjson
import pytest
from support.edge.edge_with_fold import Deciding
from support.edge.topic_writer import TopicWriter
from support.fold.fold_driver import cloud_event

from schemas.topics import SOURCE_TYPES

ASK = {"options": [{"id": "yes", "does": "approve"}, {"id": "no", "does": "reject"}]}
DECISIONS, ITEMS = "/org/me/decisions", "/api/v1/inbox"


class World:
    """An attn with two edges. `keys`: source -> secret of the key that is restricted to it."""

    def __init__(self) -> None:
        self.attn = Deciding(edges=2, write_rate=1e6, write_burst=10**6, event_rate=1e6, event_burst=10**6)
        TopicWriter(self.attn)
        self.keys: dict[str, str] = {}

    async def key(self, source: str = "", **more: Any) -> str:
        async with self.attn.client("ann", "OWNER") as client:
            body = {"name": "CI", "topics": list(SOURCE_TYPES), **({"source": source} if source else {})} | more
            answer = await client.post("/org/me/keys", json=body)
            assert answer.status_code == 201, answer.text
            self.keys[source] = answer.json()["secret"]
            return str(answer.json()["key"]["id"])

    def client(self, source: str = "", edge: int = 0, **headers: str) -> httpx.AsyncClient:
        return self.attn.client(edge=edge, headers={"authorization": f"Bearer {self.keys[source]}"} | headers)

    async def ask(self, subject: str, source: str = "/a", second: int = 0) -> None:
        event = cloud_event("waitpoint.created", subject, title="T", ask=ASK) | {
            "source": source, "time": f"2026-05-20T11:00:{second:02}Z"}
        async with self.client() as client:
            answer = await client.post("/events", content=orjson.dumps(event),
                                       headers={"content-type": "application/cloudevents+json"})
        assert answer.status_code == 202, answer.text

    async def decide(self, subject: str, option: str = "yes", user: str = "ann") -> None:
        async with self.attn.client(user, "OWNER") as client:
            [row] = (await client.get(ITEMS, params={"source_id": subject})).json()["rows"]
            answer = await client.post(
                f"{ITEMS}/{row['id']}/decision", json={"option": option, "digest": row["digest"]})
            assert answer.status_code == 201, answer.text


async def world(*sources: str) -> World:
    attn = World()
    for source in ("", *sources):
        await attn.key(source)
    return attn


def subjects(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    body = answer.json()
    return [row["source_id"] for row in body.get("rows", body.get("decisions"))]


async def test_a_key_lists_the_questions_of_its_source() -> None:
    attn = await world("/a", "/b")
    for second, (subject, source) in enumerate([("w1", "/a"), ("w2", "/a/x"), ("w3", "/b"), ("w4", "/ab")]):
        await attn.ask(subject, source, second)
    async with attn.client("/a") as a, attn.client("/b") as b, attn.client() as every:
        assert subjects(await a.get(ITEMS)) == ["w2", "w1"]
        assert subjects(await b.get(ITEMS)) == ["w3"]
        assert subjects(await every.get(ITEMS)) == ["w4", "w3", "w2", "w1"]
        assert subjects(await every.get(ITEMS, params={"source": "/a"})) == ["w2", "w1"]
        assert subjects(await every.get(ITEMS, params={"source_id": "w3"})) == ["w3"]
        assert subjects(await a.get(ITEMS, params={"source_id": "w3"})) == []
        assert subjects(await every.get(ITEMS, params={"kind": "message"})) == []
        assert subjects(await every.get(ITEMS, params={"limit": "1"})) == ["w4"]
        body = (await a.get(ITEMS)).json()
        assert (body["count"], body["unread_count"]) == (2, 2)
    await attn.decide("w1")
    async with attn.client("/a") as a:
        assert subjects(await a.get(ITEMS, params={"state": "active"})) == ["w2"]
        assert subjects(await a.get(ITEMS, params={"state": "decided"})) == ["w1"]


async def test_items_that_ask_nothing_are_not_listed_for_a_key() -> None:
    attn = await world()
    event = cloud_event("waitpoint.created", "w", title="T") | {"source": "/a"}
    async with attn.client() as client:
        sent = await client.post("/events", content=orjson.dumps(event),
                                 headers={"content-type": "application/cloudevents+json"})
        assert sent.status_code == 202
        assert subjects(await client.get(ITEMS)) == []
        await attn.ask("w")  # the same item gets a question
        attn.attn.happen()
    async with attn.client(edge=1) as client:
        assert subjects(await client.get(ITEMS)) in (["w"], [])


async def test_decisions_are_listed_by_source_and_source_id() -> None:
    attn = await world("/a")
    for subject, source in (("w1", "/a"), ("w2", "/b"), ("w", "/a"), ("w10", "/a")):
        await attn.ask(subject, source)
        await attn.decide(subject)
        attn.attn.now += 1
    async with attn.client() as client, attn.client("/a") as a, attn.attn.client("ann", "OWNER") as ann:
        for reader in (client, ann):
            assert subjects(await reader.get(DECISIONS)) == ["w10", "w", "w2", "w1"]
            assert subjects(await reader.get(DECISIONS, params={"source": "/a"})) == ["w10", "w", "w1"]
            assert subjects(await reader.get(DECISIONS, params={"source_id": "w1"})) == ["w1"]
            assert subjects(await reader.get(DECISIONS, params={"source_id": "w"})) == ["w"]
            assert subjects(await reader.get(DECISIONS, params={"source_id": "w", "state": "applied"})) == []
        assert subjects(await a.get(DECISIONS, params={"source_id": "w2"})) == []


async def test_a_user_lists_the_decisions_of_a_source_id_that_the_user_may_see() -> None:
    attn = await world()
    event = cloud_event("waitpoint.created", "w", title="T", target_role="OWNER", ask=ASK) | {"source": "/a"}
    async with attn.client() as client:
        await client.post("/events", content=orjson.dumps(event),
                          headers={"content-type": "application/cloudevents+json"})
    await attn.decide("w")
    async with attn.attn.client("ann", "OWNER") as ann, attn.attn.client("max", "MEMBER") as other:
        assert subjects(await ann.get(DECISIONS, params={"source_id": "w"})) == ["w"]
        assert subjects(await other.get(DECISIONS, params={"source_id": "w"})) == []


async def test_pages_by_source_follow_each_other() -> None:
    attn = await world()
    for number in range(7):
        await attn.ask(f"w{number}", "/a" if number % 2 else "/b")
        await attn.decide(f"w{number}")
        attn.attn.now += 1
    listed, token = [], ""
    async with attn.client() as client:
        for _ in range(4):
            query = {"source": "/b", "limit": "2"} | ({"next": token} if token else {})
            answer = await client.get(DECISIONS, params=query)
            listed += subjects(answer)
            token = answer.json().get("next", "")
            if not token:
                break
    assert listed == ["w6", "w4", "w2", "w0"]


async def test_a_matching_tag_is_304_and_another_is_200() -> None:
    attn = await world()
    await attn.ask("w")
    async with attn.client() as client, attn.client(edge=1) as other:
        for path in (DECISIONS, ITEMS):
            first = await client.get(path)
            tag = first.headers["etag"]
            for value in (tag, f"W/{tag}", f'"x", {tag}'):
                same = await other.get(path, headers={"if-none-match": value})
                assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
            assert (await client.get(path, headers={"if-none-match": '"x"'})).status_code == 200
        before = (await client.get(DECISIONS)).headers["etag"]
        await attn.decide("w")
        assert (await client.get(DECISIONS, headers={"if-none-match": before})).status_code == 200


@pytest.mark.parametrize("path", [DECISIONS, ITEMS])
async def test_a_request_waits_until_its_answer_differs(path: str) -> None:
    attn = await world()
    await attn.ask("w")
    async with attn.client() as client:
        tag = (await client.get(path)).headers["etag"]
        request = asyncio.create_task(client.get(path, headers={"if-none-match": tag, "prefer": "wait=25"}))
        await _until_waiting(attn, 1)
        await attn.ask("other", "/b")  # changes the items, but not the decisions
        await asyncio.sleep(0.05)
        assert request.done() == (path == ITEMS)
        await attn.decide("w")
        answer = await request
        assert answer.status_code == 200
        assert answer.headers["etag"] != tag
        assert not _waiting(attn)


async def test_a_change_before_the_wait_began_is_not_missed() -> None:
    attn = await world()
    await attn.ask("w")
    async with attn.client() as client:
        tag = (await client.get(DECISIONS)).headers["etag"]
        await attn.decide("w")
        answer = await client.get(DECISIONS, headers={"if-none-match": tag, "prefer": "respond-async, wait=25"})
        assert answer.status_code == 200


async def test_the_wait_ends_with_304() -> None:
    attn = await world()
    async with attn.client() as client:
        tag = (await client.get(DECISIONS)).headers["etag"]
        answer = await client.get(DECISIONS, headers={"if-none-match": tag, "prefer": 'Wait = "1"'})
        assert answer.status_code == 304
        for other in ("wait=", "wait=-1", "waits=9", "wait=1.5x"):
            same = await client.get(DECISIONS, headers={"if-none-match": tag, "prefer": other})
            assert same.status_code == 304, other
    assert not _waiting(attn)


async def test_a_waiting_request_holds_no_slot_of_the_read_limiter() -> None:
    attn = await world()
    async with attn.client() as client:
        tag = (await client.get(DECISIONS)).headers["etag"]
        headers = {"if-none-match": tag, "prefer": "wait=25"}
        requests = [asyncio.create_task(client.get(DECISIONS, headers=headers)) for _ in range(64)]
        await _until_waiting(attn, 64)
        refused = await client.get(DECISIONS, headers=headers)
        assert (refused.status_code, refused.json()["limit"]) == (429, 64)
        assert int(refused.headers["retry-after"]) > 0
        assert (await client.get(DECISIONS)).status_code == 200
        await attn.ask("w")
        await attn.decide("w")
        assert {answer.status_code for answer in await asyncio.gather(*requests)} == {200}
    assert not _waiting(attn)
    assert len(attn.attn.edges[0].read_limiter) == 0


async def test_a_revoked_key_ends_its_waiting_requests_at_the_next_change() -> None:
    attn = World()
    identity = await attn.key()
    async with attn.client() as client, attn.attn.client("ann", "OWNER") as ann:
        await attn.ask("w")
        tag = (await client.get(DECISIONS)).headers["etag"]
        request = asyncio.create_task(
            client.get(DECISIONS, headers={"if-none-match": tag, "prefer": "wait=25"}))
        await _until_waiting(attn, 1)
        assert (await ann.delete(f"/org/me/keys/{identity}")).status_code == 200
        assert (await request).status_code == 401


async def test_a_stopping_edge_answers_waiting_requests() -> None:
    attn = await world()
    async with attn.client() as client:
        tag = (await client.get(DECISIONS)).headers["etag"]
        headers = {"if-none-match": tag, "prefer": "wait=25"}
        request = asyncio.create_task(client.get(DECISIONS, headers=headers))
        await _until_waiting(attn, 1)
        attn.attn.edges[0].long_polls.close()
        assert (await request).status_code == 304
        assert (await client.get(DECISIONS, headers=headers)).status_code == 304


def _waiting(attn: World) -> int:
    return sum(attn.attn.edges[0].long_polls._callers.values())


async def _until_waiting(attn: World, count: int) -> None:
    async with asyncio.timeout(20):
        while _waiting(attn) < count:
            await asyncio.sleep(0.001)
