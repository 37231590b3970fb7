"""Folds records of the log into a dict of rows, as a worker would into its table: for who wants to know what the view
should be. No I/O, no facts."""

from __future__ import annotations

from schemas.log import Pack
from schemas.topics import VIEWS, RecordTooLarge, check_record_sizes
from schemas.views import PositionRow, apply_changes, encode_row, position_key
from streams.core.config import FoldConfig
from streams.core.fold.fold import MAX_PART_BYTES, Fold
from streams.core.packs import unpack

__all__ = ["Replay"]


class Replay:
    """`rows` are taken over, and are the result, the position row among them; `changed` collects the keys that were
    written. `begin` is where the log begins, for a fold that begins with no rows."""

    def __init__(
        self, partition: int, rules: FoldConfig, rows: dict[bytes, bytes] | None = None, begin: int = 0,
    ) -> None:
        self.rows = {} if rows is None else rows
        self.changed: set[bytes] = set()
        self._partition, self._rules = partition, rules
        self._fold = self._create_fold()
        if self._fold.state.is_empty:
            self._fold.reconcile(begin, log_start=begin)
        self._pending: list[tuple[int, Pack]] = []

    @property
    def position(self) -> PositionRow:
        return self._fold.position

    def add(self, offset: int, value: bytes | None) -> None:
        """One record of the log. UnsupportedVersion: of a newer attn."""
        if offset < self.position.next:
            return
        if self._fold.pending_bytes > MAX_PART_BYTES:
            self.flush()
        self.skip_to(offset)
        try:
            pack = unpack(value)
        except (ValueError, RecursionError):
            self._fold.skip(offset)
            return
        self._apply(offset, pack)

    def add_part(self, offset: int, value: bytes | None, part: int) -> None:
        """The record's first entries only, as many as `part`: a worker has folded the pack that far."""
        self.flush()
        self.skip_to(offset)
        if part <= self.position.part:
            return
        pack = unpack(value)
        if part >= len(pack.entries):
            raise ValueError(f"the pack at offset {offset} has {len(pack.entries)} entries, and {part} are folded")
        self._apply(offset, Pack(pack.at, pack.entries[:part]))
        self.flush()
        self.position.next, self.position.part = offset, part
        self.position.shift += 1  # as every cut does
        self.rows[position_key(self._partition)] = encode_row(self.position)

    def skip_to(self, offset: int) -> None:
        """The log has no records before it that were not added."""
        for missing in range(self.position.next, offset):
            self._fold.skip(missing)

    def flush(self) -> None:
        """Everything added is in `rows`."""
        pending, self._pending = self._pending, []
        try:
            self._apply_batch()
        except RecordTooLarge:
            self._apply_individually(pending)

    def _create_fold(self) -> Fold:
        fold = Fold(self.rows, self._partition, self._rules)
        fold.load()
        return fold

    def _apply(self, offset: int, pack: Pack) -> None:
        while self.position.next == offset:
            self._pending.append((offset, pack))
            if self._fold.apply(pack, offset):
                break
            self.flush()

    def _apply_batch(self) -> None:
        rows = self._fold.pending_batch().rows
        check_record_sizes(VIEWS, rows)
        apply_changes(self.rows, rows)
        self.changed.update(key for key, _ in rows)
        self._fold.mark_durable()

    def _apply_individually(self, pending: list[tuple[int, Pack]]) -> None:
        """A pack made a row that no batch can hold: as a worker does, passes over that pack only."""
        self._fold = self._create_fold()
        for offset, pack in pending:
            whole = offset < self.position.next
            try:
                while not whole:
                    self.skip_to(offset)
                    whole = self._fold.apply(pack, offset)
                    self._apply_batch()
            except RecordTooLarge:
                self._fold = self._create_fold()
                self.skip_to(offset)
                self._fold.skip(offset)
