"""Two views of one log, what they differ in, and the batch that makes the one the other. Pure.

Rows say in `rev`, and seen rows in their keys, at which position they were written. Positions jump where the log fell
back, a view was mended or made anew, which the log does not know of. So where the positions of two views differ, rows
are compared without them: what differs in nothing else is the same row, and keeps its revision for those who hold it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas.views import ROW_TYPES, PositionRow, decode_row, encode_row, position_key
from streams.core.domain.keys import seen_key
from streams.core.fold.fold import POSITION_JUMP

__all__ = ["Comparison", "Rows", "replacement_batch"]

Rows = list[tuple[bytes, bytes | None]]

_SEEN, _POSITION, _FENCE = b"e:", b"~:", b"f:"
_REVISED = frozenset(prefix for prefix, row in ROW_TYPES.items() if "rev" in row.__struct_fields__)


@dataclass
class Comparison:
    """`actual` and `expected` are live mappings: `update` again at the keys that changed. `exact`: positions are
    compared too.

    `differing` has the keys of rows that differ; of seen rows only where `exact`, else `unmatched_seen_rows` tells
    them.
    """

    actual: Mapping[bytes, bytes]
    expected: Mapping[bytes, bytes]
    exact: bool
    differing: set[bytes] = field(default_factory=set)

    def update(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            if self._differ(key):
                self.differing.add(key)
            else:
                self.differing.discard(key)

    def update_all(self) -> None:
        self.differing.clear()
        self.update(self.actual.keys() | self.expected.keys())

    def _differ(self, key: bytes) -> bool:
        kind, actual, expected = key[:2], self.actual.get(key), self.expected.get(key)
        if actual == expected or kind in (_POSITION, _FENCE) or (kind == _SEEN and not self.exact):
            return False
        if self.exact or kind not in _REVISED or actual is None or expected is None:
            return True
        rev = _rev_of(key, actual)
        return rev is None or _stamped(key, expected, rev) != actual

    def unmatched_seen_rows(self) -> tuple[list[bytes], list[bytes]]:
        """Unless `exact`: keys of seen rows that are too many, and values of those that are missing."""
        if self.exact:
            return [], []
        wanted = {value for key, value in self.expected.items() if key[:2] == _SEEN}
        missing, extra = set(wanted), []
        for key, value in self.actual.items():
            if key[:2] == _SEEN:
                if value in missing:
                    missing.remove(value)
                else:
                    extra.append(key)
        return sorted(extra), sorted(missing)

    def count_by_type(self) -> dict[str, Counter[str]]:
        """Name of the row -> how many are missing, extra, or other than they should be."""
        found: dict[str, Counter[str]] = {}
        for key in self.differing:
            what = "missing" if key not in self.actual else "extra" if key not in self.expected else "other"
            found.setdefault(_name(key), Counter())[what] += 1
        for what, rows in zip(("extra", "missing"), self.unmatched_seen_rows(), strict=True):
            if rows:
                found.setdefault(_name(_SEEN), Counter())[what] += len(rows)
        return found


def replacement_batch(
    compared: Comparison, partition: int, now: PositionRow, then: PositionRow, stale_keys: Iterable[bytes] = ()
) -> Rows:
    """The batch that turns `actual`, which is at `now`, into `expected`, at `then`. The position jumps, so that no
    cursor that was ever given out means another state than it did; what changes gets a revision that nobody holds.

    `stale_keys`: keys of which the topic's last record is not the row that counts; it is written again.
    """
    free = now.position + 1  # positions between here and the jump were never given out
    last = now.position + POSITION_JUMP
    rows: Rows = [(key, _restamped(key, compared.expected.get(key), last - 1)) for key in sorted(compared.differing)]
    extra, missing = compared.unmatched_seen_rows()
    if len(missing) >= POSITION_JUMP - 2:
        raise ValueError(f"{len(missing)} seen rows are missing: more than there are positions for")
    rows += [(key, None) for key in extra]
    rows += [(seen_key(partition, free + number), value) for number, value in enumerate(missing)]
    done = {key for key, _ in rows}
    rows += [(key, compared.actual.get(key)) for key in sorted(stale_keys) if key not in done and key[:2] != _POSITION]
    position = PositionRow(
        next=then.next, clock=then.clock, shift=last - then.next, part=then.part, incarnation=now.incarnation
    )
    return [*rows, (position_key(partition), encode_row(position))]


def _name(key: bytes) -> str:
    return ROW_TYPES[key[:2]].__name__.removesuffix("Row").lower() if key[:2] in ROW_TYPES else "not a row"


def _rev_of(key: bytes, value: bytes) -> int | None:
    """None: it is no such row."""
    try:
        return getattr(decode_row(key, value), "rev", None)
    except (ValueError, RecursionError):
        return None


def _stamped(key: bytes, value: bytes, rev: int) -> bytes:
    row: Any = decode_row(key, value)
    row.rev = rev
    return encode_row(row)


def _restamped(key: bytes, value: bytes | None, rev: int) -> bytes | None:
    return value if value is None or key[:2] not in _REVISED else _stamped(key, value, rev)
