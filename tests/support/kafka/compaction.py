"""Simulates the compaction of a partition with random results."""

from __future__ import annotations

import random

Record = tuple[bytes, bytes | None, int]  # key, value, timestamp


def compact(records: list[Record], until: int, chance: random.Random) -> list[Record]:
    """Returns the records that remain after a possible compaction.

    A compaction considers records older than `until`. It may remove a record with a later such record of the same key,
    and a tombstone without earlier records of its key.
    """
    left: list[Record] = []
    last = {key: number for number, (key, _, at) in enumerate(records) if at < until}
    for number, (key, raw, at) in enumerate(records):
        may_go = at < until and (
            number < last[key] or (raw is None and not any(other == key for other, _, _ in left)))
        if not may_go or chance.random() < 0.3:
            left.append((key, raw, at))
    return left
