"""The rows of one partition while packs are folded into them: reads through to what is durable, collects what changed.

Nothing here knows what rows mean, but for their wake-up times.
"""

from __future__ import annotations

from binascii import a2b_base64
from collections.abc import Mapping
from struct import Struct

import msgspec

from schemas.views import VIEW_VERSION, GroupRow, ItemRow, PositionRow, Row, SeenRow, decode, encode, position_key
from streams.core.domain.keys import DIGEST_BYTES
from streams.core.fold.timer_queue import Timers

__all__ = ["State"]


class _Wake(msgspec.Struct, gc=False):
    wake: int | None = None


# A sweep ends long before as many entries have gone stale again: each change leaves one at most.
_SWEPT = 4

_wake_of = msgspec.json.Decoder(_Wake).decode
_each_digest = Struct(f"{DIGEST_BYTES}s").iter_unpack


class State:
    """`rows` is the durable state, read only. `get`/`put` work on decoded rows until `changes` encodes them."""

    def __init__(self, rows: Mapping[bytes, bytes], partition: int) -> None:
        self.rows = rows
        self.partition = partition
        self.position = PositionRow(next=0)
        self.seen: set[bytes] = set()
        self.size = 0  # rough bytes of what changed since the last `settle`
        self.weight = 0  # the same since the last `begin`: of one pack, or part, whatever else is in its batch
        self._wakes = Timers(self._wake_now)
        self._live: dict[bytes, Row | None] = {}
        self._was: dict[bytes, int | None] = {}
        self._dirty: dict[bytes, None] = {}
        self._weighed: set[bytes] = set()

    @property
    def fresh(self) -> bool:
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
                row = decode(key, value)
                assert isinstance(row, SeenRow)
                self.seen.update(digests(row))
                wake: int | None = row.wake
            else:
                wake = _wake_of(value).wake
            if wake is not None:
                wakes.append((wake, key))
        self._wakes.fill(wakes)
        found = self.rows.get(position_key(self.partition))
        if found is not None:
            position = decode(b"~:", found)
            assert isinstance(position, PositionRow)
            position.v = VIEW_VERSION  # what is written from here on
            self.position = position

    def get(self, key: bytes) -> Row | None:
        if key in self._live:
            return self._live[key]
        raw = self.rows.get(key)
        row = None if raw is None else decode(key, raw)
        self._live[key] = row
        self._was[key] = None if row is None or isinstance(row, PositionRow) else getattr(row, "wake", None)
        return row

    def put(self, key: bytes, row: Row) -> None:
        self._dirty[key] = None
        self._live[key] = row
        if key not in self._weighed:
            self._weighed.add(key)
            weight = _weigh(row)
            self.weight += weight
            self.size += weight
        wake: int | None = getattr(row, "wake", None)
        was = self._was.get(key)
        if wake != was:
            if was is not None:
                self._wakes.leave()
            if wake is not None:
                self._wakes.push(wake, key)
        self._was[key] = wake

    def begin(self) -> None:
        """A pack, or a part of one, begins: weighs rows anew."""
        self.weight = 0
        self._weighed.clear()

    def drop(self, key: bytes) -> None:
        self._dirty[key] = None
        self._live[key] = None
        if self._was.get(key) is not None:
            self._wakes.leave()
        self._was[key] = None
        self.weight += len(key)
        self.size += len(key)

    def next_wake(self) -> int | None:
        """The earliest wake-up, or None."""
        first = self._wakes.first()
        return None if first is None else first[0]

    def _wake_now(self, key: bytes) -> int | None:
        if key in self._was:
            return self._was[key]
        raw = self.rows.get(key)
        return None if raw is None else _wake_of(raw).wake

    def pop_due(self, clock: int) -> bytes | None:
        """The key of the next row that is due at `clock`, or None."""
        first = self._wakes.first()
        if first is None or first[0] > clock:
            return None
        _, key = first
        self._wakes.pop()
        self.get(key)
        self._was[key] = None  # its entry is gone, so the same time set again needs a new one
        return key

    def changes(self) -> list[tuple[bytes, bytes | None]]:
        """Encoded rows that changed (None: gone), the position row last."""
        found: list[tuple[bytes, bytes | None]] = []
        for key in self._dirty:
            row = self._live[key]
            if row is not None:
                found.append((key, encode(row)))
            elif key in self.rows:
                found.append((key, None))
        found.append((position_key(self.partition), encode(self.position)))
        return found

    def settle(self) -> None:
        """What `changes` gave is durable and in `rows`: forget it here."""
        self._wakes.sweep(_SWEPT * len(self._dirty))
        self._live.clear()
        self._was.clear()
        self._dirty.clear()
        self.size = 0

    def item(self, key: bytes) -> ItemRow | None:
        row = self.get(key)
        assert row is None or isinstance(row, ItemRow)
        return row


def _weigh(row: Row) -> int:
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
    return [digest for digest, in _each_digest(a2b_base64(row.ids))]
