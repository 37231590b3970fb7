"""`RowCache`: read-through cache of the decoded rows of one partition. It collects the changes of a batch.

Of the contents of rows it knows only the timer, field `wake`.
"""

from __future__ import annotations

from binascii import a2b_base64
from collections.abc import Iterator, Mapping
from struct import Struct

import msgspec

from schemas.views import (
    VIEW_VERSION,
    GroupRow,
    ItemRow,
    PositionRow,
    Row,
    SeenRow,
    decode_row,
    encode_row,
    position_key,
)
from streams.core.domain.keys import DIGEST_BYTES
from streams.core.timer_queue import TimerQueue

__all__ = ["RowCache"]


class _Timer(msgspec.Struct, gc=False):
    wake: int | None = None


# Timer entries checked per changed row. A change makes at most one entry stale, so a compaction ends long before half
# of the new heap is stale.
_COMPACTED_PER_CHANGE = 4

_decode_timer = msgspec.json.Decoder(_Timer).decode
_iter_digests = Struct(f"{DIGEST_BYTES}s").iter_unpack


class RowCache:
    """`rows`: the durable rows, read only. `get`, `put` and `delete` work on decoded rows until `encoded_changes`."""

    def __init__(self, rows: Mapping[bytes, bytes], partition: int) -> None:
        self.rows = rows
        self.partition = partition
        self.position = PositionRow(next=0)
        self.seen: set[bytes] = set()
        self.batch_bytes = 0  # approximate bytes of the rows changed since the last `clear`
        self.pack_bytes = 0  # the same since the last `start_pack`: one pack, or a part of one
        self._timers = TimerQueue(self._timer_of)
        self._rows: dict[bytes, Row | None] = {}
        self._scheduled: dict[bytes, int | None] = {}
        self._changed: dict[bytes, None] = {}
        self._measured: set[bytes] = set()

    @property
    def is_empty(self) -> bool:
        """Whether the partition has no durable position yet."""
        return position_key(self.partition) not in self.rows

    def load(self) -> None:
        """Reads position, timers and known event digests from the durable rows, in one pass over all of them."""
        self._timers.load(self._read_timers())
        raw_position = self.rows.get(position_key(self.partition))
        if raw_position is not None:
            position = decode_row(b"~:", raw_position)
            assert isinstance(position, PositionRow)
            position.v = VIEW_VERSION  # the version of the rows that this fold writes
            self.position = position

    def _read_timers(self) -> Iterator[tuple[int, bytes]]:
        """Yields the timers of the durable rows, and notes the known event digests."""
        for key, value in self.rows.items():
            kind = key[:2]
            if kind == b"~:":
                continue
            if kind == b"e:":
                row = decode_row(key, value)
                assert isinstance(row, SeenRow)
                self.seen.update(digests(row))
                wake: int | None = row.wake
            else:
                wake = _decode_timer(value).wake
            if wake is not None:
                yield wake, key

    def get(self, key: bytes) -> Row | None:
        """Returns the decoded row, None if there is none. A caller that changes the row must `put` it."""
        if key in self._rows:
            return self._rows[key]
        raw = self.rows.get(key)
        row = None if raw is None else decode_row(key, raw)
        self._rows[key] = row
        self._scheduled[key] = None if row is None or isinstance(row, PositionRow) else getattr(row, "wake", None)
        return row

    def put(self, key: bytes, row: Row) -> None:
        """Stores a new or changed row and schedules its timer."""
        self._changed[key] = None
        self._rows[key] = row
        if key not in self._measured:
            self._measured.add(key)
            size = _measure(row)
            self.pack_bytes += size
            self.batch_bytes += size
        wake: int | None = getattr(row, "wake", None)
        scheduled = self._scheduled.get(key)
        if wake != scheduled:
            if scheduled is not None:
                self._timers.invalidate()
            if wake is not None:
                self._timers.push(wake, key)
        self._scheduled[key] = wake

    def start_pack(self) -> None:
        """Starts a pack or a part of one: resets `pack_bytes`."""
        self.pack_bytes = 0
        self._measured.clear()

    def delete(self, key: bytes) -> None:
        """Deletes the row and its timer."""
        self._changed[key] = None
        self._rows[key] = None
        if self._scheduled.get(key) is not None:
            self._timers.invalidate()
        self._scheduled[key] = None
        self.pack_bytes += len(key)
        self.batch_bytes += len(key)

    def next_timer(self) -> int | None:
        """Returns the earliest timer in microseconds, or None."""
        earliest = self._timers.peek()
        return None if earliest is None else earliest[0]

    def _timer_of(self, key: bytes) -> int | None:
        if key in self._scheduled:
            return self._scheduled[key]
        raw = self.rows.get(key)
        return None if raw is None else _decode_timer(raw).wake

    def pop_due(self, clock: int) -> bytes | None:
        """Removes and returns the key of the next row that is due at `clock`, None if there is none."""
        earliest = self._timers.peek()
        if earliest is None or earliest[0] > clock:
            return None
        _, key = earliest
        self._timers.pop()
        self.get(key)
        self._scheduled[key] = None  # the entry is removed: setting the same time again needs a new entry
        return key

    def encoded_changes(self) -> list[tuple[bytes, bytes | None]]:
        """Returns (key, encoded row or None for a delete) of all changed rows, the position row last."""
        changes: list[tuple[bytes, bytes | None]] = []
        for key in self._changed:
            row = self._rows[key]
            if row is not None:
                changes.append((key, encode_row(row)))
            elif key in self.rows:
                changes.append((key, None))
        changes.append((position_key(self.partition), encode_row(self.position)))
        return changes

    def clear(self) -> None:
        """Drops all decoded rows and changes: the changes are durable, and `rows` has them."""
        self._timers.compact(_COMPACTED_PER_CHANGE * len(self._changed))
        self._rows.clear()
        self._scheduled.clear()
        self._changed.clear()
        self.batch_bytes = 0

    def item(self, key: bytes) -> ItemRow | None:
        """Returns `get` of an item key."""
        row = self.get(key)
        assert row is None or isinstance(row, ItemRow)
        return row


def _measure(row: Row) -> int:
    """Returns the approximate size of an encoded row in bytes.

    Depends on the row alone: every worker must split a pack at the same entry, whatever its cache holds (law 1).
    """
    if isinstance(row, ItemRow):
        data = row.data
        texts = len(data.title or "") + len(data.body_md or "") + len(data.error or "")
        return 900 + texts + len(bytes(data.payload)) + 40 * len(row.members)
    if isinstance(row, GroupRow):
        return 300 + 200 * len(row.members)
    return 400


def digests(row: SeenRow) -> list[bytes]:
    """Returns the event digests of a seen row."""
    return [digest for digest, in _iter_digests(a2b_base64(row.ids))]
