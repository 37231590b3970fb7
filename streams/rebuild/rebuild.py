"""Verifies the view of one partition against the log, and replaces rows that differ (decision 0017).

It reads the view, folds the log from its beginning (or from a checkpoint) with the current settings up to the pack at
which the view is, and compares. To repair the view it fences the partition as a worker does, catches up with records
written in the meantime, and writes the differing rows as one batch. Readers apply a batch when its position row
arrives, so they see the old view or the new one. Facts are not emitted again: the offset in the log stays the same, and
the next worker emits the next facts.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from schemas.settings import Settings
from schemas.topics import LOG, VIEWS
from schemas.views import PositionRow, position_key
from streams.core.config import FoldConfig
from streams.kafka.fencing import FencedError, FencedProducer, fenced_partition
from streams.kafka.reader import partition_bounds, read_offsets
from streams.rebuild.comparison import Comparison, Rows, replacement_batch
from streams.rebuild.partition_view import PartitionView
from streams.rebuild.replay import Replay

__all__ = [
    "PartitionRebuild", "ProgressCallback", "RebuildBase", "RebuildError", "RebuildReport", "checksum",
    "read_view",
]

log = logging.getLogger(__name__)

ProgressCallback = Callable[[str, int, int], None]  # step, done, total

_TRIES = 5  # a fenced worker restarts by itself and may fence the partition again before the rows are written
_CHUNK_BYTES = 4 << 20  # written at a time
_MAX_KEYS = 5  # in a report


class RebuildError(Exception):
    """The expected view cannot be computed, or the rows could not be written. The message is for the operator. The old
    view is unchanged, unless the message says that rows were written."""


@dataclass
class RebuildBase:
    """Rows and position of a checkpoint to fold from, for a log that no longer has its beginning."""

    rows: dict[bytes, bytes]
    position: PositionRow


@dataclass
class RebuildReport:
    """Result for one partition.

    `differing`: row type -> number of rows that are missing, extra or other. `keys`: up to 5 keys of such rows.
    `stale_keys`: number of stale rows, which a worker repairs at its next start. `checksum`: of the rows at the end.
    """

    partition: int
    position: int = 0
    rows: int = 0
    expected_rows: int = 0
    differing: dict[str, Counter[str]] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    stale_keys: int = 0
    written: int = 0
    checksum: str = ""


class PartitionRebuild:
    """Rebuild of one partition. Call `check` or `run` once.

    `base`: the checkpoint to fold from, instead of the log's beginning.
    """

    def __init__(
        self, settings: Settings, partition: int, config: FoldConfig, base: RebuildBase | None = None,
        progress: ProgressCallback = lambda *_: None,
    ) -> None:
        self._settings, self._partition, self._config, self._base = settings, partition, config, base
        self._progress = progress
        self._view = PartitionView(partition)
        self._view_end: int | None = None  # offset in attn.views up to which the view was read
        self._replay: Replay | None = None
        self._comparison: Comparison | None = None

    async def check(self) -> RebuildReport:
        """Compares without writing. Raises RebuildError if the expected view cannot be computed, UnsupportedVersion if
        the log or the view has records of a newer attn."""
        await self._catch_up((await self._bounds(VIEWS))[1])
        return self._report(checksum(self._view.rows))

    async def run(self) -> RebuildReport:
        """Compares, and writes the rows that differ. Raises as `check` does, and TimeoutError or a KafkaError if Kafka
        does not answer: the view is then the old one or the new one."""
        for _ in range(_TRIES):
            await self._catch_up((await self._bounds(VIEWS))[1])
            report = self._report()
            result = await self._repair() if report.differing or report.stale_keys else report
            if result is not None:
                result.checksum = checksum(self._view.rows)
                return result
        raise RebuildError(
            f"partition {self._partition}: a worker fenced it {_TRIES} times before the new rows were written; the "
            "old view is unchanged. Stop the workers for a rebuild of this size"
        )

    # --- the steps ---

    async def _catch_up(self, end: int) -> None:
        """Reads the view up to offset `end`, folds the log up to the view's position, compares the changed rows."""
        begin = (await self._bounds(VIEWS))[0] if self._view_end is None else self._view_end
        self._view_end = max(begin, end)
        if begin < end:
            async for run in read_offsets(self._settings, (VIEWS, self._partition), begin, end):
                for record in run:
                    self._view.add(record.key, record.value)
                self._progress("reading the view", run[-1].offset + 1 - begin, end - begin)
        if (now := self._view_position) is not None:
            await self._fold_to(now)
            self._compare(now)

    @property
    def _view_position(self) -> PositionRow | None:
        """Position of the view. A lost view is restored as of the checkpoint; without a checkpoint a worker has to
        create it."""
        return self._view.position or (self._base.position if self._base is not None else None)

    async def _fold_to(self, now: PositionRow) -> None:
        begin, end = await self._bounds(LOG)
        fold = self._replay = self._replay or self._create_replay(begin)
        self._check_reach(fold.position, now, begin, end)
        start, end_offset = fold.position.next, now.next + bool(now.part)
        if start < end_offset:
            async for run in read_offsets(self._settings, (LOG, self._partition), start, end_offset):
                for record in run:
                    if record.offset == now.next:
                        fold.add_part(record.offset, record.value, now.part)
                    else:
                        fold.add(record.offset, record.value)
                self._progress("folding the log", run[-1].offset + 1 - start, end_offset - start)
                await asyncio.sleep(0)
        fold.flush()
        fold.skip_to(now.next)

    def _compare(self, now: PositionRow) -> None:
        view, fold = self._view, self._replay
        assert fold is not None
        exact = now.shift == fold.position.shift
        if self._comparison is None or self._comparison.exact != exact:
            self._comparison = Comparison(view.rows, fold.rows, exact)
            self._comparison.update_all()
        else:
            self._comparison.update(view.changed | fold.changed)
        view.changed.clear()
        fold.changed.clear()

    async def _repair(self) -> RebuildReport | None:
        """Writes the differing rows. Returns None if a restarted worker fenced the partition before; nothing is written
        then."""
        try:
            async with fenced_partition(self._settings, self._partition) as writer:
                await self._catch_up(writer.offset)
                self._view.discard_incomplete_batch()
                report = self._report()
                if report.differing or report.stale_keys:
                    await self._write(writer, report)
        except FencedError:
            log.info("%s/%d: a worker fenced it before the new rows were written; retrying", VIEWS, self._partition)
            return None
        return report

    async def _write(self, writer: FencedProducer, report: RebuildReport) -> None:
        """Writes the replacement batch and verifies it by reading it back."""
        now, fold, comparison = self._view_position, self._replay, self._comparison
        assert now is not None
        assert fold is not None
        assert comparison is not None
        rows, end = replacement_batch(comparison, self._partition, now, fold.position, self._view.stale_keys), 0
        for chunk in _chunks(rows):
            end = 1 + await writer.write(VIEWS, chunk)
            report.written += len(chunk)
            self._progress("writing rows", report.written, len(rows))
        await self._catch_up(end)
        if differing := self._report().differing:
            raise RebuildError(
                f"partition {self._partition}: rows were written, but the rows read back differ: {differing}")

    # --- helpers ---

    def _create_replay(self, begin: int) -> Replay:
        if self._base is not None:
            return Replay(self._partition, self._config, self._base.rows)
        if begin:
            raise RebuildError(
                f"{LOG}/{self._partition} begins at offset {begin}: earlier records cannot be folded again. "
                "Pass a checkpoint that is not older than the log's beginning: --base FILE"
            )
        return Replay(self._partition, self._config)

    def _check_reach(self, done: PositionRow, now: PositionRow, begin: int, end: int) -> None:
        """Raises RebuildError unless the log (offsets `begin` to `end`) reaches from the replay's position `done` to
        the view's position `now`."""
        log_partition = f"{LOG}/{self._partition}"
        if done.next < begin:
            raise RebuildError(
                f"{log_partition} begins at offset {begin}, but the checkpoint needs it from {done.next} on")
        if (done.next, done.part) > (now.next, now.part):
            raise RebuildError(f"{log_partition}: the checkpoint is at offset {done.next}, the view only at {now.next}")
        if now.next + bool(now.part) > end:
            raise RebuildError(
                f"the view is at offset {now.next} of {log_partition}, which ends at {end}: the broker lost records. "
                "Start a worker first: it continues at the end of the log"
            )

    def _report(self, sum_of_rows: str = "") -> RebuildReport:
        """Returns a report of the current comparison. Empty if there is neither a view nor a checkpoint."""
        now, view, fold, comparison = self._view_position, self._view, self._replay, self._comparison
        if now is None or fold is None or comparison is None:
            return RebuildReport(self._partition)
        differing = comparison.count_by_type()
        if now.clock != fold.position.clock:
            differing["position"] = Counter(other=1)
        keys = [key.decode(errors="replace") for key in sorted(comparison.differing)[:_MAX_KEYS]]
        return RebuildReport(
            self._partition, now.position, len(view.rows), len(fold.rows.keys() - {position_key(self._partition)}),
            differing, keys, len(view.stale_keys), 0, sum_of_rows,
        )

    async def _bounds(self, topic: str) -> tuple[int, int]:
        tp = topic, self._partition
        return (await partition_bounds(self._settings, [tp]))[tp]


def _chunks(rows: Rows) -> Iterator[Rows]:
    chunk, size = Rows(), 0
    for key, value in rows:
        chunk.append((key, value))
        size += len(key) + len(value or b"")
        if size > _CHUNK_BYTES:
            yield chunk
            chunk, size = Rows(), 0
    if chunk:
        yield chunk


def checksum(rows: dict[bytes, bytes]) -> str:
    """Returns a digest of rows (without the position row): equal for equal rows."""
    digest = hashlib.blake2b(digest_size=16)
    for key in sorted(rows):
        digest.update(b"%d:%b%d:%b" % (len(key), key, len(rows[key]), rows[key]))
    return digest.hexdigest()


async def read_view(settings: Settings, partition: int) -> PartitionView:
    """Reads the current view of a partition."""
    view = PartitionView(partition)
    tp = VIEWS, partition
    begin, end = (await partition_bounds(settings, [tp]))[tp]
    async for run in read_offsets(settings, tp, begin, end):
        for record in run:
            view.add(record.key, record.value)
    return view
