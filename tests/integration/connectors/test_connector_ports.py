"""The HTTP port of a connector: a POST from another system starts its next sweep."""

from __future__ import annotations

import httpx

from ops.process.ports import free_port
from streams.connectors.wake_port import serve_wake_port


async def test_the_wake_port_wakes_at_each_post_and_ignores_the_body() -> None:
    woken = []
    port = free_port()
    async with serve_wake_port(port, lambda: woken.append(1)), httpx.AsyncClient() as client:
        for path, body in (("", b""), ("/hooks/x", b"\xff{"), ("/a", b"x" * (2 << 20))):
            assert (await client.post(f"http://127.0.0.1:{port}{path}", content=body)).status_code == 202
        assert (await client.get(f"http://127.0.0.1:{port}/")).status_code == 405
    assert len(woken) == 3
