"""POST /events: each mode, each status, and the records on the source topics."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from typing import Any

import httpx
import orjson
import pytest
from support.edge.edge_with_fold import Deciding
from support.edge.topic_writer import TopicWriter
from support.fold.fold_driver import cloud_event

from schemas.sources import ROLES
from schemas.topics import SOURCE_TYPES

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
ASK = {"options": [{"id": "yes", "does": "approve"}, {"id": "no", "does": "reject"}]}


class World:
    """An attn with a key: `send` posts to /events with the key."""

    def __init__(self, **settings: Any) -> None:
        self.attn = Deciding(edges=2, **{"write_rate": 1e6, "write_burst": 10**6, **settings})
        self.topics = TopicWriter(self.attn)
        self.secret = ""

    async def key(self, **more: Any) -> str:
        async with self.attn.client("ann", "OWNER") as client:
            body = {"name": "CI", "topics": list(SOURCE_TYPES)} | more
            answer = await client.post("/org/me/keys", json=body)
            assert answer.status_code == 201, answer.text
            self.secret = answer.json()["secret"]
            return self.secret

    async def send(
        self, content: Any, content_type: str | None = STRUCTURED, edge: int = 0, query: str = "", **headers: str,
    ) -> httpx.Response:
        raw = content if isinstance(content, bytes) else orjson.dumps(content)
        named = {"authorization": f"Bearer {self.secret}"} | ({"content-type": content_type} if content_type else {})
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.attn.client(edge=edge, headers=named) as client:
            return await client.post(f"/events{query}", content=raw)

    async def items(self) -> dict[str, Any]:
        async with self.attn.client("ann", "OWNER") as client:
            rows = (await client.get("/api/v1/inbox")).json()["rows"]
            return {row["source_id"]: row for row in rows}


async def world(key: dict[str, Any] | None = None, **settings: Any) -> World:
    new_world = World(**settings)
    await new_world.key(**(key or {}))
    return new_world


def waitpoint(subject: str = "w", **more: Any) -> dict[str, Any]:
    attributes = {name: more.pop(name) for name in ("source", "workspaceid", "id", "time") if name in more}
    return cloud_event("waitpoint.created", subject, title="T", **more) | attributes


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


async def test_a_structured_event_arrives_as_it_was_written() -> None:
    attn = await world()
    text = json.dumps(waitpoint("w", payload={"n": 12345678901234567890123, "e": "é"}), indent=1).encode()
    answer = await attn.send(text, f"{STRUCTURED}; charset=UTF-8")
    assert (answer.status_code, answer.json()) == (202, {"accepted": 1, "rejected": []})
    [record] = attn.topics.records
    assert record == ("waitpoints", text, b"ws", [])
    assert set(await attn.items()) == {"w"}


async def test_a_binary_event_arrives_as_headers_and_data() -> None:
    attn = await world()
    answer = await attn.send(
        b'{"title": "T"}', "application/json; charset=utf-8", ce_specversion="1.0", ce_type="message.posted",
        ce_id="m%201", ce_source='"/a \\"b\\""', ce_subject="m%C3%A9", ce_time="2026-05-20T12:00:00Z",
        ce_workspaceid="ws")
    assert answer.status_code == 202, answer.text
    [record] = attn.topics.records
    assert (record.topic, record.value, record.key) == ("messages", b'{"title": "T"}', b"ws")
    assert dict(record.headers) == {
        "ce_specversion": b"1.0", "ce_type": b"message.posted", "ce_id": b"m 1", "ce_source": b'/a "b"',
        "ce_subject": "mé".encode(), "ce_time": b"2026-05-20T12:00:00Z", "ce_workspaceid": b"ws",
        "content-type": b"application/json; charset=utf-8"}
    assert set(await attn.items()) == {"mé"}


async def test_the_events_of_a_batch_keep_their_bytes_and_their_order() -> None:
    attn = await world()
    texts = [json.dumps(waitpoint(f"w{number}"), indent=number).encode() for number in range(5)]
    texts.append(json.dumps(cloud_event("message.posted", "m", title="T")).encode())
    answer = await attn.send(b" [\n" + b" ,\n".join(texts) + b"]\n", BATCH)
    assert (answer.status_code, answer.json()) == (202, {"accepted": 6, "rejected": []})
    assert [record.value for record in attn.topics.records] == texts
    assert [record.topic for record in attn.topics.records] == ["waitpoints"] * 5 + ["messages"]


@pytest.mark.parametrize("text", [
    b'\xef\xbb\xbf[%s]', b'[%s, {"lone": "\\ud800"}]', b'[%s, {"n": 1e999}]',
])
async def test_a_batch_accepts_all_json_that_ingest_accepts(text: bytes) -> None:
    attn = await world()
    answer = await attn.send(text % orjson.dumps(waitpoint()), BATCH)
    assert answer.status_code == 202, answer.text
    assert answer.json()["accepted"] == 1


async def test_the_rejected_events_of_a_batch_are_named_and_the_others_accepted() -> None:
    attn = await world({"topics": ["waitpoints", "messages"], "source": "/test"})
    events = [
        waitpoint("good"), waitpoint("elsewhere", workspaceid="other"), {"specversion": "1.0"}, 7,
        cloud_event("plan.proposed", "p", title="T"), waitpoint("foreign", source="/tests"),
        cloud_event("message.posted", "m"), waitpoint("large", payload={"x": "y" * (1 << 20)}), waitpoint("also good"),
        cloud_event("message.posted", "long", title="x" * 600),
    ]
    answer = await attn.send(events, BATCH)
    assert answer.status_code == 202
    body = answer.json()
    assert body["accepted"] == 2
    assert [(reject["index"], reject["status"]) for reject in body["rejected"]] == [
        (1, 403), (2, 400), (3, 400), (4, 403), (5, 403), (6, 400), (7, 413), (9, 400)]
    errors = {reject["index"]: reject["error"] for reject in body["rejected"]}
    assert errors[1].startswith("workspaceid: ")
    assert errors[2] == "type: a CloudEvent needs one"
    assert errors[3] == "not a CloudEvent: a JSON object is expected, not int"
    assert errors[4] == "type: the key may not send to topic plans"
    assert errors[5] == "source: the key sends for '/test' and sources below it"
    assert errors[6].startswith("data.title: ")
    assert errors[9] == "data.title: 600 characters; at most 512 are accepted"
    assert set(await attn.items()) == {"good", "also good"}


async def test_an_empty_batch_is_accepted() -> None:
    answer = await (await world()).send([], BATCH)
    assert (answer.status_code, answer.json()) == (202, {"accepted": 0, "rejected": []})


@pytest.mark.parametrize("given", [{}, {"workspaceid": None}])
async def test_the_workspace_may_be_left_out(given: dict[str, Any]) -> None:
    attn = await world()
    event = {name: value for name, value in waitpoint().items() if name != "workspaceid"} | given
    text = json.dumps(event, indent=2).encode() + b" \n"
    assert (await attn.send(text)).status_code == 202
    [record] = attn.topics.records
    assert record.value == text.rstrip()[:-1] + b',"workspaceid":"ws"}'
    answer = await attn.send([event | {"id": "second"}], BATCH)
    assert answer.json()["accepted"] == 1
    headers = {f"ce_{name}": str(value) for name, value in event.items() if name not in ("data", "workspaceid")}
    assert (await attn.send(b'{"title":"T"}', "application/json", **headers)).status_code == 202
    assert dict(attn.topics.records[-1].headers)["ce_workspaceid"] == b"ws"


@pytest.mark.parametrize(("name", "later"), [("w", "w"), ("workspaceid", "other")])
async def test_the_scope_is_checked_on_the_event_that_a_worker_reads(name: str, later: str) -> None:
    """Of two members with one name the worker reads the last one."""
    attn = await world()
    text = orjson.dumps(waitpoint())[:-1] + b',"%s":"%s"}' % (name.encode(), later.encode())
    assert (await attn.send(text)).status_code == (403 if name == "workspaceid" else 202)


async def test_an_event_of_another_workspace_is_refused() -> None:
    attn = await world()
    assert refusal(await attn.send(waitpoint(workspaceid="other"))) == (
        403, "workspaceid: the sender belongs to another workspace")
    assert not attn.topics.records


async def test_a_repeat_is_accepted_and_changes_nothing() -> None:
    attn = await world()
    event = waitpoint()
    assert (await attn.send(event)).status_code == 202
    before, facts = await attn.items(), len(attn.attn.facts)
    for edge in (0, 1):
        answer = await attn.send(event, edge=edge)
        assert (answer.status_code, answer.json()) == (202, {"accepted": 1, "rejected": []})
    assert await attn.items() == before
    assert len(attn.attn.facts) == facts


@pytest.mark.parametrize(("content", "error"), [
    (b"", "not JSON"), (b"{", "not JSON"), (b"[]", "not a CloudEvent"), (b"\xff", "not JSON"),
    (b"null", "not a CloudEvent"),
    (b"{}", "type: a CloudEvent needs one"), (b'{"type":"deploy"}', "type: 'deploy' is not one attn knows"),
    (b'{"type":"waitpoint.created"}', "Field required"), (b"[" * 100_000, "nested deeper"), (b'{"type":[]}', "type: "),
])
async def test_a_refused_event_has_a_reason(content: bytes, error: str) -> None:
    attn = await world()
    answer = await attn.send(content)
    assert answer.status_code == 400
    assert error in answer.json()["error"]
    assert answer.json()["accepted"] == 0
    assert answer.json()["rejected"] == [{"index": 0, "error": answer.json()["error"], "status": 400}]


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[1,", b'"x"', b"\xff\xfe[\0", b"[" * 50_000])
async def test_a_batch_that_is_no_array_is_not_read(content: bytes) -> None:
    answer = await (await world()).send(content, BATCH)
    assert answer.status_code == 400
    assert "batch" in answer.json()["error"]


async def test_a_batch_with_too_many_events_is_refused_as_a_whole() -> None:
    attn = await world(max_event_batch=3)
    assert refusal(await attn.send([waitpoint()] * 4, BATCH)) == (
        400, "the batch has 4 events: at most 3 are accepted in one request")
    assert not attn.topics.records


@pytest.mark.parametrize("content_type", [
    None, "application/json", "text/plain", "application/x-www-form-urlencoded", "application/cloudevents+avro",
    "application/cloudevents", "application/cloudevents-batch+protobuf", f"{STRUCTURED}; charset=utf-16",
])
async def test_another_media_type_is_unsupported(content_type: str | None) -> None:
    answer = await (await world()).send(waitpoint(), content_type)
    assert answer.status_code == 415
    assert "content-type" in answer.json()["error"]


async def test_structured_wins_over_attributes_in_headers() -> None:
    attn = await world()
    answer = await attn.send(waitpoint("in the body"), ce_specversion="1.0", ce_subject="in a header")
    assert answer.status_code == 202
    assert set(await attn.items()) == {"in the body"}


async def test_binary_mode_may_have_no_data() -> None:
    attn = await world()
    await attn.send(waitpoint("w"))
    answer = await attn.send(
        b"", None, ce_specversion="1.0", ce_type="waitpoint.approved", ce_id="a", ce_source="/test", ce_subject="w",
        ce_time="2026-05-20T13:00:00Z")
    assert answer.status_code == 202, answer.text
    assert (await attn.items())["w"]["resolved_action"] == "approved"


@pytest.mark.parametrize("value", ["%C0%A0", "%ff", "\u00ff"])
async def test_an_attribute_that_is_not_utf8_is_refused(value: str) -> None:
    attn = await world()
    headers = [(b"authorization", f"Bearer {attn.secret}".encode()), (b"ce-specversion", b"1.0"),
               (b"ce-id", value.encode("latin-1"))]
    async with attn.attn.client(headers={}) as client:
        answer = await client.post("/events", content=b"{}", headers=headers)
    assert refusal(answer) == (400, "header ce-id is not UTF-8 after percent-decoding")


async def test_an_attribute_must_not_occur_twice() -> None:
    attn = await world()
    headers = [("authorization", f"Bearer {attn.secret}"), ("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-id", "2")]
    async with attn.attn.client(headers={}) as client:
        answer = await client.post("/events", content=b"{}", headers=headers)
    assert refusal(answer) == (400, "header ce-id occurs more than once")


async def test_gzip_is_inflated_in_all_modes() -> None:
    attn = await world()
    assert (await attn.send(gzip.compress(orjson.dumps(waitpoint("a"))), content_encoding="gzip")).status_code == 202
    members = gzip.compress(b"[") + gzip.compress(orjson.dumps(waitpoint("b"))) + gzip.compress(b"]")
    assert (await attn.send(members, BATCH, content_encoding="GZIP")).json()["accepted"] == 1
    assert set(await attn.items()) == {"a", "b"}


@pytest.mark.parametrize(("content", "encoding", "status"), [
    (b"not gzip", "gzip", 400), (gzip.compress(b"[]")[:-3], "gzip", 400), (b"", "gzip", 400),
    (gzip.compress(b"[]") + b"rest", "gzip", 400), (gzip.compress(b"") * 65, "gzip", 400),
    (gzip.compress(b" " * (4 << 20)), "gzip", 413), (gzip.compress(b"[" + b" " * (3 << 20) + b"]"), "gzip", 413),
    (b"[]", "br", 415), (b"[]", "deflate", 415), (gzip.compress(gzip.compress(b"[]")), "gzip, gzip", 415),
    (b"[]", "identity", 202),
], ids=[
    "no-gzip", "cut", "empty", "rest", "many-members", "spaces", "large", "br", "deflate", "twice", "identity",
])
async def test_gzip_has_limits(content: bytes, encoding: str, status: int) -> None:
    answer = await (await world()).send(content, BATCH, content_encoding=encoding)
    assert answer.status_code == status, answer.text


async def test_a_bomb_is_not_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gigabyte of zeros in a megabyte: the edge inflates little more than the limit."""
    attn = await world()
    deflate = zlib.compressobj(9, wbits=31)
    bomb = b"".join(deflate.compress(bytes(1 << 20)) for _ in range(1024)) + deflate.flush()
    held = []
    reserve = type(attn.attn.edges[0].event_sender)._reserve
    monkeypatch.setattr(type(attn.attn.edges[0].event_sender), "_reserve",
                        lambda self, owner, size: (held.append(size), reserve(self, owner, size)))
    answer = await attn.send(bomb, BATCH, content_encoding="gzip")
    assert answer.status_code == 413
    assert sum(held) <= 4 << 20
    assert attn.attn.edges[0].event_sender._held == 0


