"""Is the view what the log says, and if not, make it so (decision 0017).

One partition at a time: read the view, fold the log from its beginning (or from a checkpoint) with today's rules up to
the very pack the view is at, compare. To mend it, claim the partition as a worker would, catch up with what was written
meanwhile, and write what differs as one batch: readers take it when its position comes, so they see the old view or
the new one. Facts are not told again: the place in the log stays, so whoever folds on tells the next ones.
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
from streams.kafka.fencing import FencedError, FencedProducer, fence_partition
from streams.kafka.reader import partition_bounds, read_offsets
from streams.rebuild.comparison import Comparison, Rows, replacement_batch
from streams.rebuild.partition_view import PartitionView
from streams.rebuild.replay import Replay

__all__ = [
    "PartitionRebuild", "ProgressCallback", "RebuildBase", "RebuildError", "RebuildReport", "checksum",
    "read_view",
]

log = logging.getLogger(__name__)

ProgressCallback = Callable[[str, int, int], None]  # what is done, how far, of how much

_TRIES = 5  # a worker that was fenced off starts again by itself, and may claim the partition before we have written
_CHUNK = 4 << 20  # bytes written at a time
_SHOWN = 5


class RebuildError(Exception):
    """There is no right view to be had; `str(error)` is for the operator. Nothing was written."""


@dataclass
class RebuildBase:
    """Rows and position to begin with, where the log does not reach back to its beginning."""

    rows: dict[bytes, bytes]
    position: PositionRow


@dataclass
class RebuildReport:
    """What was found in one partition, and done. `differing`: name of the row -> how many are missing, extra,
    other; `keys`:
    some of them; `stale_keys`: rows out of turn that a worker mends at its next start; `checksum` of the rows at
    the end."""

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
    """One partition: `check` or `run` it, once."""

    def __init__(
        self, settings: Settings, partition: int, config: FoldConfig, base: RebuildBase | None = None,
        progress: ProgressCallback = lambda *_: None,
    ) -> None:
        self._settings, self._partition, self._config, self._base = settings, partition, config, base
        self._progress = progress
        self._view = PartitionView(partition)
        self._view_end: int | None = None  # offset in attn.views before which all was read
        self._replay: Replay | None = None
        self._comparison: Comparison | None = None

    async def check(self) -> RebuildReport:
        """Compares, writes nothing. RebuildError: there is nothing to compare with; UnsupportedVersion."""
        await self._catch_up((await self._bounds(VIEWS))[1])
        return self._report(checksum(self._view.rows))

    async def run(self) -> RebuildReport:
        """Compares, and writes what differs. RebuildError; UnsupportedVersion; TimeoutError, KafkaError: the view is
        the old one still, or the new one already."""
        for _ in range(_TRIES):
            await self._catch_up((await self._bounds(VIEWS))[1])
            report = self._report()
            found = await self._repair() if report.differing or report.stale_keys else report
            if found is not None:
                found.checksum = checksum(self._view.rows)
                return found
        raise RebuildError(
            f"partition {self._partition}: {_TRIES} times a worker claimed it before the new rows were written; the "
            "old view is in place. Stop the workers for a rebuild of this size"
        )

    # --- the steps ---

    async def _catch_up(self, end: int) -> None:
        """Reads the view up to an offset, folds the log as far, looks at what changed."""
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
        """Where the view is. One that is gone is made again as of the checkpoint; else, that is a worker's job."""
        return self._view.position or (self._base.position if self._base is not None else None)

    async def _fold_to(self, now: PositionRow) -> None:
        begin, end = await self._bounds(LOG)
        fold = self._replay = self._replay or self._create_replay(begin)
        self._check_reach(fold.position, now, begin, end)
        start, upto = fold.position.next, now.next + bool(now.part)
        if start < upto:
            async for run in read_offsets(self._settings, (LOG, self._partition), start, upto):
                for record in run:
                    if record.offset == now.next:
                        fold.add_part(record.offset, record.value, now.part)
                    else:
                        fold.add(record.offset, record.value)
                self._progress("folding the log", run[-1].offset + 1 - start, upto - start)
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
        """None: a worker that was fenced off started again and claimed the partition in turn; nothing has changed."""
        writer: FencedProducer | None = None
        try:
            writer = await fence_partition(self._settings, self._partition)
            await self._catch_up(writer.offset)
            self._view.discard_incomplete_batch()
            found = self._report()
            if found.differing or found.stale_keys:
                await self._write(writer, found)
        except FencedError:
            log.info("%s/%d: claimed by a worker before the new rows were written; again", VIEWS, self._partition)
            return None
        finally:
            if writer is not None:
                await writer.close()
        return found

    async def _write(self, writer: FencedProducer, found: RebuildReport) -> None:
        now, fold, comparison = self._view_position, self._replay, self._comparison
        assert now is not None
        assert fold is not None
        assert comparison is not None
        rows, end = replacement_batch(comparison, self._partition, now, fold.position, self._view.stale_keys), 0
        for chunk in _chunks(rows):
            end = 1 + await writer.write(VIEWS, chunk)
            found.written += len(chunk)
            self._progress("writing rows", found.written, len(rows))
        await self._catch_up(end)
        if odd := self._report().differing:
            raise RebuildError(f"partition {self._partition}: what was written is not what was read back: {odd}")

    # --- helpers ---

    def _create_replay(self, begin: int) -> Replay:
        if self._base is not None:
            return Replay(self._partition, self._config, self._base.rows)
        if begin:
            raise RebuildError(
                f"{LOG}/{self._partition} begins at offset {begin}: what came before can't be folded again. "
                "Give a checkpoint of a time that the log still reaches back to: --base FILE"
            )
        return Replay(self._partition, self._config)

    def _check_reach(self, done: PositionRow, now: PositionRow, begin: int, end: int) -> None:
        place = f"{LOG}/{self._partition}"
        if done.next < begin:
            raise RebuildError(f"{place} begins at offset {begin}, but the checkpoint needs it from {done.next} on")
        if (done.next, done.part) > (now.next, now.part):
            raise RebuildError(f"{place}: the checkpoint is at offset {done.next}, the view only at {now.next}")
        if now.next + bool(now.part) > end:
            raise RebuildError(
                f"the view is at offset {now.next} of {place}, which ends at {end}: the broker lost records. "
                "Start a worker first: it goes on from what there is"
            )

    def _report(self, sum_of_rows: str = "") -> RebuildReport:
        """As things are."""
        now, view, fold, comparison = self._view_position, self._view, self._replay, self._comparison
        if now is None or fold is None or comparison is None:
            return RebuildReport(self._partition)
        odd = comparison.count_by_type()
        if now.clock != fold.position.clock:
            odd["position"] = Counter(other=1)
        return RebuildReport(
            self._partition, now.position, len(view.rows), len(fold.rows.keys() - {position_key(self._partition)}), odd,
            [key.decode(errors="replace") for key in sorted(comparison.differing)[:_SHOWN]], len(view.stale_keys), 0,
            sum_of_rows,
        )

    async def _bounds(self, topic: str) -> tuple[int, int]:
        tp = topic, self._partition
        return (await partition_bounds(self._settings, [tp]))[tp]


def _chunks(rows: Rows) -> Iterator[Rows]:
    chunk, size = Rows(), 0
    for key, value in rows:
        chunk.append((key, value))
        size += len(key) + len(value or b"")
        if size > _CHUNK:
            yield chunk
            chunk, size = Rows(), 0
    if chunk:
        yield chunk


def checksum(rows: dict[bytes, bytes]) -> str:
    """Of all rows but the position: equal for equal rows."""
    digest = hashlib.blake2b(digest_size=16)
    for key in sorted(rows):
        digest.update(b"%d:%b%d:%b" % (len(key), key, len(rows[key]), rows[key]))
    return digest.hexdigest()


async def read_view(settings: Settings, partition: int) -> PartitionView:
    """The partition's view as it is now."""
    view = PartitionView(partition)
    tp = VIEWS, partition
    begin, end = (await partition_bounds(settings, [tp]))[tp]
    async for run in read_offsets(settings, tp, begin, end):
        for record in run:
            view.add(record.key, record.value)
    return view
