"""Process of one connector: its peer, its HTTP ports, and the client of attn, until a signal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from schemas.settings import Settings
from streams.connectors.attn_client import AttnClient
from streams.connectors.connector import Connector
from streams.connectors.peer import Peer
from streams.connectors.wake_port import serve_wake_port
from streams.runtime import health

__all__ = ["OpenPeer", "run"]

OpenPeer = Callable[[AttnClient], AbstractAsyncContextManager[Peer]]


async def run(
    settings: Settings, stop: asyncio.Event, open_peer: OpenPeer, *, sweep_seconds: float = 30.0, wake_port: int = 0,
) -> None:
    """Runs a connector until `stop` is set. `settings.url` and `settings.key` must be set.

    Raises OSError if a port is in use.
    """
    assert settings.key is not None
    async with AttnClient(settings.url, settings.key.get_secret_value()) as attn, open_peer(attn) as peer:
        connector = Connector(peer, attn, sweep_seconds)
        async with (
            health.serve(settings.metrics_port, connector.not_ready_reason, settings.host),
            serve_wake_port(wake_port, connector.wake, settings.host),
        ):
            await connector.run(stop)
