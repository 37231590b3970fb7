"""Registry of the live connections of an edge: limits per user and in total, heartbeats, maximum duration, drain.

A `LiveStream` writes bytes to its `Sink` and never waits. A sink that is not `ready` still holds unsent bytes; it calls
`on_ready` once they are sent. What a stream must send later is up to the stream, and must not cost more memory.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple, Protocol

import structlog

from api import metrics
from schemas.settings import Settings

__all__ = ["MAX_STREAM_SECONDS", "ConnectionRegistry", "EncodedChunk", "LiveStream", "Sink", "TooManyConnections",
           "Watch"]

# Heartbeats of all streams are spread over so many moments. 10,000 at once would delay all other requests.
_HEARTBEAT_SLOTS = 30
MAX_STREAM_SECONDS = 30 * 86400.0  # maximum of seconds for an asyncio timer, even if the token is valid for longer
# Retry-After of a refused connection, in seconds. The edge notices a closed tab at once, a lost one later.
RETRY_AFTER = 5
# Connections that may wait for their first frames. Further ones get a retry delay, which costs less than waiting.
_MAX_OPENING = 5000
# Streams that another edge opens per second when the readers of a failed edge come to it.
_RECONNECTS_PER_SECOND = 1000.0
_LEAST_RECONNECT_SECONDS = 0.5
_MAX_DEFERRAL_SECONDS = 60.0
# Share of the capacity at which the edge warns, and below which it may warn again.
_WARN_SHARE, _QUIET_SHARE = 0.8, 0.7
# Streams that end per second when the edge stops. Their clients reconnect at once; this spreads the load.
_DRAINED_PER_SECOND = 500

_log = structlog.get_logger("attn.edge")


class TooManyConnections(Exception):
    """The user has reached the limit of live connections."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} live connections are open already, which is the most a user may have")
        self.limit = limit


# Bytes up to which a chunk is copied into one HTTP chunk. A larger one is written in parts, without a copy.
_MAX_SINGLE_WRITE = 64 << 10


