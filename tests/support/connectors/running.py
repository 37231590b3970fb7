"""Runs a connector in a thread of this process, as `attn connect` does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aiohttp

from streams.connectors.attn_client import AttnClient
from streams.connectors.connector import Connector
from streams.connectors.langgraph.deployments import Deployment
from streams.connectors.langgraph.peer import LangGraphPeer
from streams.connectors.peer import Peer

__all__ = ["RunningConnector", "langgraph_peer"]


def langgraph_peer(*deployments: Deployment) -> Callable[[AttnClient], AbstractAsyncContextManager[Peer]]:
    @asynccontextmanager
    async def open_peer(attn: AttnClient) -> AsyncIterator[Peer]:
        async with aiohttp.ClientSession() as session:
            yield LangGraphPeer(deployments, attn, session)

    return open_peer


class RunningConnector:
    """A context manager. At its end the connector stops as after SIGTERM."""

    def __init__(
        self, open_peer: Callable[[AttnClient], AbstractAsyncContextManager[Peer]], url: str, key: str,
        sweep_seconds: float = 0.3,
    ) -> None:
        self._open_peer, self._url, self._key, self._sweep = open_peer, url, key, sweep_seconds
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._started = threading.Event()
        self.error: BaseException | None = None

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with AttnClient(self._url, self._key) as attn, self._open_peer(attn) as peer:
                self.connector = Connector(peer, attn, self._sweep)
                self._started.set()
                await self.connector.run(self._stop)
        except BaseException as error:
            self.error = error
            self._started.set()
            raise

    def wake(self) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self.connector.wake)

    def __enter__(self) -> RunningConnector:
        self._thread.start()
        self._started.wait(90)
        return self

    def __exit__(self, *error: Any) -> None:
        if self._loop is not None and self._stop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)
        assert self.error is None, self.error
