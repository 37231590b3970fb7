"""Servers of the feed bench, each a process: `python -m bench.feed.servers VARIANT WORKSPACES FRAME_BYTES`.

`attn`: the edge, which writes frames to the transport. `asgi`: the same edge on plain ASGI. `sse-starlette`: a queue
for each connection, as its documentation recommends. `centrifugo`: the real server, a child of the process, measured
without it. `floor`: asyncio.Protocol and `transport.write`, without HTTP.
A server prints its port. Then it reads one JSON command per line: {"do": "publish", "rounds", "each", "pause"},
{"do": "weigh"} (collects garbage first) or {"do": "look"}. It answers with its CPU seconds and memory in bytes.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psutil
import uvloop

__all__ = ["SECRET", "VARIANTS"]

SECRET = "of the bench alone, and long enough for HMAC"

Publish = Callable[[int, int], None]  # (workspace, frames at a time)


def _stamp() -> str:
    """Returns the time of publication for the text of a frame, in nanoseconds of the monotonic clock."""
    return f"at={time.monotonic_ns()};"


async def attn(workspaces: int, frame_bytes: int, direct: bool = True) -> tuple[int, Publish]:
    from api.edge.services import Edge
    from api.http.app import create_app
    from api.http.protocol.server import listen, make_server
    from schemas.log import Data
    from schemas.settings import Settings
    from schemas.views import ItemRow, PositionRow, encode_row

    edge = Edge(Settings(_env_file=None, jwt_secret=SECRET, log_partitions=1, max_streams=10_000))  # type: ignore[call-arg, arg-type]
    edge.ready = True
    app = create_app(edge)

    async def plain(scope: Any, receive: Any, send: Any) -> None:
        scope.pop("extensions", None)
        await app(scope, receive, send)

    sock = listen("127.0.0.1", 0)
    http = make_server(app if direct else plain)  # type: ignore[arg-type]
    background = (
        asyncio.create_task(http.serve(sockets=[sock])), asyncio.create_task(edge.connections.send_heartbeats()))
    background[0].add_done_callback(lambda _: background[1].cancel())
    position = 0

    def publish(workspace: int, each: int) -> None:
        nonlocal position
        for number in range(each):
            position += 1
            name = f"w{workspace}"
            row = ItemRow(
                id=f"ibx_{workspace}_{number}", ws=name, kind="message", source_id="s", state="unread", rev=position,
                data=Data(title=_stamp(), body_md="x" * frame_bytes), created_at=1, due_at=2)
            edge.apply_batch(0, [(b"i:" + row.id.encode(), encode_row(row))], PositionRow(next=position))
        edge.publish()

    return sock.getsockname()[1], publish


async def asgi(workspaces: int, frame_bytes: int) -> tuple[int, Publish]:
    return await attn(workspaces, frame_bytes, direct=False)


def _text(frame_bytes: int, number: int) -> str:
    """Returns a text as long as a frame of attn."""
    return json.dumps({"item": {"title": _stamp(), "body_md": "x" * (frame_bytes + 380), "number": number}})


async def sse_starlette(workspaces: int, frame_bytes: int) -> tuple[int, Publish]:
    import uvicorn
    from sse_starlette.sse import EventSourceResponse
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.routing import Route

    from api.http.protocol.server import listen

    queues: dict[int, set[asyncio.Queue[dict[str, str]]]] = {number: set() for number in range(workspaces)}

    async def feed(request: Request) -> EventSourceResponse:
        mine = queues[int(request.headers["x-workspace"])]
        queue: asyncio.Queue[dict[str, str]] = asyncio.Queue(1000)

        async def frames() -> Any:
            mine.add(queue)
            try:
                yield {"event": "snapshot", "data": "{}"}
                while True:
                    yield await queue.get()
            finally:
                mine.discard(queue)

        return EventSourceResponse(frames())

    app = Starlette(routes=[Route("/org/me/feed", feed)])
    sock = listen("127.0.0.1", 0)
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[sock]))
    task.add_done_callback(lambda _: None)

    def publish(workspace: int, each: int) -> None:
        for number in range(each):
            frame = {"event": "added", "id": str(number), "data": _text(frame_bytes, number)}
            for queue in queues[workspace]:
                queue.put_nowait(frame)

    return sock.getsockname()[1], publish


async def floor(workspaces: int, frame_bytes: int) -> tuple[int, Publish]:
    readers: dict[int, set[asyncio.Transport]] = {number: set() for number in range(workspaces)}

    class Floor(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            name = data.split(b"x-workspace: ")[1].split(b"\r\n")[0]
            readers[int(name)].add(self.transport)  # type: ignore[arg-type]
            self.transport.write(b"event: snapshot\ndata: {}\n\n")  # type: ignore[attr-defined]

        def connection_lost(self, error: Exception | None) -> None:
            for transports in readers.values():
                transports.discard(self.transport)  # type: ignore[arg-type]

    server = await asyncio.get_running_loop().create_server(Floor, "127.0.0.1", 0)

    def publish(workspace: int, each: int) -> None:
        frames = b"".join(
            b"id: %d\nevent: added\ndata: %b\n\n" % (number, _text(frame_bytes, number).encode())
            for number in range(each))
        for transport in readers[workspace]:
            transport.write(frames)

    return server.sockets[0].getsockname()[1], publish


async def centrifugo(workspaces: int, frame_bytes: int) -> tuple[int, Publish]:
    from bench.feed.centrifugo import start

    port, publish, process = await start(SECRET, lambda number: _text(frame_bytes, number))
    _measured.append(process)
    return port, publish


# The process that is measured, if it is not this one.
_measured: list[psutil.Process] = []

VARIANTS: dict[str, Callable[[int, int], Awaitable[tuple[int, Publish]]]] = {
    "attn": attn, "asgi": asgi, "sse-starlette": sse_starlette, "centrifugo": centrifugo,
    "floor": floor,
}


def _cpu() -> float:
    if _measured:
        used = _measured[0].cpu_times()
        return float(used.user + used.system)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def serve(variant: str, workspaces: int, frame_bytes: int) -> None:
    port, publish = await VARIANTS[variant](workspaces, frame_bytes)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    _print({"port": port})
    while line := await commands.readline():
        command = json.loads(line)
        if command["do"] == "publish":
            for _ in range(command["rounds"]):
                for workspace in range(workspaces):
                    publish(workspace, command["each"])
                await asyncio.sleep(command["pause"])
        if command["do"] == "weigh":
            gc.collect()
        _print({"cpu": _cpu(), "rss": (_measured or [psutil.Process()])[0].memory_info().rss})


def _print(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
