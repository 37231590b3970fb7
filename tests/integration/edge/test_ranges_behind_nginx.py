"""Two edges with a range of partitions each behind a real nginx: every kind of request reaches the edge of its
workspace, and a partition moves to the other range without loss for its readers."""

from __future__ import annotations

import asyncio
import itertools
import json
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.clients.feed import Copy
from support.clients.sse import Client
from support.edge.edge_on_broker import edge
from support.edge.edges import bearer
from support.edge.ranges_nginx import MODULE, NGINX, RangesNginx, running_nginx
from support.kafka.pipeline import Stack, eventually, send, worker
from websockets.asyncio.client import connect

from api.http.auth.cookies import csrf_of
from ops.cli.data.sign_in_links import Person, create_link
from ops.process.ports import free_port
from schemas.settings import Settings
from schemas.topics import partition_of
from streams.kafka import topics

pytestmark = pytest.mark.skipif(
    not (NGINX.exists() and MODULE.exists()), reason="Debian's nginx-light, libnginx-mod-http-js are not installed")

PARTITIONS = 3
BEFORE, AFTER = "0-1=range_a, 2-2=range_b", "0-0=range_a, 1-2=range_b"
# One workspace of each partition.
WORKSPACES = [next(name for name in map("ws_{}".format, itertools.count()) if partition_of(name, PARTITIONS) == number)
              for number in range(PARTITIONS)]
MOVED = WORKSPACES[1]


def failed_run(ws: str, number: int) -> dict[str, Any]:
    at = (datetime.now(UTC) - timedelta(minutes=30) + timedelta(seconds=number)).isoformat()
    return {"topic": "run-failures", "key": None, "value": {
        "specversion": "1.0", "id": f"{ws}-e{number}", "source": "/test", "type": "run.failed",
        "subject": f"{ws}-run-{number}", "time": at, "workspaceid": ws,
        "data": {"title": f"Run {number}", "pipeline": f"p{number}", "step": "build", "cluster": "c1"}}}


async def test_streams_get_a_retry_delay_while_no_edge_of_the_range_answers(tmp_path: Path) -> None:
    closed = f"http://127.0.0.1:{free_port()}"
    async with (
        running_nginx(tmp_path, PARTITIONS, BEFORE, (closed, closed)) as nginx,
        httpx.AsyncClient(base_url=nginx.base, headers=bearer("ann", "OWNER", MOVED), trust_env=False) as http,
    ):
        answer = await http.get("/org/me/feed", headers={"accept": "text/event-stream"})
        assert (answer.status_code, answer.text[:7]) == (200, "retry: ")
        answer = await http.get("/org/me/inbox")
        assert (answer.status_code, answer.json()) == (502, {"error": "no edge answers"})


async def page(base: str, ws: str) -> dict[str, Any]:
    async with httpx.AsyncClient(headers=bearer("ann", "OWNER", ws), trust_env=False) as http:
        answer = await http.get(base + "/org/me/inbox?limit=500")
        answer.raise_for_status()
        return dict(answer.json())


async def lists(base: str, ws: str, count: int) -> list[dict[str, Any]]:
    """Waits until the workspace has `count` items behind nginx. Returns them."""
    async def there() -> bool:
        return len((await page(base, ws))["items"]) == count

    await eventually(there, f"{ws} lists {count} items")
    return list((await page(base, ws))["items"])