async def test_a_large_body_is_refused_before_it_is_read() -> None:
    attn = await world(max_event_request=10_000)
    taken = 0

    async def body() -> Any:
        nonlocal taken
        for _ in range(1000):
            taken += 1000
            yield b" " * 1000

    async with attn.attn.client(headers={"authorization": f"Bearer {attn.secret}", "content-type": BATCH}) as client:
        answer = await client.post("/events", content=body())
        assert answer.status_code == 413
        assert answer.json()["limit"] == 10_000
        declared = await client.post("/events", content=b" " * 10_001)
        assert declared.status_code == 413
        other = await client.post("/org/me/keys", content=b" " * 10_001)
        assert other.status_code != 413
    assert attn.attn.edges[0].event_sender._held == 0


async def test_an_event_above_the_limit_is_too_large() -> None:
    attn = await world(max_event=2048)
    event = waitpoint(payload={"x": ""})
    room = 2048 - len(orjson.dumps(event))
    event["data"]["payload"]["x"] = "y" * room
    assert (await attn.send(event)).status_code == 202
    event["data"]["payload"]["x"] = "y" * (room + 1)
    assert refusal(await attn.send(event)) == (413, "the event is 2049 bytes; at most 2048 are accepted")
    # The workspace that the edge adds counts too, because it counts for the worker.
    del event["workspaceid"]
    event["data"]["payload"]["x"] = "y" * (room + len(',"workspaceid":"ws"') + 1)
    assert (await attn.send(event)).status_code == 413


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer x", "Basic eDp5", "Bearer attn_x"])
async def test_a_request_without_a_key_is_refused(authorization: str | None) -> None:
    attn = await world()
    headers = {"content-type": STRUCTURED} | ({} if authorization is None else {"authorization": authorization})
    async with attn.attn.client(headers=headers) as client:
        answer = await client.post("/events", content=orjson.dumps(waitpoint()))
    assert answer.status_code == 401
    assert not attn.topics.records


