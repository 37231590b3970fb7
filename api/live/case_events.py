"""Fan-out of case events (the zero dialect) from facts, with a buffer of recent events for streams that resume.

An event is sent once the view has reached the position of its fact, so a client that reads the item afterwards gets the
new state. A stream resumes after the event id that its client names.

After a start the edge loads the facts of the past while it already receives new ones. The hub holds the new ones until
then, because events are in the order of their ids.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

import orjson

from api.contract.messages import CASE_EVENTS as TYPES
from api.live.connections import EncodedChunk, LiveStream, Sink
from api.live.sse import one_line
from api.readmodel.readers import Reader, audiences_of
from schemas.facts import Fact
from schemas.scalars import format_timestamp
from schemas.topics import partition_of
from schemas.views import CURSOR_BITS
from streams.core.domain.keys import item_id
from streams.core.domain.visibility import Targets

__all__ = ["CaseEventHub", "case_event_of"]

_OVERHEAD = 400  # bytes of an event in addition to its text
_MAX_CASES = 100_000  # cases that are known from facts, the most recent ones
_MAX_HELD = 20_000  # new facts that are held while the past is loaded
_MAX_EARLY_ITEMS = 8  # items of a case whose events all arrived before the items opened


class CaseEvent(NamedTuple):
    id: int
    position: int
    ws: str
    case: str | None
    user: str | None
    role: str | None
    chunk: EncodedChunk
    item: str | None = None  # id of the item, if the event arrived before the item opened


def case_event_of(fact: Fact) -> CaseEvent | None:
    """Returns the event of a fact. None if the fact is no event, or a state change that is out of date."""
    known = TYPES.get(fact.type)
    if known is None or (fact.stale and fact.type == "case.state_changed"):
        return None
    name, fields = known
    values = {field: value for field in fields if (value := getattr(fact, field)) is not None}
    if "task_id" in fields:
        values.setdefault("task_id", fact.subject)
    number = (fact.pos << CURSOR_BITS) | min(fact.index, (1 << CURSOR_BITS) - 1)
    data = orjson.dumps({"type": name, **values, "at": format_timestamp(fact.time)})
    chunk = EncodedChunk(b"id: %d\ndata: %b\n\n" % (number, one_line(data)))
    early = item_id(fact.ws, fact.kind, fact.subject) if fact.item is None and fact.kind is not None else None
    return CaseEvent(number, fact.pos, fact.ws, fact.case_id, fact.target_user_id, fact.target_role, chunk, early)


class _WorkspaceEvents:
    """Recent events of a workspace, the oldest first, and its streams."""

    __slots__ = ("dropped", "events", "streams")

    def __init__(self) -> None:
        self.events: deque[CaseEvent] = deque()
        self.dropped = -1  # id of the newest event that was dropped
        self.streams: set[CaseEventStream] = set()


class CaseEventStream(LiveStream):
    """One event stream. It has received all matching events up to `last_sent_id`."""

    __slots__ = ("case", "events", "last_sent_id", "reader", "workspace")

    def __init__(
        self, events: CaseEventHub, workspace: _WorkspaceEvents, reader: Reader, case: str | None, last_sent_id: int,
        sink: Sink,
    ) -> None:
        super().__init__(reader.workspace_id, reader.user, sink)
        self.events, self.workspace, self.reader = events, workspace, reader
        self.case, self.last_sent_id = case, last_sent_id

    def matches(self, event: CaseEvent) -> bool:
        if self.case is not None and event.case != self.case:
            return False
        return self.reader.can_see(*self.events.targets(event))

    def catch_up(self) -> None:
        if self.last_sent_id < self.workspace.dropped:
            self.disconnect()
            return
        for event in _after(self.workspace.events, self.last_sent_id):
            if not self.sink.ready:
                return
            self.last_sent_id = event.id
            if self.matches(event):
                self.sink.write(event.chunk)

    def send_heartbeat(self, now: int) -> None:
        # An id without data sets the client's Last-Event-ID and is not an event.
        if self.sink.ready:
            number = max(self.last_sent_id, self.events.current_id(self.workspace_id))
            self.sink.write(EncodedChunk(b"id: %d\n\n" % number if number >= 0 else b":\n\n"))

    def on_disconnect(self) -> None:
        self.workspace.streams.discard(self)
        self.events.drop_if_unused(self.workspace_id)


class CaseEventHub:
    """Case events of one edge.

    `position` returns the position of the view of a partition. `room`: bytes of events that are kept. `targets_of`
    returns the targets of an item of a workspace, None if the view does not hold the item.
    """

    def __init__(
        self, partitions: int, position: Callable[[int], int], room: int,
        targets_of: Callable[[str, str], Targets | None] = lambda *_: None,
    ) -> None:
        self._partitions, self._position, self._max_bytes, self._targets_of = partitions, position, room, targets_of
        self._workspaces: dict[str, _WorkspaceEvents] = {}
        self._waiting: dict[int, deque[CaseEvent]] = {}
        self._seen: dict[int, tuple[int, int]] = {}
        self._known_after: dict[int, int] = {}  # by partition: events up to this id are unknown
        self._order: deque[CaseEvent] = deque()
        self._kept_bytes = 0
        self._held: list[tuple[int, Fact]] | None = None  # new facts while the past is loaded
        self._loaded = asyncio.Event()
        self._loaded.set()
        # By workspace, case, audience: None, or the items of its events if all events came before their items.
        self._cases: OrderedDict[tuple[str, str, str], tuple[str, ...] | None] = OrderedDict()

    def set_known_after(self, partition: int, known_after: int) -> None:
        """Records that facts are read from this event id on. Events up to it are unknown."""
        self._known_after[partition] = known_after

    def begin_loading(self) -> None:
        """Holds the facts of `add` until `end_loading`."""
        self._held = []
        self._loaded.clear()

    def end_loading(self) -> None:
        """Adds the facts that were held."""
        held, self._held = self._held or [], None
        for partition, fact in held:
            self.add_past(partition, fact)
        self._loaded.set()

    async def wait_loaded(self) -> None:
        """Waits until the facts of the past are loaded. Until then streams would miss events."""
        await self._loaded.wait()

    @property
    def holds_enough(self) -> bool:
        """Whether so many facts are held that no more should be read before `end_loading`."""
        return self._held is not None and len(self._held) >= _MAX_HELD

    def add(self, partition: int, fact: Fact) -> None:
        """Adds one new fact, in the order of its topic. Ignores a repeat."""
        if self._held is None:
            self.add_past(partition, fact)
        elif fact.type in TYPES:
            self._held.append((partition, fact))

    def add_past(self, partition: int, fact: Fact) -> None:
        """Adds one fact, in the order of its topic, whether the past is being loaded or not. Ignores a repeat."""
        if (fact.pos, fact.index) <= self._seen.get(partition, (-1, -1)):
            return
        self._seen[partition] = (fact.pos, fact.index)
        event = case_event_of(fact)
        if event is not None:
            self._waiting.setdefault(partition, deque()).append(event)

    def release(self) -> None:
        """Sends the events whose position the view has reached."""
        for partition, waiting in self._waiting.items():
            reached = self._position(partition)
            while waiting and waiting[0].position < reached:
                self._publish(waiting.popleft())

    def _publish(self, event: CaseEvent) -> None:
        workspace = self._workspaces.get(event.ws)
        if workspace is None:
            workspace = self._workspaces[event.ws] = _WorkspaceEvents()
        workspace.events.append(event)
        self._order.append(event)
        self._kept_bytes += _OVERHEAD + len(event.chunk.raw)
        if event.case is not None:
            for audience in audiences_of(event.user, event.role):
                key = event.ws, event.case, audience
                known = self._cases.get(key, ())
                if known is None or event.item is None:
                    self._cases[key] = None
                else:
                    self._cases[key] = tuple(dict.fromkeys((*known, event.item)))[-_MAX_EARLY_ITEMS:]
                self._cases.move_to_end(key)
        while len(self._cases) > _MAX_CASES:
            self._cases.popitem(last=False)
        while self._kept_bytes > self._max_bytes:
            self._evict_oldest()
        for stream in list(workspace.streams):
            if stream.sink.ready:
                stream.catch_up()

    def _evict_oldest(self) -> None:
        oldest = self._order.popleft()
        self._kept_bytes -= _OVERHEAD + len(oldest.chunk.raw)
        workspace = self._workspaces[oldest.ws]
        workspace.events.popleft()
        workspace.dropped = oldest.id
        self.drop_if_unused(oldest.ws)

    def drop_if_unused(self, ws: str) -> None:
        workspace = self._workspaces.get(ws)
        if workspace is not None and not workspace.events and not workspace.streams:
            partition = self._partition(ws)
            self._known_after[partition] = max(self._known_after.get(partition, -1), workspace.dropped)
            del self._workspaces[ws]

    def _partition(self, ws: str) -> int:
        return partition_of(ws, self._partitions)

    def current_id(self, ws: str) -> int:
        """Returns the highest id that a sent event can have. The next event has a higher id."""
        return (self._position(self._partition(ws)) << CURSOR_BITS) - 1

    def has_case(self, reader: Reader, case: str) -> bool:
        """Returns whether an event of the case was sent that this reader may see."""
        for audience in reader.audiences:
            items = self._cases.get((reader.workspace_id, case, audience), ())
            if items is None or any(self._may_see(reader, item) for item in items):
                return True
        return False

    def _may_see(self, reader: Reader, item: str) -> bool:
        targets = self._targets_of(reader.workspace_id, item)
        return targets is None or reader.can_see(*targets)

    def targets(self, event: CaseEvent) -> Targets:
        """Returns the targets of an event: those of its item if the event arrived before the item opened."""
        now = self._targets_of(event.ws, event.item) if event.item is not None else None
        return now if now is not None else (event.user, event.role)

    def open(self, reader: Reader, case: str | None, after: int | None, sink: Sink) -> LiveStream:
        """Opens a stream: the kept events after the id `after`, then all further events."""
        workspace = self._workspaces.setdefault(reader.workspace_id, _WorkspaceEvents())
        floor = self.current_id(reader.workspace_id)
        since = max(workspace.dropped, self._known_after.get(self._partition(reader.workspace_id), -1))
        lost = after is not None and not since <= after <= floor
        last_sent_id = floor if after is None or after > floor else max(after, since)
        stream = CaseEventStream(self, workspace, reader, case, last_sent_id, sink)
        workspace.streams.add(stream)
        if lost:
            # The missed events are unknown. The client must read its state again.
            sink.write(EncodedChunk(b"event: reset\nid: %d\ndata: {}\n\n" % max(last_sent_id, 0)))
        if sink.ready:
            stream.catch_up()
        return stream


def _after(events: deque[CaseEvent], number: int) -> list[CaseEvent]:
    """Returns the events with a greater id. Checks the newest events first, because most requests are for them."""
    if not events or events[-1].id <= number:
        return []
    if len(events) > 1 and events[-2].id <= number:
        return [events[-1]]
    first = bisect_right(events, number, key=lambda event: event.id)
    return list(islice(events, first, None))
