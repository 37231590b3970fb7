"""Results that compaction may leave of a partition's records."""

from __future__ import annotations

import random

Record = tuple[bytes, bytes | None, int]  # key, value, when


def compact(records: list[Record], until: int, chance: random.Random) -> list[Record]:
    """What compaction may leave: of records older than `until`, any that a later such record of its key replaces may be
    gone, and a tombstone once it has nothing left to replace."""
    left: list[Record] = []
    last = {key: number for number, (key, _, at) in enumerate(records) if at < until}
    for number, (key, raw, at) in enumerate(records):
        may_go = at < until and (
            number < last[key] or (raw is None and not any(other == key for other, _, _ in left)))
        if not may_go or chance.random() < 0.3:
            left.append((key, raw, at))
    return left