@pytest.mark.parametrize("role", ROLES)
async def test_owners_and_admins_send_with_their_token(role: str) -> None:
    attn = await world()
    event = {name: value for name, value in waitpoint().items() if name != "workspaceid"}
    async with attn.attn.client("ann", role) as client:
        answer = await client.post("/events", content=orjson.dumps(event), headers={"content-type": STRUCTURED})
        assert answer.status_code == (202 if role in ("OWNER", "ADMIN") else 403)
        elsewhere = orjson.dumps(event | {"workspaceid": "other"})
        answer = await client.post("/events", content=elsewhere, headers={"content-type": STRUCTURED})
        assert answer.status_code == 403


async def test_a_session_cookie_needs_the_csrf_header() -> None:
    attn = await world()
    async with attn.attn.client("ann", "OWNER") as client:
        token = client.headers.pop("authorization").removeprefix("Bearer ")
        for csrf, status in ((None, 403), ("c", 202)):
            headers = {"content-type": STRUCTURED, "cookie": f"attn_session={token}; attn_csrf=c"}
            headers |= {"x-csrf-token": csrf} if csrf else {}
            answer = await client.post("/events", content=orjson.dumps(waitpoint()), headers=headers)
            assert answer.status_code == status, answer.text


async def test_a_revoked_key_sends_nothing_on_any_edge() -> None:
    attn = await world()
    async with attn.attn.client("ann", "OWNER") as client:
        await client.delete(f"/org/me/keys/{attn.secret[5:21]}")
    assert [(await attn.send(waitpoint(), edge=edge)).status_code for edge in (0, 1)] == [401, 401]
    assert not attn.topics.records


