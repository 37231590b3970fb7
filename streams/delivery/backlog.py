"""Decisions that were read and are not delivered yet: order per subject, due times, offsets to commit. No I/O, no
clock.

Decisions of one workspace and subject form a lane. Only the first of a lane may be posted; the next one follows when it
is finished. The offset to commit is that of the first unfinished record of the partition.

Memory is bounded: at most `max_entries` entries, and bodies of at most `max_bytes` in all. The body of a further entry
is read again from the topic, by its offset, when it is posted.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from streams.runtime.backoff import Backoff
from streams.tracing.context import TraceLink

__all__ = ["Backlog", "Entry", "PartitionBacklog"]

_OUTDATED = 1000  # items of a heap that may be outdated before it is rebuilt

Lane = tuple[str, str]  # workspace, subject


@dataclass(slots=True, eq=False)
class Entry:
    """One message to post. Times are seconds since the epoch.

    `queue`: the endpoint's name, or "" if no such endpoint was configured when the record was read. `held`: the time
    until which a person may take the decision back; 0 if nobody can. `resolved`: the source has answered by itself.
    """

    partition: int
    offset: int
    workspace: str
    subject: str
    decision: str
    verb: str
    endpoint: str
    queue: str
    recorded_at: float
    size: int
    body: bytes | None = None
    held: float = 0.0
    expires_at: float | None = None
    due: float = 0.0
    attempts: int = 0
    backoff: Backoff | None = None
    pinned_due: bool = False  # `due` is what the receiver asked for
    last_reason: str = ""
    trace: TraceLink | None = None  # context of what made the decision
    running: bool = False
    resolved: bool = False
    finished: bool = False

    @property
    def lane(self) -> Lane:
        return self.workspace, self.subject


@dataclass(slots=True)
class PartitionBacklog:
    """`read_to`: offset of the next record to read. `caught_up`: whether its entries may be posted."""

    read_to: int
    caught_up: bool = False
    unfinished: OrderedDict[int, Entry] = field(default_factory=OrderedDict)

    @property
    def commit_offset(self) -> int:
        """Offset from which a restart must read."""
        return next(iter(self.unfinished), self.read_to)


class Backlog:
    """All entries of the assigned partitions."""

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self.partitions: dict[int, PartitionBacklog] = {}
        self._max_entries, self._max_bytes = max_entries, max_bytes
        self._lanes: dict[Lane, list[Entry]] = {}
        self._heaps: dict[str, list[tuple[float, int, Entry]]] = {}
        self._sequence = itertools.count()
        self._body_bytes = 0

    def __len__(self) -> int:
        return sum(len(partition.unfinished) for partition in self.partitions.values())

    def __iter__(self) -> Iterator[Entry]:
        for partition in self.partitions.values():
            yield from partition.unfinished.values()

    @property
    def is_full(self) -> bool:
        return len(self) >= self._max_entries

    @property
    def body_bytes(self) -> int:
        """Bytes of the bodies in memory."""
        return self._body_bytes

    @property
    def queues(self) -> Iterable[str]:
        """Names of the endpoints with entries that may become due."""
        return tuple(self._heaps)

    def assign(self, partition: int, offset: int) -> None:
        self.partitions[partition] = PartitionBacklog(offset)

    def release(self, partition: int) -> None:
        """Forgets a partition that another process has now. Attempts that run are not stopped here."""
        if (removed := self.partitions.pop(partition, None)) is not None:
            for entry in list(removed.unfinished.values()):
                self._drop(entry)

    def pause(self) -> None:
        """Lets no further entry be posted: the process stops, or other processes are about to get the partitions."""
        for state in self.partitions.values():
            state.caught_up = False

    def mark_caught_up(self, partition: int) -> None:
        """Lets the entries of a partition be posted."""
        state = self.partitions[partition]
        if not state.caught_up:
            state.caught_up = True
            for entry in state.unfinished.values():
                if self._lanes[entry.lane][0] is entry:
                    self._push(entry)

    def add(self, entry: Entry) -> None:
        """Adds the entry of a record. Its partition must be assigned."""
        if self._body_bytes + entry.size > self._max_bytes:
            entry.body = None
        elif entry.body is not None:
            self._body_bytes += entry.size
        self.partitions[entry.partition].unfinished[entry.offset] = entry
        lane = self._lanes.setdefault(entry.lane, [])
        lane.append(entry)
        if len(lane) == 1:
            self._push(entry)

    def take_back(self, workspace: str, subject: str, decision: str) -> bool:
        """Removes a `made` that was taken back before any attempt. Returns True if the receiver may know of the
        decision, because none was waiting or it was tried."""
        made = [entry for entry in self._waiting(workspace, subject, decision) if entry.verb == "made"]
        untried = [entry for entry in made if not entry.running and not entry.attempts]
        for entry in made:
            if entry.running:
                entry.resolved = True  # after this attempt there is no other one
            else:
                self.finish(entry)
        return not made or len(untried) < len(made)

    def resolve(self, workspace: str, subject: str, decision: str) -> None:
        """Ends the deliveries of a decision whose outcome is already known, as a later record of the topic says."""
        for entry in self._waiting(workspace, subject, decision):
            if entry.verb != "made":
                continue
            if entry.running:
                entry.resolved = True
            else:
                self.finish(entry)

    def _waiting(self, workspace: str, subject: str, decision: str) -> list[Entry]:
        return [entry for entry in self._lanes.get((workspace, subject), ()) if entry.decision == decision]

    def pop_due(self, queue: str, now: float) -> Entry | None:
        """Removes and returns the entry of an endpoint that is due first; None if none is due.

        The caller must call `retry` or `finish` for it.
        """
        heap = self._heaps.get(queue, [])
        while heap and (heap[0][0] <= now or not self._is_current(heap[0])):
            item = heapq.heappop(heap)
            if self._is_current(item) and self.partitions[item[2].partition].caught_up:
                item[2].running = True
                return item[2]
        if not heap:
            self._heaps.pop(queue, None)
        return None

    def next_due(self, queue: str) -> float | None:
        """Returns when the first entry of an endpoint is due."""
        heap = self._heaps.get(queue)
        return heap[0][0] if heap else None

    def retry(self, entry: Entry, due: float, pinned: bool = False) -> None:
        """Puts an entry back that `pop_due` returned. `pinned`: `hasten` must not change its time."""
        entry.running, entry.due, entry.pinned_due = False, due, pinned
        if not entry.finished:
            self._push(entry)

    def hasten(self, queue: str, now: float) -> None:
        """Makes the waiting entries of an endpoint due, except those whose time the receiver set."""
        for _, _, entry in list(self._heaps.get(queue, ())):
            if not entry.pinned_due and now < entry.due and entry.held <= now:
                entry.due = now
                self._push(entry)

    def finish(self, entry: Entry) -> None:
        """Removes an entry for which nothing is left to do. The next one of its lane may then be posted."""
        if entry.finished:
            return
        if (partition := self.partitions.get(entry.partition)) is not None:
            partition.unfinished.pop(entry.offset, None)
        was_first = self._drop(entry)
        if was_first and (lane := self._lanes.get(entry.lane)):
            self._push(lane[0])

    def _drop(self, entry: Entry) -> bool:
        entry.finished, entry.running = True, False
        if entry.body is not None:
            self._body_bytes -= entry.size
            entry.body = None
        lane = self._lanes[entry.lane]
        was_first = lane[0] is entry
        lane.remove(entry)
        if not lane:
            del self._lanes[entry.lane]
        return was_first

    def _push(self, entry: Entry) -> None:
        if self.partitions[entry.partition].caught_up:
            heap = self._heaps.setdefault(entry.queue, [])
            if len(heap) > 2 * len(self) + _OUTDATED:
                heap[:] = [item for item in heap if self._is_current(item)]
                heapq.heapify(heap)
            heapq.heappush(heap, (entry.due, next(self._sequence), entry))

    @staticmethod
    def _is_current(item: tuple[float, int, Entry]) -> bool:
        """Whether the item is the last one pushed for its entry. An entry that was finished or hastened leaves an
        outdated item in the heap."""
        due, _, entry = item
        return not entry.finished and not entry.running and entry.due == due
