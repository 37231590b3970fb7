"""Compares two views of the same log, and builds the batch that replaces one with the other. Pure.

Rows have the position at which they were written in `rev`, and seen rows in their keys. Positions jump when the log was
truncated or a view was repaired or rebuilt, and the log has no record of that. If the positions of two views differ,
rows are therefore comparison without `rev`. A row that differs only in `rev` is the same row and keeps its revision,
because clients hold it.
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
    """Differences between two mappings of rows, which may change: call `update` with the changed keys.

    `exact`: `rev` and the keys of seen rows are comparison too. `differing`: keys of rows that differ. Seen rows are in
    it only if `exact`; otherwise `unmatched_seen_rows` returns them.
    """

    actual: Mapping[bytes, bytes]
    expected: Mapping[bytes, bytes]
    exact: bool
    differing: set[bytes] = field(default_factory=set)

    def update(self, keys: Iterable[bytes]) -> None:
        """Compares the rows of `keys` again."""
        for key in keys:
            if self._differ(key):
                self.differing.add(key)
            else:
                self.differing.discard(key)

    def update_all(self) -> None:
        """Compares all rows."""
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
        """Returns keys of seen rows that are extra and values of seen rows that are missing, both sorted. Empty if
        `exact`, because `differing` then has their keys."""
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
        """Returns for each row type the number of rows that are missing, extra, or other (different content)."""
        counts: dict[str, Counter[str]] = {}
        for key in self.differing:
            what = "missing" if key not in self.actual else "extra" if key not in self.expected else "other"
            counts.setdefault(_name(key), Counter())[what] += 1
        for what, rows in zip(("extra", "missing"), self.unmatched_seen_rows(), strict=True):
            if rows:
                counts.setdefault(_name(_SEEN), Counter())[what] += len(rows)
        return counts


def replacement_batch(
    comparison: Comparison, partition: int, now: PositionRow, then: PositionRow, stale_keys: Iterable[bytes] = ()
) -> Rows:
    """Returns the batch that turns the actual rows, at position `now`, into the expected ones, at position `then`.

    The position jumps by POSITION_JUMP: a cursor that was issued before never refers to a different state. Changed rows
    get a revision that no client has. `stale_keys`: keys whose last record in the topic is not the valid row; the valid
    row is written again.
    """
    free = now.position + 1  # no reader has seen a position between this one and the jump
    last = now.position + POSITION_JUMP
    rows: Rows = [
        (key, _restamped(key, comparison.expected.get(key), last - 1)) for key in sorted(comparison.differing)]
    extra, missing = comparison.unmatched_seen_rows()
    if len(missing) >= POSITION_JUMP - 2:
        raise ValueError(f"{len(missing)} seen rows are missing; the jump has only {POSITION_JUMP - 2} positions")
    rows += [(key, None) for key in extra]
    rows += [(seen_key(partition, free + number), value) for number, value in enumerate(missing)]
    done = {key for key, _ in rows}
    rows += [
        (key, comparison.actual.get(key)) for key in sorted(stale_keys) if key not in done and key[:2] != _POSITION]
    position = PositionRow(
        next=then.next, clock=then.clock, shift=last - then.next, part=then.part, incarnation=now.incarnation
    )
    return [*rows, (position_key(partition), encode_row(position))]


def _name(key: bytes) -> str:
    return ROW_TYPES[key[:2]].__name__.removesuffix("Row").lower() if key[:2] in ROW_TYPES else "not a row"


def _rev_of(key: bytes, value: bytes) -> int | None:
    """Returns the row's revision, or None if it has none or cannot be decoded."""
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