async def test_the_rate_is_limited_per_key() -> None:
    attn = await world(event_rate=0.01, event_burst=3)
    first = attn.secret
    batch = await attn.send([waitpoint(f"w{number}") for number in range(3)], BATCH)
    assert batch.json()["accepted"] == 3  # the rate bucket is empty now
    refused = await attn.send(waitpoint("more"))
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 90
    await attn.key()
    assert (await attn.send(waitpoint("of another key"))).status_code == 202
    attn.secret = first
    assert (await attn.send(waitpoint("more"))).status_code == 429


async def test_requests_in_progress_are_limited_per_key(monkeypatch: pytest.MonkeyPatch) -> None:
    attn = await world(event_seconds=30)
    limiter = attn.attn.edges[0].event_requests
    limiter.at_once, limiter._waiting = 2, 1
    attn.topics.held = True
    waiting = [asyncio.create_task(attn.send(waitpoint(f"w{number}"))) for number in range(3)]
    # Two requests hold the slots and one is queued. Before that a fourth one could be queued in its place.
    while len(attn.topics.records) < 2 or sum(reads.count for reads in limiter._users.values()) < 3:
        await asyncio.sleep(0)
    answer = await attn.send(waitpoint("one more"))
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "1"
    attn.topics.acknowledge()
    assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [202] * 3


