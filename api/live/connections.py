"""Live connections: how many a person may have, and what each needs until it ends. No transport and no meaning here.

A stream hands bytes to its `Outlet` and never waits: an outlet that is not `ready` still has bytes of before, and says
so when they are gone. What was missed meanwhile is the stream's own business, and never more memory.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from api import metrics
from schemas.settings import Settings

__all__ = ["MAX_STREAM_SECONDS", "ConnectionRegistry", "EncodedChunk", "LiveStream", "Sink", "TooManyConnections"]

# Heartbeats are spread over so many moments, so that ten thousand of them are not one pause for everybody.
_HEARTBEAT_SLOTS = 30
MAX_STREAM_SECONDS = 30 * 86400.0  # seconds a stream may last, whatever its token says: a timer takes no more
# Retry-After of a refused connection, seconds: a tab that was closed is known of at once, one that vanished later.
RETRY_AFTER = 5
# Connections that may wait for their first frames; beyond, they are told to come again, which costs less than waiting.
_MAX_OPENING = 5000
# Streams that end within a second when the edge stops, so that those who come back at once don't come all at once.
_DRAINED_PER_SECOND = 500


class TooManyConnections(Exception):
    """The user has as many live connections as may be."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} live connections are open already, which is the most a user may have")
        self.limit = limit


# Bytes up to which a piece is copied to be one write; a larger one is written in parts, and held once.
_MAX_SINGLE_WRITE = 64 << 10


class EncodedChunk:
    """Bytes for many connections. `chunk`: framed once for those that write HTTP chunks themselves; None: too large."""

    __slots__ = ("http_chunk", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.http_chunk = b"%x\r\n%b\r\n" % (len(raw), raw) if len(raw) <= _MAX_SINGLE_WRITE else None


class Sink(Protocol):
    """Where a stream's bytes go. `on_ready` is called when `ready` becomes true again."""

    ready: bool
    on_ready: Callable[[], None]

    def write(self, piece: EncodedChunk) -> None: ...
    def end(self) -> None:
        """Ends the response properly, if the reader takes what is left."""
    def abort(self) -> None:
        """Drops the connection with whatever it has not taken."""


class LiveStream:
    """One live connection. Subclasses say what it carries."""

    __slots__ = ("_slot", "_timer", "sink", "user", "workspace_id")

    def __init__(self, ws: str, user: str, outlet: Sink) -> None:
        self.workspace_id, self.user, self.sink = ws, user, outlet
        self._slot = 0
        self._timer: asyncio.TimerHandle | None = None
        outlet.on_ready = self.catch_up

    def catch_up(self) -> None:
        """The outlet is ready again: give it what was missed."""
        raise NotImplementedError

    def disconnect(self) -> None:
        """It is too slow: what it has not got is not kept any longer."""
        metrics.DISCONNECTED_SLOW.inc()
        self.sink.on_ready = _nothing
        self.sink.abort()

    def send_heartbeat(self, now: int) -> None:
        """Time for a heartbeat; `now` in microseconds."""
        raise NotImplementedError

    def on_disconnect(self) -> None:
        """The connection is gone."""
        raise NotImplementedError


def _nothing() -> None:
    pass


class ConnectionRegistry:
    """All live connections of this edge. `clock` gives microseconds."""

    def __init__(self, settings: Settings, clock: Callable[[], int]) -> None:
        self.limit = settings.max_streams
        self._clock = clock
        self.heartbeat = settings.heartbeat_seconds
        self._interval = settings.heartbeat_seconds / _HEARTBEAT_SLOTS
        self._users: Counter[tuple[str, str]] = Counter()
        self._slots: list[set[LiveStream]] = [set() for _ in range(_HEARTBEAT_SLOTS)]
        self._next = 0
        self._closed = False
        self._reconnect = settings.reconnect_seconds
        self._turn = asyncio.Lock()
        self._opening = 0

    def __len__(self) -> int:
        return sum(map(len, self._slots))

    def reserve(self, ws: str, user: str) -> None:
        """A place for one more connection of the user, to be given back by `give_back`. Raises Full."""
        if self._users[ws, user] >= self.limit:
            metrics.CONNECTIONS_REFUSED.inc()
            raise TooManyConnections(self.limit)
        self._users[ws, user] += 1
        metrics.STREAMS.inc()

    def release(self, ws: str, user: str) -> None:
        metrics.STREAMS.dec()
        self._users[ws, user] -= 1
        if not self._users[ws, user]:
            del self._users[ws, user]

    @property
    def closed(self) -> bool:
        """The edge stops; nothing new begins."""
        return self._closed

    @property
    def is_overloaded(self) -> bool:
        """So many wait for their first frames that another one had better come again."""
        return self._opening >= _MAX_OPENING

    def retry_field(self) -> EncodedChunk:
        """Tells a client when to come back if its connection breaks: others at other times, so that they don't come
        all at once. A field of an event stream, not an event."""
        seconds = self._reconnect * random.uniform(0.1, 1)  # noqa: S311 - no secret
        return EncodedChunk(b"retry: %d\n" % (1000 * seconds))

    @asynccontextmanager
    async def opening_turn(self) -> AsyncIterator[None]:
        """For the work of a connection's first frames: one at a time, in the order they came, and between two of them
        everything else that waits for the loop has its turn."""
        self._opening += 1
        metrics.OPENING.set(self._opening)
        try:
            async with self._turn:
                await asyncio.sleep(0)
                yield
        finally:
            self._opening -= 1
            metrics.OPENING.set(self._opening)

    def add(self, stream: LiveStream, seconds: float | None) -> None:
        """The stream is live, for so many seconds at most (its token ends then)."""
        self._next = (self._next + 1) % _HEARTBEAT_SLOTS
        stream._slot = self._next
        self._slots[stream._slot].add(stream)
        if seconds is not None:
            seconds = min(max(0.0, seconds), MAX_STREAM_SECONDS)
            stream._timer = asyncio.get_running_loop().call_later(seconds, stream.sink.end)
        if self._closed:
            stream.sink.end()

    def remove(self, stream: LiveStream) -> None:
        """The stream is gone, and its place is free."""
        self.release(stream.workspace_id, stream.user)
        self._slots[stream._slot].discard(stream)
        if stream._timer is not None:
            stream._timer.cancel()
            stream._timer = None
        stream.on_disconnect()

    async def send_heartbeats(self) -> None:
        """Sends heartbeats, forever."""
        while True:
            for slot in self._slots:
                now = self._clock()
                for stream in list(slot):
                    stream.send_heartbeat(now)
                await asyncio.sleep(self._interval)

    async def drain(self, seconds: float) -> None:
        """Ends every stream, not all at once, within so many seconds. Nothing new begins from now on."""
        self._closed = True
        pause = min(seconds, len(self) / _DRAINED_PER_SECOND) / _HEARTBEAT_SLOTS
        for slot in self._slots:
            for stream in list(slot):
                stream.sink.end()
            if pause:
                await asyncio.sleep(pause)

    def close(self) -> None:
        """Ends every stream, now and to come: the edge stops."""
        self._closed = True
        for slot in self._slots:
            for stream in list(slot):
                stream.sink.end()
