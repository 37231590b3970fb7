"""Makes aiokafka's clients survive the death of a broker, and find its successor at once (decision 0071).

*A lost connection is an error of Kafka.* If a broker dies, uvloop may close the transport before aiokafka's reader
notices it. A request in between raised RuntimeError, which aiokafka does not retry: Faust crashed, and the worker
restarted. `install` turns it into KafkaConnectionError.

*Empty fetches wait 50 ms while a broker is down.* A broker answers the requests of a connection in their order.
aiokafka requests metadata on the connections of its fetches, and fetches from a partition's new leader only after the
fetch under way there has ended. So after the death of a leader both waited behind an empty fetch: up to 1.5 s each on
Faust's consumer. The waits are short until 3 s after the last failed attempt to connect.
"""

from __future__ import annotations

import time
from functools import wraps
from typing import Any
from weakref import WeakKeyDictionary

from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.errors import KafkaConnectionError

__all__ = ["SHORT_WAIT_MS", "install"]

SHORT_WAIT_MS = 50
_SECONDS = 3.0  # after the last failure
_FAILURES = (CloseReason.CONNECTION_BROKEN, CloseReason.CONNECTION_TIMEOUT)

_failed_at: WeakKeyDictionary[AIOKafkaClient, float] = WeakKeyDictionary()
_installed = False


def install() -> None:
    """Replaces methods of aiokafka for all clients of this process; idempotent. aiokafka has no setting for this."""
    global _installed
    if not _installed:
        _installed = True
        _refuse_closed_transports()
        _note_failures()
        _shorten_waits()


def _refuse_closed_transports() -> None:
    send = AIOKafkaConnection.send

    @wraps(send)
    def send_or_close(self: AIOKafkaConnection, request: Any, expect_response: bool = True) -> Any:
        writer = self._writer
        try:
            return send(self, request, expect_response)
        except RuntimeError as error:
            if writer is None or not writer.transport.is_closing():
                raise
            self.close(reason=CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(f"connection to {self._host}:{self._port} is closed") from error

    AIOKafkaConnection.send = send_or_close


def _note_failures() -> None:
    connect, on_closed = AIOKafkaClient._get_conn, AIOKafkaClient._on_connection_closed

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

    AIOKafkaClient._get_conn, AIOKafkaClient._on_connection_closed = connect_noting_failures, note_lost_connection


def _shorten_waits() -> None:
    requests = Fetcher._get_actions_per_node

    @wraps(requests)
    def requests_with_short_waits(self: Fetcher, assignment: Any) -> Any:
        usual = self._fetch_max_wait_ms
        if time.monotonic() - _failed_at.get(self._client, float("-inf")) < _SECONDS:
            self._fetch_max_wait_ms = min(usual, SHORT_WAIT_MS)
        try:
            return requests(self, assignment)
        finally:
            self._fetch_max_wait_ms = usual

    Fetcher._get_actions_per_node = requests_with_short_waits