class Follower:
    """Follows the feed of a workspace and resumes after each end of the stream, as a browser does."""

    def __init__(self, base: str, ws: str) -> None:
        self.copy, self.frames, self.connections = Copy(), list[tuple[int, str, Any]](), 0
        self._base, self._who = base, ("ann", "OWNER", ws)
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            headers = {"last-event-id": str(self.copy.cursor)} if self.connections else {}
            client, read = Client(self._base, who=self._who, headers=headers), 0
            self.connections += 1
            try:
                while not client.task.done() or read < len(client.frames):
                    for frame in client.frames[read:]:
                        self.copy.apply(frame)
                        self.frames.append(frame)
                        read += 1
                    await asyncio.sleep(0.01)
            finally:
                await client.close()

    async def until(self, cursor: int) -> None:
        await eventually(lambda: self._task.done() or self.copy.cursor >= cursor, f"a frame of cursor {cursor}")
        if self._task.done():
            await self._task

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def two_edges(parts: AsyncExitStack, settings: Settings, low: str, high: str) -> tuple[str, str]:
    made = [await parts.enter_async_context(edge(settings, write_seconds=30, partitions=served))
            for served in (low, high)]
    return made[0], made[1]


async def answered_by(nginx: RangesNginx, path: str, address: str) -> None:
    """Waits until nginx has logged that `address` answered the newest request of a path; it logs after the answer."""
    await eventually(lambda: nginx.last_upstreams(path)[-1:] == [address], f"{address} answers {path}")


async def signed_in(nginx: RangesNginx, settings: Settings, ws: str) -> dict[str, str]:
    """Uses a sign-in link, which names no workspace, and returns the headers of the session without its workspace."""
    link = await create_link(settings, nginx.base, Person(ws, "ann", "OWNER"), "test")
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        answer = await http.post(f"{nginx.base}/auth/link", json={"link": link.partition("=")[2]})
    assert answer.status_code == 200, answer.text
    session = answer.cookies["attn_session"]
    return {"cookie": f"attn_session={session}; attn_csrf={csrf_of(session)}", "x-csrf-token": csrf_of(session)}


async def check_requests(nginx: RangesNginx, settings: Settings, ws: str, owner: str) -> None:
    """Reads, writes, a session, a key, a hook and a socket of one workspace, whose edge is `owner`."""
    item = (await page(nginx.base, ws))["items"][0]["id"]
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        own = bearer("ann", "OWNER", ws)
        answer = await http.patch(f"{nginx.base}/api/v1/inbox/{item}", headers=own, json={"state": "read"})
        assert answer.status_code == 200, answer.text
        await eventually(lambda: nginx.last_upstreams(f"/api/v1/inbox/{item}") == [owner], "no detour")

        session = await signed_in(nginx, settings, ws)

        async def known() -> bool:
            return (await http.get(f"{nginx.base}/org/me", headers=session)).status_code == 200

        await eventually(known, "all edges know the session")
        assert (await http.get(f"{nginx.base}/org/me", headers=session)).json()["workspace_id"] == ws
        await answered_by(nginx, "/org/me", owner)
        answer = await http.post(f"{nginx.base}/org/me/keys", headers=session, json={
            "name": "CI", "topics": ["run-failures", "waitpoints"]})
        assert answer.status_code == 201, answer.text
        with_key = {"authorization": f"Bearer {answer.json()['secret']}"}

        async def key_known() -> bool:
            return (await http.get(f"{nginx.base}/org/me/decisions", headers=with_key)).status_code == 200

        await eventually(key_known, "all edges know the key")
        await answered_by(nginx, "/org/me/decisions", owner)
        answer = await http.post(
            f"{nginx.base}/events", headers=with_key | {"content-type": "application/cloudevents+json"},
            content=json.dumps(failed_run(ws, 900)["value"]))
        assert (answer.status_code, answer.json().get("accepted")) == (202, 1), "the body arrives after a detour"
        await answered_by(nginx, "/events", owner)
        answer = await http.post(f"{nginx.base}/hooks/alertmanager", headers=with_key, json={"alerts": "no list"})
        assert answer.status_code < 300 or answer.status_code == 400, answer.text
        await answered_by(nginx, "/hooks/alertmanager", owner)
        key = with_key["authorization"]
        made_up = {"authorization": key[:-1] + ("a" if key[-1] != "a" else "b")}
        assert (await http.get(f"{nginx.base}/org/me/decisions", headers=made_up)).status_code == 401
    url = nginx.base.replace("http", "ws") + "/api/v1/ws"
    async with connect(url, additional_headers={"cookie": session["cookie"]}, proxy=None) as socket:
        assert json.loads(await socket.recv())["workspace_id"] == ws
    async with connect(f"{url}?workspace={ws}", proxy=None) as socket:
        token = bearer("ann", "OWNER", ws)["authorization"].split()[1]
        await socket.send(json.dumps({"type": "auth", "token": token}))
        assert json.loads(await socket.recv())["workspace_id"] == ws


