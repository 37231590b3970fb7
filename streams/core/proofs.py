"""Proofs of a case: one that will expire opens an item by itself, until the case's next proof (CONTRACT §2, Z4)."""

from __future__ import annotations

from bisect import insort

from schemas.views import ItemRow, ProofsRow
from streams.core import items
from streams.core.rank import priority_of
from streams.core.rules import Rules

__all__ = ["attach", "settle"]

MAX_PROOFS = 64  # of a case, the newest: an older one is superseded anyhow


def attach(proofs: ProofsRow, proof: str, time: int) -> list[tuple[str, int | None]]:
    """Puts a proof into its case's order. Returns (proof id, when the next one came) of those for which it changed."""
    before = dict(_followed(proofs))
    known = next((entry for entry in proofs.proofs if entry[1] == proof), None)
    if known is not None:
        if known[0] >= time:
            return [(proof, before[proof])]
        proofs.proofs.remove(known)
    insort(proofs.proofs, (time, proof))
    del proofs.proofs[:-MAX_PROOFS]
    return [(name, after) for name, after in _followed(proofs) if name == proof or before.get(name) != after]


def _followed(proofs: ProofsRow) -> list[tuple[str, int | None]]:
    times = [time for time, _ in proofs.proofs]
    return [(name, after) for (_, name), after in zip(proofs.proofs, [*times[1:], None], strict=False)]


def settle(row: ItemRow, clock: int, rules: Rules) -> bool:
    """State and rank of a proof's item. True when it opens now.

    It opens `proof_window` before it expires, or when it was attached if that is later, and is over with its expiry
    event or the case's next proof, whichever came first; one that was over before is never shown.
    """
    data, expires = row.data, row.data.expires_at
    row.priority, row.blocking = priority_of(data.priority), bool(data.blocking)
    row.target_user_id, row.target_role = data.target_user_id, data.target_role
    was_open, waiting = row.open, False
    row.state = "hidden" if row.base is None or expires is None else row.state
    if row.base is not None and expires is not None:
        data.title = data.title or f"Proof of {data.case_title or data.case_id or row.source_id} expires"
        row.created_at = max(expires - rules.proof_window, row.base[0])
        ends = _ends(row, row.base[0])
        end = min(ends, key=lambda one: one[0]) if ends else None
        row.updated_at = max(row.created_at, row.read_at or 0, *(one[0] for one in ends))
        over_before = end is not None and end[0] <= row.created_at
        waiting = clock < row.created_at and not over_before
        if waiting or over_before:
            row.state = "hidden"
        elif end is not None:
            items.resolve(row, end)
        elif not was_open:
            items.reopen(row)
    items.rank(row, clock, rules)
    if waiting:
        row.wake = row.created_at
    return row.open and not was_open


def _ends(row: ItemRow, attached: int) -> list[tuple[int, str, str, str | None]]:
    """When and how it was over: time, digest, resolved action, by whom."""
    ends: list[tuple[int, str, str, str | None]] = []
    if row.closed is not None and row.closed[0] >= attached:
        ends.append(row.closed)
    if row.superseded is not None:
        ends.append((row.superseded, "", "attached", None))
    return ends
