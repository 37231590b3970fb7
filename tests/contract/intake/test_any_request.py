"""Any bytes with any headers: POST /events never answers with a 5xx, and every error is JSON."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st
from support.edge.edge_with_fold import WS, Deciding
from support.edge.edges import token
from support.edge.topic_writer import TopicWriter
from support.examples import law
from support.fold.fold_driver import cloud_event

VALID = orjson.dumps(cloud_event("waitpoint.created", "w", title="T"))
MEDIA = st.sampled_from([
    b"application/cloudevents+json", b"application/cloudevents-batch+json", b"application/json", b"",
    b"application/cloudevents+json; charset=utf-16", b"Application/CloudEvents+JSON ; charset=\"utf-8\"", b";;;",
]) | st.binary(max_size=30)
BODIES = st.one_of(
    st.binary(max_size=300), st.just(VALID), st.just(b"[" + VALID + b"]"),
    st.lists(st.integers(0, 255), max_size=8).map(lambda changes: bytes(
        (byte ^ changes[at % len(changes)]) if changes and at % 40 == 0 else byte for at, byte in enumerate(VALID))),
    st.binary(max_size=100).map(gzip.compress), st.just(gzip.compress(VALID)), st.just(b"[" * 3000),
)
NAMES = st.sampled_from([
    b"ce-specversion", b"ce-id", b"ce-type", b"ce-source", b"ce-time", b"ce-subject", b"ce-workspaceid", b"ce-data",
    b"ce-", b"content-encoding", b"idempotency-key", b"webhook-request-origin", b"ce-data_base64",
])
VALUES = st.sampled_from([b"1.0", b"waitpoint.created", b"gzip", b"%", b"%00", b'"', b'"\\', b"2026-05-20T12:00:00Z"])
HEADERS = st.lists(st.tuples(NAMES, VALUES | st.binary(max_size=20)), max_size=8)


async def ask(app: Any, headers: list[tuple[bytes, bytes]], body: bytes, query: bytes) -> tuple[int, bytes]:
    """Sends a request over ASGI, because HTTP clients refuse some of these headers."""
    sent: list[Any] = []
    bodies = [{"type": "http.request", "body": body[:7], "more_body": True}, {"type": "http.request", "body": body[7:]}]

    async def receive() -> Any:
        return bodies.pop(0) if bodies else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "http", "method": "POST", "path": "/events", "raw_path": b"/events", "query_string": query,
               "headers": headers, "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http",
               "server": ("edge", 80), "client": ("127.0.0.1", 1), "root_path": ""}, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


@law(400)
@given(MEDIA, HEADERS, BODIES, st.sampled_from([b"", b"topic=plans", b"topic=x", b"topic=%ff&topic="]))
def test_no_request_is_a_server_error(
    media: bytes, headers: list[tuple[bytes, bytes]], body: bytes, query: bytes,
) -> None:
    bearer = (b"authorization", f"Bearer {token('ann', 'OWNER', ws=WS, seconds=1e9)}".encode())
    status, answer = asyncio.run(ask(_app(), [bearer, (b"content-type", media), *headers], body, query))
    assert status in (202, 400, 403, 413, 415), answer
    fields = orjson.loads(answer)
    assert ("error" in fields) is (status != 202)
    if "rejected" in fields:
        assert (fields["accepted"] > 0 or not fields["rejected"]) is (status == 202)
    assert _WORLD[0].edges[0].event_sender._held == 0


_WORLD: list[Deciding] = []
_APPS: list[Any] = []


def _app() -> Any:
    from api.http.app import create_app
    if not _APPS:
        _WORLD.append(Deciding(event_rate=1e9, event_burst=10**9))
        TopicWriter(_WORLD[0])
        _APPS.append(create_app(_WORLD[0].edges[0]))
    return _APPS[0]
