"""One edge: replica, feeds, event streams and connections, put together. The tailer feeds it, the routes ask it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable

from api import metrics
from api.answers import Answers
from api.connections import Connections
from api.errors import Problem
from api.events import Events
from api.hub import Hub
from api.replica import Replica
from api.workspace import Workspace
from schemas.codec import HOUR, SECOND
from schemas.settings import Settings
from schemas.views import PositionRow
from streams.core.readers import Reader

__all__ = ["Edge", "served"]


def served(text: str, partitions: int) -> Collection[int]:
    """`0-3,7` -> the partitions meant; empty: all. ValueError: not such a list, or none of these."""
    if not text.strip():
        return range(partitions)
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        found.update(range(int(first), int(last or first) + 1))
    if not found or not found <= set(range(partitions)):
        raise ValueError(f"partitions {text!r}: must be among 0-{partitions - 1}")
    return found


class Edge:
    """`clock`: seconds since the epoch."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.clock = clock
        partitions = settings.log_partitions
        # Of the bytes kept for resuming, a quarter is Zero's events, which are small.
        room = settings.resume_bytes // 4
        self.replica = Replica(partitions, served(settings.partitions, partitions), settings.resume_bytes - room)
        self.answers = Answers(int(settings.activity_window_hours * HOUR))
        self.hub = Hub(self.replica, self.answers, settings.stream_buffer)
        self.events = Events(partitions, self.replica.position_of, room)
        self.connections = Connections(settings, lambda: int(clock() * SECOND))
        self.ready = False

    def take(self, partition: int, rows: Iterable[tuple[bytes, bytes | None]], position: PositionRow) -> None:
        """One batch of the view. `flush` must follow before anybody else has a turn."""
        self.hub.publish(self.replica.apply(partition, rows, position))
        metrics.BATCHES.inc()

    def flush(self) -> None:
        """Everybody gets what the batches since the last flush mean to them."""
        self.hub.flush()
        self.events.release()

    def space(self, reader: Reader) -> Workspace:
        """The reader's workspace. Problem 503: the view has not caught up yet, or another edge serves it."""
        if not self.ready:
            raise Problem(503, "the view has not caught up yet", {"retry-after": "1"})
        if not self.replica.serves(reader.ws):
            raise Problem(503, "another edge serves this workspace", {"retry-after": "1"})
        return self.replica.space(reader.ws)