async def test_no_acknowledgement_in_time_is_503_and_the_repeat_changes_nothing() -> None:
    attn = await world(event_seconds=0.05)
    attn.topics.held = True
    answer = await attn.send(waitpoint())
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert attn.attn.edges[0].event_sender._held > 0, "the producer holds the event"
    attn.topics.acknowledge()
    await asyncio.sleep(0)
    assert attn.attn.edges[0].event_sender._held == 0
    before = await attn.items()
    assert (await attn.send(waitpoint("w"))).status_code == 202
    assert len(await attn.items()) == len(before) == 1


async def test_a_write_that_kafka_refuses_is_503() -> None:
    attn = await world()
    attn.topics.failing = True
    assert (await attn.send(waitpoint())).status_code == 503
    attn.topics.failing = False
    assert (await attn.send(waitpoint())).status_code == 202
    assert attn.attn.edges[0].event_sender._held == 0


async def test_without_a_broker_since_the_start_the_answer_is_503() -> None:
    attn = await world()
    attn.attn.edges[0].event_sender.producer = None
    answer = await attn.send(waitpoint())
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def test_a_full_buffer_is_refused_at_once() -> None:
    attn = await world(event_seconds=30, event_buffer=4 << 20, max_event_request=1 << 20)
    first = attn.secret
    attn.topics.held = True
    large = [waitpoint(f"w{number}", payload={"x": "y" * 60_000}) for number in range(16)]
    tasks = []
    for number in range(4):  # four keys fill their quarters of the buffer
        if number:
            await attn.key()
        tasks.append(asyncio.create_task(attn.send(large[:16], BATCH)))
        while len(attn.topics.records) < 16 * (number + 1):
            await asyncio.sleep(0)
    own = attn.secret
    attn.secret = first
    refused = await attn.send([waitpoint("x", payload={"x": "y" * 60_000})] * 2, BATCH)
    assert refused.status_code == 429, "the key's quarter of the buffer is full"
    await attn.key()
    refused = await attn.send(large, BATCH)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1"), "the buffer is full"
    attn.topics.acknowledge()
    assert [answer.status_code for answer in await asyncio.gather(*tasks)] == [202] * 4
    attn.secret = own
    assert (await attn.send(large, BATCH)).status_code == 202
    assert attn.attn.edges[0].event_sender._held == 0