async def test_every_request_reaches_the_edge_of_its_workspace(stack: Stack, tmp_path: Path) -> None:
    async with stack(log_partitions=PARTITIONS) as settings, AsyncExitStack() as parts:
        await topics.ensure_topics(settings)
        await parts.enter_async_context(worker(settings))
        edges = await two_edges(parts, settings, "0-1", "2")
        nginx = await parts.enter_async_context(running_nginx(tmp_path, PARTITIONS, BEFORE, edges))
        await send(settings, [failed_run(ws, number) for ws in WORKSPACES for number in range(3)])
        addresses = [edges[0], edges[0], edges[1]]
        for ws, owner in zip(WORKSPACES, addresses, strict=True):
            await lists(nginx.base, ws, 3)
            await check_requests(nginx, settings, ws, owner.removeprefix("http://"))


async def test_a_partition_moves_between_ranges_without_loss(stack: Stack, tmp_path: Path) -> None:
    async with stack(log_partitions=PARTITIONS) as settings, AsyncExitStack() as parts:
        await topics.ensure_topics(settings)
        await parts.enter_async_context(worker(settings))
        first = await parts.enter_async_context(AsyncExitStack())
        edges = await two_edges(first, settings, "0-1", "2")
        nginx = await parts.enter_async_context(running_nginx(tmp_path, PARTITIONS, BEFORE, edges))
        await send(settings, [failed_run(ws, number) for ws in WORKSPACES for number in range(3)])
        for ws in WORKSPACES:
            await lists(nginx.base, ws, 3)
        followers = {ws: Follower(nginx.base, ws) for ws in WORKSPACES}
        for ws, follower in followers.items():
            await eventually(lambda follower=follower: follower.frames, f"a snapshot of {ws}")

        sent = 3
        stopping = asyncio.Event()

        async def work() -> None:
            nonlocal sent
            while not stopping.is_set():
                await send(settings, [failed_run(ws, sent) for ws in WORKSPACES])
                sent += 1
                await asyncio.sleep(0.05)

        producing = asyncio.create_task(work())
        # The procedure of docs/operations.md: new edges, a reload, then the end of the former edges.
        following = await two_edges(parts, settings, "0", "1-2")
        nginx.configure(AFTER, following)
        nginx.reload()

        async def moved() -> bool:
            await page(nginx.base, MOVED)
            return nginx.last_upstreams("/org/me/inbox") == [following[1].removeprefix("http://")]

        await eventually(moved, "nginx uses the new ranges")
        await first.aclose()
        await eventually(lambda: all(one.connections > 1 for one in followers.values()), "all streams resumed")
        at = sent
        await eventually(lambda: sent > at + 5, "some more events")
        stopping.set()
        await producing
        for ws, follower in followers.items():
            await lists(nginx.base, ws, sent)
            wanted = await page(nginx.base, ws)
            await follower.until(wanted["cursor"])
            assert follower.copy.page["items"] == wanted["items"]
            assert follower.copy.page["counts"] == wanted["counts"]
            assert [name for _, name, _ in follower.frames].count("snapshot") == 1, "each resume was exact"
            added = [data["item"]["id"] for _, name, data in follower.frames if name == "added"]
            assert len(added) == len(set(added)), "no frame twice"
            await follower.stop()
