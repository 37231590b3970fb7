"""`attn up` with users and a key for `attn mcp`, and clients of the MCP SDK over stdio and streamable HTTP."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import psutil
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from support.processes.cli import COMMAND, clean_env
from support.processes.up import Up

from ops.process.ports import free_port

__all__ = [
    "WS", "McpHttpServer", "People", "body", "eventually", "http_client", "mcp_http", "stdio_client", "stdio_servers",
]

WS = "ws_mcp"
# An answer is final after 0.3 s. Without confirmation it returns after 4 s. Users may resolve a waitpoint.
SETTINGS = {"ATTN_UNDO_SECONDS": "0.3", "ATTN_DECISION_CONFIRM": "PT4S", "ATTN_SOURCE_MANAGED_KINDS": "escalation"}
SECONDS = 200.0  # `attn mcp` and clients take 30 s to start on a machine with ten times its load


async def eventually(read: Callable[[], Awaitable[Any]], wanted: str, seconds: float = SECONDS) -> Any:
    """Waits for a true value of `read()` and returns it."""
    until = time.monotonic() + seconds
    while not (value := await read()):
        assert time.monotonic() < until, f"not within {seconds} s: {wanted}"
        await asyncio.sleep(0.05)
    return value


def body(result: Any) -> dict[str, Any]:
    """Returns the structured content of a result. Fails if the result is an error."""
    assert not result.is_error, result.content
    return dict(result.structured_content)


class People:
    """The users of a workspace of a running attn, and the keys of its agents."""

    def __init__(self, up: Up, ws: str = WS) -> None:
        self.up, self.ws, self.url = up, ws, up.url
        self.key = self.new_key()

    def new_key(self, topics: str = "waitpoints,messages", *more: str) -> str:
        done = self.up.attn("key", "create", "--workspace", self.ws, "--name", "mcp", "--topics", topics, *more)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def web(self, user: str = "ann", role: str = "OWNER") -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=30, headers={
            "authorization": f"Bearer {self.up.token(self.ws, user, role)}"})

    async def item(self, web: httpx.AsyncClient, title: str, state: str = "active") -> dict[str, Any]:
        """Waits for the item with this title and returns it."""

        async def found() -> Any:
            response = await web.get("/api/v1/inbox", params={"state": state, "limit": 200})
            rows = response.json()["rows"] if response.status_code == 200 else []
            return next((row for row in rows if row["title"] == title), None)

        return dict(await eventually(found, f"item {title!r} in state {state}"))

    async def decide(self, web: httpx.AsyncClient, title: str, option: str, **more: Any) -> httpx.Response:
        """Waits for the question with this title and answers it."""
        item = await self.item(web, title)
        body = {"option": option, "digest": item["digest"], **more}

        async def decided() -> httpx.Response | None:
            try:
                response = await web.post(f"/api/v1/inbox/{item['id']}/decision", json=body)
            except httpx.TransportError:
                return None
            return response if response.status_code != 503 else None  # attn restarts

        return cast(httpx.Response, await eventually(decided, "an answer to the decision"))

    async def decision(self, web: httpx.AsyncClient, handle: str, state: str) -> dict[str, Any]:
        """Waits until the decision of a handle is in this state and returns it."""

        async def found() -> Any:
            entries = (await web.get("/org/me/decisions", params={"limit": 200})).json()["decisions"]
            return next((one for one in entries if one["question"]["id"] == handle and one["state"] == state), None)

        return dict(await eventually(found, f"decision of {handle} in state {state}"))


@asynccontextmanager
async def stdio_client(people: People, *flags: str, key: str | None = None, **more: Any) -> AsyncIterator[Client]:
    """Yields a client of the SDK with its own `attn mcp` over stdin and stdout."""
    env = {**clean_env({}), "ATTN_URL": people.url, "ATTN_KEY": key or people.key}
    program, *arguments = [*COMMAND, "mcp", *flags]
    server = StdioServerParameters(command=program, args=arguments, env=env, cwd=people.up.home)
    async with Client(server, **more) as client:
        yield client


def stdio_servers() -> list[psutil.Process]:
    """Returns the running `attn mcp` processes over stdin and stdout that this process started."""
    running = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in running if "mcp" in child.cmdline() and "--http" not in child.cmdline()]


class McpHttpServer:
    """The process of `attn mcp --http`. A test may kill it and start it again on the same port."""

    def __init__(self, people: People, *flags: str) -> None:
        self.people, self.flags, self.port = people, flags, free_port()
        self.log = Path(people.up.home) / f"mcp-{self.port}.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def start(self) -> None:
        env = {**clean_env({}), "ATTN_URL": self.people.url}
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [*COMMAND, "mcp", "--http", f"127.0.0.1:{self.port}", *self.flags], cwd=self.people.up.home, env=env,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        until = time.monotonic() + SECONDS
        while not self._is_up():
            assert time.monotonic() < until, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)

    def _is_up(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/healthz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def kill(self, signum: int = signal.SIGKILL) -> int:
        assert self.process is not None
        os.kill(self.process.pid, signum)
        return self.process.wait(90)


@contextmanager
def mcp_http(people: People, *flags: str) -> Iterator[McpHttpServer]:
    server = McpHttpServer(people, *flags)
    server.start()
    try:
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.kill(signal.SIGTERM)


@asynccontextmanager
async def http_client(
    server: McpHttpServer, key: str | None = None, source: str | None = None, **more: Any,
) -> AsyncIterator[Client]:
    """Yields a client of the SDK over streamable HTTP with a key of attn as bearer token."""
    headers = {"authorization": f"Bearer {key or server.people.key}"} | ({"attn-source": source} if source else {})
    async with (
        create_mcp_http_client(headers=headers) as web,
        Client(streamable_http_client(server.url, http_client=web), **more) as client,
    ):
        yield client
