"""`Fold`: applies the packs of one log partition and yields batches of rows and facts.

The fold is the projection of the log into the view, and the only writer of the view (DESIGN: The idea, laws 1-3). It is
pure: no I/O, no clock, no randomness. How a caller uses it:

    fold = Fold(rows, partition, config); fold.load(); fold.reconcile(log_end, incarnation)
    while not fold.apply(pack, offset):   # False: the pack changes more than one batch can hold
        ...write fold.pending_batch() as below...
    batch = fold.pending_batch()          # write facts, then rows as one record batch; wait for both acknowledgements
    ...apply batch.rows to `rows`...
    fold.mark_durable()
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass

from schemas.asking.decision_event import DecisionEvent
from schemas.facts import Fact, Outcome
from schemas.log import Command, Event, KeyUsed, Pack, Report, SessionUsed
from schemas.topics import DECISION_REPORTS
from schemas.views import PositionRow, SeenRow
from streams.core.config import FoldConfig
from streams.core.domain.keys import command_digest, event_digest, seen_key
from streams.core.fold import command_handlers, event_handlers, outcomes, timer_handlers
from streams.core.fold.access import key_handlers, session_handlers, token_handlers
from streams.core.fold.asking.records import record_changes
from streams.core.fold.asking.reports import check_decision, handle_report, handle_report_event
from streams.core.fold.asking.votes import VOTE_HANDLERS
from streams.core.fold.context import FoldContext
from streams.core.fold.state import RowCache

__all__ = ["MAX_PART_BYTES", "Fold", "FoldBatch"]

# Approximate bytes of changed rows after which a pack is split into parts. With JSON escapes and one more entry a batch
# stays well below the record limit of the log's topics (schemas.topics.MAX_MESSAGE_BYTES).
MAX_PART_BYTES = 1 << 20
# Approximate bytes of rows whose timers one pack runs. Later timers wait for the next pack or tick: many rows that are
# due at the same time must not block the partition.
MAX_TIMER_BYTES = 1 << 18
# How far the position jumps after a log truncation: more than any log could have been ahead of the stored position. The
# history recognises half of it (streams.history.clickhouse.columns.MIN_POSITION_JUMP; a test asserts the relation).
POSITION_JUMP = 1 << 24

COMMAND_HANDLERS = (
    command_handlers.COMMAND_HANDLERS | VOTE_HANDLERS | key_handlers.KEY_HANDLERS | session_handlers.SESSION_HANDLERS
    | token_handlers.TOKEN_HANDLERS)
TIMER_HANDLERS = timer_handlers.TIMER_HANDLERS | {
    b"c:": check_decision, b"x:": key_handlers.delete_expired, b"s:": session_handlers.sessions_expire,
    b"l:": session_handlers.delete_link, b"r:": token_handlers.delete_revocation,
}


@dataclass(frozen=True, slots=True)
class FoldBatch:
    """Changes to write. `rows`: (key, encoded row or None for a delete), the position row last. `facts`: by id.

    `decisions`: records of the topic `decisions`, with sealed reply tokens. The order of writes is facts,
    decisions, rows.
    """

    rows: list[tuple[bytes, bytes | None]]
    facts: list[Fact | Outcome]
    decisions: list[DecisionEvent]


class Fold:
    """Fold of one partition. `rows`: its durable rows, key -> encoded row; the caller applies written batches to it."""

    def __init__(self, rows: Mapping[bytes, bytes], partition: int, config: FoldConfig) -> None:
        self.state = RowCache(rows, partition)
        self.context = FoldContext(self.state, config)
        self._new_digests: list[bytes] = []

    def load(self) -> None:
        """Reads position, timers and known event digests from the durable rows, in one pass over all of them."""
        self.state.load()

    @property
    def position(self) -> PositionRow:
        return self.state.position

    @property
    def pending_bytes(self) -> int:
        """Approximate bytes of `pending_batch`."""
        return self.state.batch_bytes + 400 * len(self.context.facts) + 1000 * len(self.context.decisions)

    def next_timer(self) -> int | None:
        """Returns the time of the earliest timer in microseconds: a tick is due then. None if there is no timer.

        A time at or before the log clock means that more rows are due than one pack handles (MAX_TIMER_BYTES), so the
        next tick is due immediately.
        """
        return self.state.next_timer()

    def reconcile(self, log_end: int, incarnation: int = 0, log_start: int = 0) -> str | None:
        """Compares the stored position with the log at start. Returns a warning to log, or None.

        `log_start`, `log_end`: the first offset of the log and the offset after its last record. If the log ends before
        the position, or the operator raised `incarnation`, the broker lost acknowledged records. Clients may have
        cursors of those records. The position then jumps by POSITION_JUMP, so that no cursor ever stands for two
        states.

        Raises ValueError if the log no longer has records that were never folded.
        """
        position = self.position
        if self.state.is_empty:
            self.state.position = PositionRow(next=log_start, incarnation=incarnation)
            return f"the log begins at offset {log_start}; earlier records are not in this view" if log_start else None
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
            f"log truncated: the log ends at offset {log_end}, the view is at offset {position.next}; acknowledged "
            f"records in between are lost; the fold continues at offset {after}, feeds start with a new snapshot"
        )

    def apply(self, pack: Pack, offset: int) -> bool:
        """Folds the pack at `offset`. Returns False if the batch is full: write it, then call again with the same pack.

        Raises ValueError if `offset` is not the next one: a record was skipped or repeated.
        """
        position = self.position
        if offset != position.next:
            raise ValueError(f"expected offset {position.next}, got {offset}")
        self.state.start_pack()
        if not position.part:
            position.clock = max(position.clock, pack.at)
        self.context.start_part(position.position, position.clock)
        if not position.part:
            timer_handlers.run_due_timers(self.context, MAX_TIMER_BYTES, TIMER_HANDLERS)
            record_changes(self.context)
        for entry in pack.entries[position.part:]:
            position.part += 1
            self._apply_entry(entry)
            if self.state.pack_bytes > MAX_PART_BYTES and position.part < len(pack.entries):
                self._end_part()
                position.shift += 1
                return False
        self._end_part()
        position.next, position.part = offset + 1, 0
        return True

    def skip(self, offset: int) -> None:
        """Advances the position past a log record that cannot be folded.

        Raises ValueError if `offset` is not the next one.
        """
        if offset != self.position.next:
            raise ValueError(f"expected offset {self.position.next}, got {offset}")
        self.position.next, self.position.part = offset + 1, 0

    def pending_batch(self) -> FoldBatch:
        """Returns all changes since the last `mark_durable`. Call `apply` again only after they are durable."""
        return FoldBatch(self.state.encoded_changes(), self.context.facts, self.context.decisions)

    def mark_durable(self) -> None:
        """Drops the pending changes: the caller has written them and has applied the rows to `rows`."""
        self.state.clear()
        self.context.facts, self.context.decisions = [], []

    def _register(self, digest: bytes) -> bool:
        """Returns False for a repeated event or command, which must not change anything (CONTRACT §2)."""
        if digest in self.state.seen:
            return False
        self.state.seen.add(digest)
        self._new_digests.append(digest)
        return True

    def _apply_entry(self, entry: Event | Command | Report | KeyUsed | SessionUsed) -> None:
        if isinstance(entry, Event):
            self._apply_event(entry)
        elif self._register(command_digest(entry.ws, entry.id)):
            if isinstance(entry, Report):
                handle_report(self.context, entry)
            elif isinstance(entry, KeyUsed):
                key_handlers.handle_use(self.context, entry)
            elif isinstance(entry, SessionUsed):
                session_handlers.handle_session_use(self.context, entry)
            elif not outcomes.answer_repeat(self.context, entry):
                COMMAND_HANDLERS[type(entry)](self.context, entry)
        if self.context.asked:
            record_changes(self.context)

    def _apply_event(self, event: Event) -> None:
        digest = event_digest(event.ws, event.source, event.id)
        if not self._register(digest):
            return
        if event.type in DECISION_REPORTS:
            handle_report_event(self.context, event)
        else:
            event_handlers.handle_event(self.context, event, digest)

    def _end_part(self) -> None:
        """Stores the digests of the new events and commands of a pack, or of a part of one, as one row."""
        if self._new_digests:
            context = self.context
            row = SeenRow(b64encode(b"".join(self._new_digests)).decode(), context.log_clock + context.config.dedupe)
            self.state.put(seen_key(self.state.partition, context.revision), row)
        self._new_digests = []
