"""The fold: packs of the log in, rows and facts out. Pure; the only writer of the view (DESIGN: The idea, laws 1-3).

    fold = Fold(rows, partition, rules); fold.load(); fold.reconcile(log_end, incarnation)
    while not fold.apply(pack, offset):        # a pack that changes more than a batch can hold is folded in parts
        ...write fold.take()...
    batch = fold.take()                        # facts first, then the rows as one record batch, both acknowledged
    ...put batch.rows into `rows`...
    fold.taken()
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass

from schemas.facts import Fact, Outcome
from schemas.log import Command, Event, Pack
from schemas.views import PositionRow, SeenRow
from streams.core.config import FoldConfig
from streams.core.domain.keys import command_digest, event_digest, seen_key
from streams.core.fold import command_handlers, event_handlers, timer_handlers
from streams.core.fold.context import FoldContext
from streams.core.fold.state import RowCache

__all__ = ["MAX_PART_BYTES", "Fold", "FoldBatch"]

# Rough bytes of rows after which a pack is cut into parts: with escapes and one more entry a batch stays well under the
# log topics' record limit (schemas.topics.MAX_MESSAGE_BYTES).
MAX_PART_BYTES = 1 << 20
# Rough bytes of rows that one pack wakes; the others wait for the next pack or tick, so a mass of rows that are due at
# one moment can't stop the partition.
MAX_TIMER_BYTES = 1 << 18
# How far the position jumps when the log fell back: further than any log could have been ahead of what was kept.
POSITION_JUMP = 1 << 24


@dataclass(frozen=True, slots=True)
class FoldBatch:
    """`rows`: key -> encoded row or None (gone), the position row last. `facts` in the order of their ids."""

    rows: list[tuple[bytes, bytes | None]]
    facts: list[Fact | Outcome]


class Fold:
    """The fold of one partition. `rows` holds that partition's durable rows; the caller keeps it up to date."""

    def __init__(self, rows: Mapping[bytes, bytes], partition: int, config: FoldConfig) -> None:
        self.state = RowCache(rows, partition)
        self.context = FoldContext(self.state, config)
        self._new_digests: list[bytes] = []

    def load(self) -> None:
        """Takes over the durable rows; costs one pass over them."""
        self.state.load()

    @property
    def position(self) -> PositionRow:
        return self.state.position

    @property
    def pending_bytes(self) -> int:
        """Rough bytes of what has not been taken yet."""
        return self.state.batch_bytes + 400 * len(self.context.facts)

    def next_timer(self) -> int | None:
        """When the clock next changes a row, in microseconds; a tick is due then. At or before the log's clock: more
        rows are due than one pack wakes, so the next tick is due at once."""
        return self.state.next_timer()

    def reconcile(self, log_end: int, incarnation: int = 0, log_start: int = 0) -> str | None:
        """Compares the position with the log as it is found at start. Returns what to say loudly, if anything.

        A log that ends before the position, or a new incarnation of the broker, means that records were lost after
        they were acknowledged: cursors given out for them must never come to mean another state, so the position jumps.
        ValueError: the log no longer holds records that were never folded; nobody can go on from there.
        """
        position = self.position
        if self.state.is_empty:
            self.state.position = PositionRow(next=log_start, incarnation=incarnation)
            return f"the log begins at offset {log_start}: what came before is not in this view" if log_start else None
        if position.next < log_start:
            raise ValueError(f"the log begins at offset {log_start}, but the view needs it from {position.next} on")
        if position.next <= log_end and incarnation <= position.incarnation:
            return None
        after = min(position.next, log_end)
        self.state.position = PositionRow(
            next=after, clock=position.clock, shift=position.position + POSITION_JUMP - after,
            part=position.part if after == position.next else 0, incarnation=max(incarnation, position.incarnation),
        )
        return (
            f"the broker came back with its log ending at offset {log_end}, the view was at {position.next}: what it "
            f"had acknowledged in between is lost; going on at {after}, and feeds begin with a new snapshot"
        )

    def apply(self, pack: Pack, offset: int) -> bool:
        """Folds the pack at `offset`. False: a batch is full; take it, then call again with the same pack.

        ValueError: `offset` is not the next one, so a record was skipped or comes twice.
        """
        position = self.position
        if offset != position.next:
            raise ValueError(f"expected offset {position.next}, got {offset}")
        self.state.start_pack()
        if not position.part:
            position.clock = max(position.clock, pack.at)
        self.context.start_part(position.position, position.clock)
        if not position.part:
            timer_handlers.run_due_timers(self.context, MAX_TIMER_BYTES)
        for entry in pack.entries[position.part:]:
            position.part += 1
            if isinstance(entry, Event):
                self._apply_event(entry)
            else:
                self._apply_command(entry)
            if self.state.pack_bytes > MAX_PART_BYTES and position.part < len(pack.entries):
                self._end_part()
                position.shift += 1
                return False
        self._end_part()
        position.next, position.part = offset + 1, 0
        return True

    def skip(self, offset: int) -> None:
        """Moves on past a record of the log that can't be read."""
        if offset != self.position.next:
            raise ValueError(f"expected offset {self.position.next}, got {offset}")
        self.position.next, self.position.part = offset + 1, 0

    def pending_batch(self) -> FoldBatch:
        """Everything since the last `taken`. Nothing may be applied until it is durable."""
        return FoldBatch(self.state.encoded_changes(), self.context.facts)

    def mark_durable(self) -> None:
        """The batch is durable and its rows are in `rows`."""
        self.state.clear()
        self.context.facts = []

    def _register(self, digest: bytes) -> bool:
        """An event or command is accepted once; a repeat changes nothing, anywhere (CONTRACT §2)."""
        if digest in self.state.seen:
            return False
        self.state.seen.add(digest)
        self._new_digests.append(digest)
        return True

    def _apply_event(self, event: Event) -> None:
        digest = event_digest(event.ws, event.source, event.id)
        if self._register(digest):
            event_handlers.handle_event(self.context, event, digest)

    def _apply_command(self, command: Command) -> None:
        if self._register(command_digest(command.ws, command.id)):
            command_handlers.handle_command(self.context, command)

    def _end_part(self) -> None:
        """Ends a pack or a part of one: what it brought that was new becomes one row."""
        if self._new_digests:
            context = self.context
            row = SeenRow(b64encode(b"".join(self._new_digests)).decode(), context.log_clock + context.config.dedupe)
            self.state.put(seen_key(self.state.partition, context.revision), row)
        self._new_digests = []
