"""Process `attn mcp`: one client over stdin and stdout, or any number over streamable HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Iterator
from contextlib import AbstractAsyncContextManager
from importlib import metadata
from typing import Any, NamedTuple

import aiohttp
import structlog
import uvicorn
from mcp.server.stdio import stdio_server

from api.http.protocol.server import listen
from ops.mcp import http_app
from ops.mcp.asker import Client
from ops.mcp.askers import Connect, HttpAskers, OneAsker, verify_key
from ops.mcp.server import build_server
from ops.mcp.tools import Waits
from streams.connectors.attn_client import AttnClient

__all__ = ["HttpOptions", "serve_http", "serve_stdio"]

log = structlog.get_logger("attn.mcp")

_STOP_SECONDS = 4


class HttpOptions(NamedTuple):
    """Where the HTTP server listens, and which names browsers and clients may use for it."""

    host: str
    port: int
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()


async def serve_stdio(url: str, key: str, source: str, waits: Waits, stop: asyncio.Event) -> None:
    """Serves the client at stdin and stdout until stdin ends or `stop` is set. Reports under way get two seconds."""
    async with OneAsker.open(_connector(url), key, source) as askers:
        server = build_server(askers, metadata.version("attn"), waits)

        async def serve() -> None:
            async with stdio_server() as (incoming, outgoing):
                await server.run(incoming, outgoing, server.create_initialization_options())

        await _first_of(serve(), stop.wait())


async def serve_http(url: str, source: str, waits: Waits, options: HttpOptions, stop: asyncio.Event) -> None:
    """Serves HTTP clients until `stop` is set. Raises OSError if the address cannot be listened on."""
    askers = HttpAskers(_connector(url), source)
    server = build_server(askers, metadata.version("attn"), waits)
    sock = listen(options.host, options.port)
    port = sock.getsockname()[1]
    security = http_app.security_of(options.host, port, options.allowed_hosts, options.allowed_origins)
    async with aiohttp.ClientSession(trust_env=False) as session:
        app = http_app.build_app(
            server, security, lambda key: verify_key(session, url, key), source, askers.maintain)
        http = _Server(uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=_STOP_SECONDS,
            server_header=False))
        log.info("listening", url=f"http://{options.host}:{port}{http_app.PATH}")

        async def until_stopped() -> None:
            await stop.wait()
            http.should_exit = True
            await asyncio.sleep(2 * _STOP_SECONDS)

        await _first_of(http.serve(sockets=[sock]), until_stopped())


class _Server(uvicorn.Server):
    """uvicorn server without signal handlers: the command line handles signals (ops.cli.commands.roles)."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _connector(url: str) -> Connect:
    def connect(key: str) -> AbstractAsyncContextManager[Client]:
        return AttnClient(url, key)

    return connect


async def _first_of(*works: Awaitable[Any]) -> None:
    """Runs all until the first ends, and cancels the others. Raises what the first raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.gather(*rest, return_exceptions=True), 1)
    for task in done:
        task.result()
