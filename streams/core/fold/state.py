"""The rows of one partition while packs are folded into them: reads through to what is durable, collects what changed.

Nothing here knows what rows mean, but for their wake-up times.
"""

from __future__ import annotations

from binascii import a2b_base64
from collections.abc import Mapping
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
from streams.core.fold.timer_queue import TimerQueue

__all__ = ["RowCache"]


class _Timer(msgspec.Struct, gc=False):
    wake: int | None = None


# A sweep ends long before as many entries have gone stale again: each change leaves one at most.
_COMPACTED_PER_CHANGE = 4

_decode_timer = msgspec.json.Decoder(_Timer).decode
_iter_digests = Struct(f"{DIGEST_BYTES}s").iter_unpack


class RowCache:
    """`rows` is the durable state, read only. `get`/`put` work on decoded rows until `changes` encodes them."""

    def __init__(self, rows: Mapping[bytes, bytes], partition: int) -> None:
        self.rows = rows
        self.partition = partition
        self.position = PositionRow(next=0)
        self.seen: set[bytes] = set()
        self.batch_bytes = 0  # rough bytes of what changed since the last `settle`
        self.pack_bytes = 0  # the same since the last `begin`: of one pack, or part, whatever else is in its batch
        self._timers = TimerQueue(self._timer_of)
        self._rows: dict[bytes, Row | None] = {}
        self._scheduled: dict[bytes, int | None] = {}
        self._changed: dict[bytes, None] = {}
        self._measured: set[bytes] = set()

    @property
    def is_empty(self) -> bool:
        """Whether there is no durable state yet."""
        return position_key(self.partition) not in self.rows

    def load(self) -> None:
        """Rebuilds what is kept beside the rows: position, wake-ups, known events. Costs one pass over the rows."""
        wakes: list[tuple[int, bytes]] = []
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
                wakes.append((wake, key))
        self._timers.load(wakes)
        found = self.rows.get(position_key(self.partition))
        if found is not None:
            position = decode_row(b"~:", found)
            assert isinstance(position, PositionRow)
            position.v = VIEW_VERSION  # what is written from here on
            self.position = position

    def get(self, key: bytes) -> Row | None:
        if key in self._rows:
            return self._rows[key]
        raw = self.rows.get(key)
        row = None if raw is None else decode_row(key, raw)
        self._rows[key] = row
        self._scheduled[key] = None if row is None or isinstance(row, PositionRow) else getattr(row, "wake", None)
        return row

    def put(self, key: bytes, row: Row) -> None:
        self._changed[key] = None
        self._rows[key] = row
        if key not in self._measured:
            self._measured.add(key)
            weight = _measure(row)
            self.pack_bytes += weight
            self.batch_bytes += weight
        wake: int | None = getattr(row, "wake", None)
        was = self._scheduled.get(key)
        if wake != was:
            if was is not None:
                self._timers.invalidate()
            if wake is not None:
                self._timers.push(wake, key)
        self._scheduled[key] = wake

    def start_pack(self) -> None:
        """A pack, or a part of one, begins: weighs rows anew."""
        self.pack_bytes = 0
        self._measured.clear()

    def delete(self, key: bytes) -> None:
        self._changed[key] = None
        self._rows[key] = None
        if self._scheduled.get(key) is not None:
            self._timers.invalidate()
        self._scheduled[key] = None
        self.pack_bytes += len(key)
        self.batch_bytes += len(key)

    def next_timer(self) -> int | None:
        """The earliest wake-up, or None."""
        first = self._timers.peek()
        return None if first is None else first[0]

    def _timer_of(self, key: bytes) -> int | None:
        if key in self._scheduled:
            return self._scheduled[key]
        raw = self.rows.get(key)
        return None if raw is None else _decode_timer(raw).wake

    def pop_due(self, clock: int) -> bytes | None:
        """The key of the next row that is due at `clock`, or None."""
        first = self._timers.peek()
        if first is None or first[0] > clock:
            return None
        _, key = first
        self._timers.pop()
        self.get(key)
        self._scheduled[key] = None  # its entry is gone, so the same time set again needs a new one
        return key

    def encoded_changes(self) -> list[tuple[bytes, bytes | None]]:
        """Encoded rows that changed (None: gone), the position row last."""
        found: list[tuple[bytes, bytes | None]] = []
        for key in self._changed:
            row = self._rows[key]
            if row is not None:
                found.append((key, encode_row(row)))
            elif key in self.rows:
                found.append((key, None))
        found.append((position_key(self.partition), encode_row(self.position)))
        return found

    def clear(self) -> None:
        """What `changes` gave is durable and in `rows`: forget it here."""
        self._timers.compact(_COMPACTED_PER_CHANGE * len(self._changed))
        self._rows.clear()
        self._scheduled.clear()
        self._changed.clear()
        self.batch_bytes = 0

    def item(self, key: bytes) -> ItemRow | None:
        row = self.get(key)
        assert row is None or isinstance(row, ItemRow)
        return row


def _measure(row: Row) -> int:
    """Rough bytes of an encoded row, of its contents alone: where a pack is cut must not depend on what is durable."""
    if isinstance(row, ItemRow):
        data = row.data
        texts = len(data.title or "") + len(data.body_md or "") + len(data.error or "")
        return 900 + texts + len(bytes(data.payload)) + 40 * len(row.members)
    if isinstance(row, GroupRow):
        return 300 + 200 * len(row.members)
    return 400


def digests(row: SeenRow) -> list[bytes]:
    """The event digests a seen row holds."""
    return [digest for digest, in _iter_digests(a2b_base64(row.ids))]
