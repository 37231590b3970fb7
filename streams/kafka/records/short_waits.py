"""Shortens the waits of empty fetches while a broker is down, so that a consumer finds new leaders at once.

A broker answers the requests of a connection in their order. aiokafka requests metadata on the connections of its
fetches, and fetches from a partition's new leader only after the fetch under way there has ended. So after the death
of a leader, both wait behind an empty fetch: up to 1.5 s each on Faust's consumer. From a lost connection until 3 s
after the last failed attempt to connect, an empty fetch waits 50 ms.
"""

from __future__ import annotations

import time
from functools import wraps
from typing import Any
from weakref import WeakKeyDictionary

from aiokafka.client import AIOKafkaClient
from aiokafka.conn import CloseReason
from aiokafka.consumer.fetcher import Fetcher

__all__ = ["SHORT_WAIT_MS", "install"]

SHORT_WAIT_MS = 50
_SECONDS = 3.0  # after the last failure
_FAILURES = (CloseReason.CONNECTION_BROKEN, CloseReason.CONNECTION_TIMEOUT)

_failed_at: WeakKeyDictionary[AIOKafkaClient, float] = WeakKeyDictionary()
_installed = False


def install() -> None:
    """Replaces methods of aiokafka for all clients of this process; idempotent. aiokafka has no setting for this."""
    global _installed
    if _installed:
        return
    _installed = True
    connect, on_closed, requests = (
        AIOKafkaClient._get_conn, AIOKafkaClient._on_connection_closed, Fetcher._get_actions_per_node)

    @wraps(connect)
    async def connect_noting_failures(self: AIOKafkaClient, node_id: Any, **kwargs: Any) -> Any:
        if (connection := await connect(self, node_id, **kwargs)) is None:
            _failed_at[self] = time.monotonic()
        return connection

    @wraps(on_closed)
    def note_lost_connection(self: AIOKafkaClient, connection: Any, reason: Any) -> None:
        if reason in _FAILURES:
            _failed_at[self] = time.monotonic()
        on_closed(self, connection, reason)

    @wraps(requests)
    def requests_with_short_waits(self: Fetcher, assignment: Any) -> Any:
        usual = self._fetch_max_wait_ms
        if time.monotonic() - _failed_at.get(self._client, float("-inf")) < _SECONDS:
            self._fetch_max_wait_ms = min(usual, SHORT_WAIT_MS)
        try:
            return requests(self, assignment)
        finally:
            self._fetch_max_wait_ms = usual

    AIOKafkaClient._get_conn = connect_noting_failures
    AIOKafkaClient._on_connection_closed = note_lost_connection
    Fetcher._get_actions_per_node = requests_with_short_waits