class EncodedChunk:
    """Bytes for many connections. `http_chunk`: the same bytes as one HTTP chunk; None if they are too large."""

    __slots__ = ("http_chunk", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.http_chunk = b"%x\r\n%b\r\n" % (len(raw), raw) if len(raw) <= _MAX_SINGLE_WRITE else None


class Sink(Protocol):
    """Destination of a stream's bytes. Calls `on_ready` when `ready` becomes true again."""

    ready: bool
    on_ready: Callable[[], None]

    def write(self, chunk: EncodedChunk) -> None: ...
    def end(self) -> None:
        """Ends the response. Aborts the connection if the client has not received all bytes."""
    def abort(self) -> None:
        """Drops the connection and its unsent bytes."""


class LiveStream:
    """One live connection. Subclasses decide which events it carries."""

    __slots__ = ("sink", "user", "workspace_id")

    def __init__(self, ws: str, user: str, sink: Sink) -> None:
        self.workspace_id, self.user, self.sink = ws, user, sink
        sink.on_ready = self.catch_up

    def catch_up(self) -> None:
        """Writes what the stream missed while the sink was not ready."""
        raise NotImplementedError

    def disconnect(self) -> None:
        """Drops a connection that is too slow."""
        metrics.DISCONNECTED_SLOW.inc()
        self.sink.on_ready = _nothing
        self.sink.abort()

    def send_heartbeat(self, now: int) -> None:
        """Writes a heartbeat. `now` in microseconds."""
        raise NotImplementedError

    def on_disconnect(self) -> None:
        """Releases what the stream holds. Called once, after the connection has ended."""
        raise NotImplementedError


def _nothing() -> None:
    pass


def _retry(seconds: float) -> EncodedChunk:
    return EncodedChunk(b"retry: %d\n" % (1000 * seconds))


# Registers the function that ends a connection when its credential is taken away; returns the function that removes
# it again (`api.live.access_watch`).
Watch = Callable[[Callable[[], None]], Callable[[], None]]


class _Entry(NamedTuple):
    """What the registry keeps of one stream: its heartbeat slot, the timer that ends it, and the end of its watch."""

    slot: int
    timer: asyncio.TimerHandle | None
    unwatch: Callable[[], None] | None = None


class ConnectionRegistry:
    """All live connections of this edge. `clock` returns microseconds. `capacity`: the number of live connections that
    the limit of open files allows (`api.open_files`)."""

    def __init__(self, settings: Settings, clock: Callable[[], int], capacity: int = 1 << 20) -> None:
        self.limit, self.capacity = settings.max_streams, capacity
        metrics.STREAM_CAPACITY.set(capacity)
        self._reserved = 0
        self._warned = False
        self._clock = clock
        self.heartbeat = settings.heartbeat_seconds
        self._interval = settings.heartbeat_seconds / _HEARTBEAT_SLOTS
        self._users: Counter[tuple[str, str]] = Counter()
        self._entries: dict[LiveStream, _Entry] = {}
        self._slots: list[set[LiveStream]] = [set() for _ in range(_HEARTBEAT_SLOTS)]
        self._next_slot = 0
        self._closed = False
        self._reconnect = settings.reconnect_seconds
        self._next_return = 0.0  # monotonic seconds at which the last deferred client comes back
        self._turn = asyncio.Lock()
        self._opening = 0

    def __len__(self) -> int:
        return len(self._entries)

    def reserve(self, ws: str, user: str) -> None:
        """Counts one more connection of the user; `release` takes it back. Raises TooManyConnections at the limit."""
        if self._users[ws, user] >= self.limit:
            metrics.CONNECTIONS_REFUSED.inc()
            raise TooManyConnections(self.limit)
        self._users[ws, user] += 1
        self._reserved += 1
        metrics.STREAMS.inc()
        if not self._warned and self._reserved > self.capacity * _WARN_SHARE:
            self._warned = True
            _log.warning("the edge has nearly as many live connections as its limit of open files allows, and defers "
                         "further ones at the limit: raise the hard limit of open files or start another edge",
                         streams=self._reserved, limit=self.capacity)

    def workspaces(self) -> set[str]:
        """Returns the workspaces that have connections, those included that wait for their first frames."""
        return {ws for ws, _ in self._users}

    def release(self, ws: str, user: str) -> None:
        metrics.STREAMS.dec()
        self._reserved -= 1
        self._warned = self._warned and self._reserved > self.capacity * _QUIET_SHARE
        self._users[ws, user] -= 1
        if not self._users[ws, user]:
            del self._users[ws, user]

    @property
    def closed(self) -> bool:
        """Whether the edge stops and opens no new stream."""
        return self._closed

    @property
    def is_full(self) -> bool:
        """Whether the edge has more live connections than its limit of open files allows. The one that was just
        reserved counts."""
        return self._reserved > self.capacity

    @property
    def is_overloaded(self) -> bool:
        """Whether a new connection should retry later: the edge is full, or too many wait for their first frames."""
        return self.is_full or self._opening >= _MAX_OPENING

    def retry_field(self) -> EncodedChunk:
        """Returns the `retry` field of an event stream: the delay after which the client reconnects.

        The delay is random, 10 to 100 % of an upper bound, so clients do not reconnect all at once. The bound is 1 ms
        per stream of this edge, at least 0.5 s and at most ATTN_RECONNECT_SECONDS: few clients need not wait. An
        overloaded edge always sends the longest bound.
        """
        return _retry(self._reconnect_delay())

    def _reconnect_delay(self) -> float:
        streams = math.inf if self.is_overloaded else len(self._entries)
        bound = min(self._reconnect, max(_LEAST_RECONNECT_SECONDS, streams / _RECONNECTS_PER_SECOND))
        return bound * random.uniform(0.1, 1)  # noqa: S311 - no secret

    def deferral(self) -> EncodedChunk:
        """Returns the `retry` field for a client whose stream does not open now, because the edge loads or is full.

        Such clients come back, so each one gets a time of its own: at most `_RECONNECTS_PER_SECOND` of them return per
        second. Otherwise the requests of many thousands, repeated every few seconds, would leave the edge no CPU.
        """
        now = time.monotonic()
        self._next_return = min(max(now, self._next_return + 1 / _RECONNECTS_PER_SECOND), now + _MAX_DEFERRAL_SECONDS)
        return _retry(max(self._reconnect_delay(), self._next_return - now))

    @asynccontextmanager
    async def opening_turn(self) -> AsyncIterator[None]:
        """Serializes the work for the first frames of connections, in the order of arrival.

        Yields to the event loop before each one.
        """
        self._opening += 1
        metrics.OPENING.set(self._opening)
        try:
            async with self._turn:
                await asyncio.sleep(0)
                yield
        finally:
            self._opening -= 1
            metrics.OPENING.set(self._opening)

    def add(self, stream: LiveStream, seconds: float | None, watch: Watch | None = None) -> None:
        """Registers a live stream. It ends after `seconds`, when its token expires, or by its watch."""
        self._next_slot = (self._next_slot + 1) % _HEARTBEAT_SLOTS
        timer = None
        if seconds is not None:
            seconds = min(max(0.0, seconds), MAX_STREAM_SECONDS)
            timer = asyncio.get_running_loop().call_later(seconds, stream.sink.end)
        self._entries[stream] = _Entry(self._next_slot, timer)
        self._slots[self._next_slot].add(stream)
        if self._closed:
            stream.sink.end()
        elif watch is not None:
            unwatch = watch(stream.sink.end)
            if stream in self._entries:
                self._entries[stream] = self._entries[stream]._replace(unwatch=unwatch)

    def remove(self, stream: LiveStream) -> None:
        """Removes a stream whose connection has ended, and releases its reservation."""
        self.release(stream.workspace_id, stream.user)
        entry = self._entries.pop(stream)
        self._slots[entry.slot].discard(stream)
        if entry.timer is not None:
            entry.timer.cancel()
        if entry.unwatch is not None:
            entry.unwatch()
        stream.on_disconnect()

    async def send_heartbeats(self) -> None:
        """Sends heartbeats until cancelled, slot by slot."""
        while True:
            for slot in self._slots:
                now = self._clock()
                for stream in list(slot):
                    stream.send_heartbeat(now)
                await asyncio.sleep(self._interval)

    async def drain(self, seconds: float) -> None:
        """Ends all streams within `seconds`, spread over time. No new stream opens from now on."""
        self._closed = True
        pause = min(seconds, len(self) / _DRAINED_PER_SECOND) / _HEARTBEAT_SLOTS
        for slot in self._slots:
            for stream in list(slot):
                stream.sink.end()
            if pause:
                await asyncio.sleep(pause)

    def close(self) -> None:
        """Ends all streams at once, and each stream that is still added."""
        self._closed = True
        for slot in self._slots:
            for stream in list(slot):
                stream.sink.end()
