"""Edges in memory. A test applies batches of rows itself, and sends requests over ASGI or a real socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import jwt

from api.edge.services import Edge
from api.http.app import create_app
from api.http.protocol.server import listen, make_server
from schemas.settings import Settings
from schemas.views import PositionRow, Row, encode_row

SECRET = "a secret that is long enough for every one of the HMACs that the library knows"


def settings(**more: Any) -> Settings:
    return Settings(_env_file=None, **{"jwt_secret": SECRET, "log_partitions": 1, "heartbeat_seconds": 1e6, **more})


def token(user: str = "ann", role: str = "OWNER", ws: str = "w1", seconds: float = 3600, **more: Any) -> str:
    claims = {"sub": user, "role": role, "workspace_id": ws, "exp": int(time.time() + seconds), **more}
    return jwt.encode({name: value for name, value in claims.items() if value is not None}, SECRET, "HS256")


def bearer(*args: Any, **more: Any) -> dict[str, str]:
    return {"authorization": f"Bearer {token(*args, **more)}"}


class Fed:
    """An edge without a broker: every `put` applies one batch to it."""

    def __init__(self, **more: Any) -> None:
        self.edge = Edge(settings(**more))
        self.edge.ready = True
        self.position = PositionRow(next=0, clock=10**15)

    def put(self, *rows: tuple[bytes, Row | bytes | None], step: int = 1) -> int:
        """Applies one batch. Returns its cursor."""
        self.position.next += step
        raw = [(key, row if row is None or isinstance(row, bytes) else encode_row(row)) for key, row in rows]
        with self.edge.publishing():
            self.edge.apply_batch(0, raw, PositionRow(next=self.position.next, clock=self.position.clock))
        return self.edge.replica.cursor("w1")

    def client(self, *args: Any, **more: Any) -> httpx.AsyncClient:
        """Returns a client of the app without a socket, with the token of the given user."""
        transport = httpx.ASGITransport(create_app(self.edge), raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://edge", headers=bearer(*args, **more))


@asynccontextmanager
async def serving(edge: Edge, direct: bool = True) -> AsyncIterator[str]:
    """Serves the edge on a real socket. Yields its address. `direct` False: plain ASGI, as on another ASGI server."""
    sock = listen("127.0.0.1", 0)
    app = create_app(edge)

    async def plain(scope: Any, receive: Any, send: Any) -> None:
        scope.pop("extensions", None)
        await app(scope, receive, send)

    http = make_server(app if direct else plain)  # type: ignore[arg-type]
    tasks = [asyncio.create_task(http.serve(sockets=[sock])), asyncio.create_task(edge.connections.send_heartbeats())]
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        edge.connections.close()
        http.should_exit = True
        await asyncio.wait({tasks[0]}, timeout=10)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        sock.close()


async def until(condition: Any, seconds: float = 90.0, what: Any = lambda: "") -> None:
    """Waits until `condition()` is true. Fails after `seconds` with the text of `what()`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited too long {what()}"
        await asyncio.sleep(0.01)