async def test_a_report_of_a_decision_goes_to_the_topic_of_its_item() -> None:
    attn = await world({"topics": ["messages", "waitpoints"]})
    await attn.send(waitpoint("w", ask=ASK))
    row = (await attn.items())["w"]
    async with attn.attn.client("ann", "OWNER") as client:
        vote = {"option": "yes", "digest": row["digest"]}
        assert (await client.post(f"/api/v1/inbox/{row['id']}/decision", json=vote)).status_code == 201
    attn.attn.tick(10)
    applied = cloud_event("decision.applied", "w", minutes=1)
    assert (await attn.send(applied)).status_code == 202
    assert attn.topics.records[-1].topic == "waitpoints"
    assert (await attn.items())["w"]["decision"]["state"] == "applied"


async def test_a_report_may_name_its_topic() -> None:
    attn = await world({"topics": ["messages", "waitpoints"]})
    report = cloud_event("decision.refused", "unknown", reason="gone")
    assert (await attn.send(report, query="?topic=waitpoints")).status_code == 202
    assert (await attn.send(report)).status_code == 202
    assert [record.topic for record in attn.topics.records] == ["waitpoints", "messages"]
    assert (await attn.send(report, query="?topic=plans")).status_code == 403
    assert (await attn.send(report, query="?topic=attn.log")).status_code == 400
    assert (await attn.send(waitpoint(), query="?topic=messages")).status_code == 400


async def test_a_key_reads_the_item_that_it_sent() -> None:
    attn = await world({"source": "/test"})
    await attn.send(waitpoint("w", ask=ASK, target_user_id="bob"))
    async with attn.attn.client("bob", "OWNER") as client:
        [row] = (await client.get("/api/v1/inbox")).json()["rows"]
    async with attn.attn.client(headers={"authorization": f"Bearer {attn.secret}"}) as client:
        assert (await client.get(f"/api/v1/inbox/{row['id']}")).json()["source_id"] == "w"
        assert [row["source_id"] for row in (await client.get("/api/v1/inbox")).json()["rows"]] == ["w"]
        assert (await client.get("/api/v1/inbox/count")).status_code == 403


async def test_a_reply_token_is_in_no_view() -> None:
    attn = await world()
    answer = await attn.send(waitpoint("w", ask=ASK | {"reply": {"token": "only-for-the-source"}}))
    assert answer.status_code == 202, answer.text
    assert "only-for-the-source" not in str(attn.attn.rows) + str(attn.attn.log) + str(await attn.items())


async def options(attn: World, **headers: str) -> httpx.Response:
    async with attn.attn.client(headers={}) as client:
        named = {f"webhook-request-{name}": value for name, value in headers.items()}
        return await client.request("OPTIONS", "/events", headers=named)


async def test_the_handshake_of_the_webhook_specification() -> None:
    attn = World(event_rate=10)
    plain = await options(attn)
    assert (plain.status_code, plain.headers["allow"]) == (200, "POST, OPTIONS")
    assert not [name for name in plain.headers if name.startswith("webhook")]
    agreed = await options(attn, origin="eventemitter.example.com")
    assert agreed.headers["webhook-allowed-origin"] == "eventemitter.example.com"
    assert "webhook-allowed-rate" not in agreed.headers
    for wanted, allowed in (("120", "120"), ("100000", "600"), ("0", None), ("x", None), ("1e3", None)):
        answer = await options(attn, origin="a.example", rate=wanted, callback="http://127.0.0.1:9/never-called")
        assert answer.headers.get("webhook-allowed-rate") == allowed
    assert "webhook-allowed-rate" not in (await options(attn, rate="120")).headers
    assert "webhook-allowed-origin" not in (await options(attn, origin="x" * 254)).headers


async def test_other_methods_are_not_allowed() -> None:
    attn = await world()
    async with attn.attn.client(headers={"authorization": f"Bearer {attn.secret}"}) as client:
        for method in ("GET", "PUT", "PATCH", "DELETE"):
            answer = await client.request(method, "/events")
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST, OPTIONS")
