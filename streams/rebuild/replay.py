"""Folds log records into a dict of rows, as a worker folds them into its table. No I/O; facts are discarded."""

from __future__ import annotations

from schemas.log import Pack
from schemas.topics import VIEWS, RecordTooLarge, check_record_sizes
from schemas.views import PositionRow, apply_changes, encode_row, position_key
from streams.core.config import FoldConfig
from streams.core.fold.fold import MAX_PART_BYTES, Fold
from streams.core.packs import unpack

__all__ = ["Replay"]


class Replay:
    """Folds records into `rows`, which includes the position row. `rows` is changed in place; None: start with no rows.

    `changed` collects the keys of changed rows. `begin`: first offset of the log, for a fold without rows.
    """

    def __init__(
        self, partition: int, config: FoldConfig, rows: dict[bytes, bytes] | None = None, begin: int = 0,
    ) -> None:
        self.rows = {} if rows is None else rows
        self.changed: set[bytes] = set()
        self._partition, self._config = partition, config
        self._fold = self._create_fold()
        if self._fold.state.is_empty:
            self._fold.reconcile(begin, log_start=begin)
        self._pending: list[tuple[int, Pack]] = []

    @property
    def position(self) -> PositionRow:
        return self._fold.position

    def add(self, offset: int, value: bytes | None) -> None:
        """Folds one record of the log. Skips offsets that were folded before. Raises UnsupportedVersion if a newer attn
        wrote the record."""
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
        """Folds only the first `part` entries of a record: a worker has folded the pack up to there."""
        self.flush()
        self.skip_to(offset)
        if part <= self.position.part:
            return
        pack = unpack(value)
        if part >= len(pack.entries):
            raise ValueError(f"the pack at offset {offset} has {len(pack.entries)} entries, but {part} were folded")
        self._apply(offset, Pack(pack.at, pack.entries[:part]))
        self.flush()
        self.position.next, self.position.part = offset, part
        self.position.shift += 1  # the fold does the same after each part of a pack
        self.rows[position_key(self._partition)] = encode_row(self.position)

    def skip_to(self, offset: int) -> None:
        """Skips offsets without records up to `offset` (excluded)."""
        for missing in range(self.position.next, offset):
            self._fold.skip(missing)

    def flush(self) -> None:
        """Applies everything added to `rows`."""
        pending, self._pending = self._pending, []
        try:
            self._apply_batch()
        except RecordTooLarge:
            self._apply_individually(pending)

    def _create_fold(self) -> Fold:
        fold = Fold(self.rows, self._partition, self._config)
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
        """Applies pending packs one by one, because a row became larger than any batch, and skips the pack that caused
        it. `PartitionProcessor` has the same algorithm."""
        self._fold = self._create_fold()
        for offset, pack in pending:
            complete = offset < self.position.next
            try:
                while not complete:
                    self.skip_to(offset)
                    complete = self._fold.apply(pack, offset)
                    self._apply_batch()
            except RecordTooLarge:
                self._fold = self._create_fold()
                self.skip_to(offset)
                self._fold.skip(offset)
