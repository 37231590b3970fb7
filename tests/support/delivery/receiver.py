"""An HTTP receiver in this process with responses chosen by the test. It uses raw sockets, so a response may be invalid
HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Post", "Receiver", "answer", "receiver"]


@dataclass
class Post:
    """A request that the receiver got."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float  # of the loop's clock
    raw_names: list[str] = field(default_factory=list)  # of all headers, in lower case

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed


Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


def answer(status: int, body: bytes | str = b"", **headers: str) -> bytes:
    """Returns an HTTP response."""
    raw = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(raw)}", "connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + raw


@dataclass
class Receiver:
    """`choose` returns the answer to a request: bytes, or a function that writes it. `posts`: all requests."""

    port: int = 0
    choose: Callable[[Post], Answer] = lambda post: answer(204)
    posts: list[Post] = field(default_factory=list)
    open_now: int = 0
    most_open: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/decisions"

    def ids(self) -> list[str]:
        return [post.id for post in self.posts]

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, BrokenPipeError):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                post = Post(head[0].split(" ")[1], headers, body, asyncio.get_running_loop().time(),
                            [line.partition(":")[0].lower() for line in head[1:]])
                self.posts.append(post)
                chosen = self.choose(post)
                if isinstance(chosen, bytes):
                    writer.write(chosen)
                    await writer.drain()
                else:
                    await chosen(writer)
        finally:
            self.open_now -= 1
            writer.close()


@contextlib.asynccontextmanager
async def receiver(
    choose: Callable[[Post], Answer] | None = None, port: int = 0, tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Receiver]:
    """Runs a receiver on loopback while the block runs."""
    one = Receiver() if choose is None else Receiver(choose=choose)
    server = await asyncio.start_server(one.handle, "127.0.0.1", port, limit=4 << 20, ssl=tls)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()
