"""An edge that serves other partitions knows every session, key and link, and answers 421 with the right partition."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import httpx
import pytest
from support.edge.edge_with_fold import WS, Deciding, message
from support.edge.edges import bearer, serving, settings
from support.edge.sessions import cookie_of, signed_in
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from api.edge.services import Edge
from api.http.app import create_app
from schemas.topics import partition_of
from schemas.views import PositionRow, decode_row, position_key

OWN = partition_of(WS, 2)  # the partition of the workspace; `elsewhere` serves the other one
HOOKS = """
[[hook]]
name = "ci"
mapping = "github"
workspace = "ws"
secrets = ["0123456789abcdef0123456789abcdef"]
"""


def position_of(attn: Deciding) -> PositionRow:
    row = decode_row(position_key(0), attn.rows[position_key(0)])
    assert isinstance(row, PositionRow)
    return row


def elsewhere(attn: Deciding, **more: object) -> Edge:
    """Returns an edge of the other partition that has read the view of both."""
    edge = Edge(settings(log_partitions=2, partitions=str(1 - OWN), **more), lambda: attn.now)
    edge.replica.load(OWN, attn.rows, position_of(attn))
    edge.ready = True
    return edge


def client_of(edge: Edge, headers: dict[str, str]) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(create_app(edge), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers)


async def partition_named(edge: Edge, method: str, path: str, headers: dict[str, str], **more: object) -> int:
    """Returns the partition that the edge names in its 421."""
    async with client_of(edge, headers) as client:
        answer = await client.request(method, path, **more)  # type: ignore[arg-type]
    assert answer.status_code == 421, answer.text
    assert answer.json() == {"error": "another edge serves this workspace"}
    return int(answer.headers["attn-partition"])


async def new_key(attn: Deciding) -> str:
    async with attn.client("ann", "OWNER") as client:
        answer = await client.post("/org/me/keys", json={"name": "CI", "topics": ["waitpoints"]})
        return str(answer.json()["secret"])


async def test_tokens_sessions_and_keys_of_another_range_get_its_partition() -> None:
    attn = Deciding()
    attn.happen(message())
    key, session = await new_key(attn), cookie_of(await signed_in(attn))
    edge = elsewhere(attn)
    assert edge.replica.row_count() == 0, "rows of workspaces are not kept"
    with_key = {"authorization": f"Bearer {key}"}
    for headers in (bearer(ws=WS, seconds=10**9), session, with_key):
        assert await partition_named(edge, "GET", "/org/me/decisions", headers) == OWN
    assert await partition_named(edge, "POST", "/events", with_key, json={}) == OWN
    basic = httpx.BasicAuth("x", key)
    assert await partition_named(edge, "POST", "/hooks/alertmanager", {}, json={}, auth=basic) == OWN
    assert await partition_named(edge, "GET", "/org/me/feed", session) == OWN


async def test_a_signed_hook_of_another_range_gets_its_partition(tmp_path: Path) -> None:
    attn, file = Deciding(), tmp_path / "hooks.toml"
    attn.happen(message())
    file.write_text(HOOKS)
    file.chmod(0o600)
    signature = "sha256=" + hmac.new(b"0123456789abcdef0123456789abcdef", b"{}", hashlib.sha256).hexdigest()
    assert await partition_named(elsewhere(attn, hooks=str(file)), "POST", "/hooks/ci", {
        "x-hub-signature-256": signature, "x-github-event": "ping"}, content=b"{}") == OWN


async def test_a_key_that_was_revoked_is_refused_by_an_edge_of_another_range() -> None:
    attn = Deciding()
    key = await new_key(attn)
    edge, before = elsewhere(attn), position_of(attn)
    known = dict(attn.rows)
    async with attn.client("ann", "OWNER") as client:
        await client.delete(f"/org/me/keys/{key[5:21]}")
    changed = [(name, attn.rows.get(name)) for name in known.keys() | attn.rows.keys()
               if known.get(name) != attn.rows.get(name)]
    assert position_of(attn).position > before.position
    edge.apply_batch(OWN, changed, position_of(attn))
    async with client_of(edge, {"authorization": f"Bearer {key}"}) as client:
        assert (await client.get("/org/me/decisions")).status_code == 401


@pytest.mark.parametrize(("headers", "status"), [({}, 200), ({"attn-ranges": "1"}, 421)])
async def test_an_event_source_waits_unless_a_proxy_knows_the_ranges(headers: dict[str, str], status: int) -> None:
    attn = Deciding()
    attn.happen(message())
    own = bearer(ws=WS, seconds=10**9) | {"accept": "text/event-stream"} | headers
    async with client_of(elsewhere(attn), own) as client:
        answer = await client.get("/org/me/feed")
    assert answer.status_code == status
    assert answer.text.startswith("retry:") == (status == 200)


async def test_the_handshake_of_a_socket_of_another_range_is_refused_before_it_is_accepted() -> None:
    attn = Deciding()
    session = cookie_of(await signed_in(attn))
    async with serving(elsewhere(attn)) as base:
        with pytest.raises(InvalidStatus) as refused:
            async with connect(base.replace("http", "ws") + "/api/v1/ws", additional_headers=session, proxy=None):
                pass
    assert refused.value.response.status_code == 421
    assert int(refused.value.response.headers["attn-partition"]) == OWN
