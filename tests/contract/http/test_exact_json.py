"""Every answer, frame and error has the payload of a source record with its original digits (CONTRACT §10)."""

from __future__ import annotations

import asyncio

import httpx
import orjson
import pytest
from support.edge.edge_with_fold import WS, Deciding
from support.edge.edges import bearer, serving
from support.fold.fold_driver import cloud_event

from streams.core.normalise import normalise

PAYLOAD = (rb'{"int": 9007199254740993, "far": -1e400, "cents": 0.10, "long": ' + b"7" * 4400 +
           rb', "half": "\ud83d", "nested": [{"\u0000": 1.0}, 1E+2, -0]}')
CARRIED = PAYLOAD.replace(rb"\ud83d", rb"\ufffd")


def with_payload(kind: str, subject: str, minutes: float = 0) -> bytes:
    event = cloud_event(kind, subject, minutes, WS, title="T \ufffd", payload="<payload>", deep=[[1]])
    return orjson.dumps(event).replace(b'"<payload>"', PAYLOAD).replace("\ufffd".encode(), rb"\ud83d")


@pytest.fixture
def attn() -> Deciding:
    deciding = Deciding()
    deciding.happen(normalise("messages", with_payload("message.posted", "m")))
    deciding.happen(normalise("escalations", with_payload("escalation.opened", "e")))
    return deciding


async def test_every_route_shows_it(attn: Deciding) -> None:
    async with attn.client() as client:
        page = await client.get("/org/me/inbox")
        assert page.content.count(CARRIED) == 2
        assert page.content.count('"T \ufffd"'.encode()) == 2
        items = orjson.loads(page.content.replace(CARRIED, b"{}"))["items"]
        item = next(url for url in items if url["kind"] == "message")
        url = f"/api/v1/inbox/{item['id']}"
        answers = [
            await client.get("/api/v1/inbox"), await client.get(url), await client.get(f"/org/me/inbox/{item['id']}"),
            await client.patch(url, json={"state": "read"}, headers={"if-match": '"1"'}),  # 412, with the item
            await client.patch(url, json={"state": "read"}), await client.patch(url, json={"state": "resolved"}),
            await client.get("/api/v1/inbox?state=resolved"), await client.get(url),
        ]
        assert answers[3].status_code == 412
        shown = [answer.content.count(CARRIED) for answer in answers]
    assert shown[0] == 2
    assert all(count == 1 for count in (shown[1], shown[2], shown[3], shown[6], shown[7]))
    assert all(answer.status_code == 200 for answer in answers[4:])


async def test_every_frame_carries_it(attn: Deciding) -> None:
    edge = attn.edges[0]
    async with serving(edge) as base:
        async def read(cursor: str, count: int) -> bytes:
            async with httpx.AsyncClient(timeout=60) as client, client.stream(
                    "GET", base + f"/org/me/feed{cursor}", headers=bearer("ann", ws=WS)) as answer:
                received = b""
                async for piece in answer.aiter_bytes():
                    received += piece
                    if received.count(CARRIED) == count:
                        return received
                raise AssertionError(received)

        async with asyncio.timeout(60):
            first = await read("", 2)
            cursor = first.split(b"id: ")[1].split(b"\n")[0].decode()
            attn.happen(normalise("messages", with_payload("message.posted", "m", 1)))
            attn.happen(normalise("escalations", with_payload("escalation.updated", "e", 1)))
            missed = await read(f"?last_event_id={cursor}", 2)
    assert b"event: snapshot" in first
    assert missed.count(b"event: changed") == 2
