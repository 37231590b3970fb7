"""Two edges on one broker. Ending a session or revoking a key on one edge closes the streams, sockets and long polls
that use it on the other edge."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from contextlib import AsyncExitStack

import httpx
from support.edge.edge_on_broker import edge
from support.edge.edges import bearer
from support.kafka.pipeline import Stack, eventually, worker
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from api.http.auth.cookies import csrf_of
from ops.cli.data.sign_in_links import Person, create_link
from streams.kafka import topics

WS, TEN = "ws_two", 10.0


async def test_streams_sockets_and_polls_end_on_the_other_edge(stack: Stack) -> None:
    async with stack() as settings, AsyncExitStack() as parts:
        await topics.ensure_topics(settings)
        await parts.enter_async_context(worker(settings))
        here, there = [await parts.enter_async_context(edge(settings, write_seconds=30)) for _ in range(2)]
        http = await parts.enter_async_context(httpx.AsyncClient(timeout=60, trust_env=False))
        link = await create_link(settings, here, Person(WS, "ann", "MEMBER"), "test")
        answers = await asyncio.gather(*(http.post(
            f"{base}/auth/link", json={"link": link.partition("=")[2]}) for base in (here, there) * 2))
        assert sorted(answer.status_code for answer in answers) == [200, 410, 410, 410]
        session = next(answer.cookies["attn_session"] for answer in answers if answer.status_code == 200)
        own = {"cookie": f"attn_session={session}; attn_csrf={csrf_of(session)}", "x-csrf-token": csrf_of(session)}

        async def known() -> bool:
            return (await httpx.AsyncClient(trust_env=False).get(f"{there}/org/me", headers=own)).status_code == 200

        await eventually(known, "the other edge knows the session")
        owner = bearer("root", "OWNER", WS)
        made = (await http.post(f"{here}/org/me/keys", headers=owner, json={"name": "k", "topics": ["plans"]})).json()
        with_key = {"authorization": f"Bearer {made['secret']}"}

        async def key_known() -> bool:
            answer = await httpx.AsyncClient(trust_env=False).get(f"{there}/org/me/decisions", headers=with_key)
            return answer.status_code == 200

        await eventually(key_known, "the other edge knows the key")
        curl = await asyncio.create_subprocess_exec(
            "curl", "-sN", "-H", f"Cookie: {own['cookie']}", f"{there}/org/me/feed", stdout=asyncio.subprocess.PIPE)
        assert curl.stdout is not None
        assert await asyncio.wait_for(curl.stdout.readline(), 60)
        socket = await parts.enter_async_context(connect(
            there.replace("http", "ws") + "/api/v1/ws", additional_headers={"cookie": own["cookie"]}, proxy=None))
        assert json.loads(await socket.recv())["type"] == "authenticated"
        tag = (await http.get(f"{there}/org/me/decisions", headers=with_key)).headers["etag"]
        poll = asyncio.create_task(http.get(
            f"{there}/org/me/decisions", headers=with_key | {"if-none-match": tag, "prefer": "wait=30"}))
        # Without this delay the key may be revoked before the request arrives: it is answered with the same status.
        await asyncio.sleep(0.5)

        begun = time.monotonic()
        assert (await http.delete(f"{here}/org/me/keys/{made['key']['id']}", headers=owner)).status_code == 200
        assert (await http.delete(f"{here}/org/me/sessions", headers=own)).status_code == 200
        async with asyncio.timeout(60):
            await curl.communicate()
            while socket.close_code is None:
                try:
                    await socket.recv()
                except ConnectionClosed:
                    break
            assert (await poll).status_code == 401
        print("stream, socket and poll ended after", round(time.monotonic() - begun, 3), "s")
        assert socket.close_code == 4401
        assert (await http.get(f"{there}/org/me", headers=own)).status_code == 401
        assert secrets.compare_digest(session[:6], "attns_")
