"""Proofs of a case: one that will expire opens an item by itself, until the case's next proof (CONTRACT §2, Z4)."""

from __future__ import annotations

from bisect import insort

from schemas.facts import Fact
from schemas.views import Close, ItemRow, ProofsRow
from streams.core.config import FoldConfig
from streams.core.domain import items, periods
from streams.core.domain.keys import proof_expiring_name
from streams.core.domain.rank import priority_of

__all__ = ["derive_proof_state", "insert_proof", "proof_expiring_fact"]

MAX_PROOFS = 64  # of a case, the newest: an older one is superseded anyhow


def insert_proof(proofs: ProofsRow, proof: str, time: int) -> list[tuple[str, int | None]]:
    """Puts a proof into its case's order. Returns it and those for which it changed when the next one came.

    It counts from when this case last got it, and goes on to count when another case gets it later (law 2).
    """
    before = _successors(proofs)
    known = next((entry for entry in proofs.proofs if entry[1] == proof), None)
    if known is None or known[0] < time:
        if known is not None:
            proofs.proofs.remove(known)
        insort(proofs.proofs, (time, proof))
        del proofs.proofs[:-MAX_PROOFS]
    after = _successors(proofs)
    after.setdefault(proof, proofs.proofs[0][0])  # it came late, and is older than all that are known
    return [(name, next_) for name, next_ in after.items() if name == proof or before.get(name) != next_]


def _successors(proofs: ProofsRow) -> dict[str, int | None]:
    """Proof -> when the case's next one came."""
    times = [time for time, _ in proofs.proofs]
    return {name: after for (_, name), after in zip(proofs.proofs, [*times[1:], None], strict=False)}


def derive_proof_state(row: ItemRow, clock: int, rules: FoldConfig) -> bool:
    """State and rank of a proof's item. True when it opens now.

    It opens `proof_window` before it expires, or when it was attached if that is later, and is over with its expiry
    event or the case's next proof, whichever came first; one that was over before is never shown.
    """
    data, expires = row.data, row.data.expires_at
    row.priority, row.blocking = priority_of(data.priority), bool(data.blocking)
    row.target_user_id, row.target_role = data.target_user_id, data.target_role
    was_open, waiting = row.is_open, False
    row.state = "hidden" if row.base is None or expires is None else row.state
    if row.base is not None and expires is not None:
        data.title = data.title or f"Proof of {data.case_title or data.case_id or row.source_id} expires"
        # Nothing but a person's `unread` is an opening among the periods: what ended before it, it undid.
        opens, again = max(expires - rules.proof_window, row.base.time), periods.newest_opening(row.periods)
        row.created_at = max(opens, again)
        ends = _end_candidates(row, max(row.base.time, again))
        end = min(ends, key=lambda close: close.time) if ends else None
        row.updated_at = max(row.created_at, row.read_at or 0, *(close.time for close in ends))
        over_before = end is not None and end.time <= opens
        waiting = clock < opens and not over_before
        if waiting or over_before:
            row.state = "hidden"
        elif end is not None:
            items.resolve(row, end)
        elif not was_open:
            items.reopen(row)
    items.derive_rank(row, clock, rules)
    if waiting:
        row.wake = opens
    return row.is_open and not was_open


def _end_candidates(row: ItemRow, since: int) -> list[Close]:
    """When and how it was over: time, digest, resolved action, by whom."""
    ends: list[Close] = []
    if row.closed is not None and row.closed.time >= since:
        ends.append(row.closed)
    if row.superseded is not None and row.superseded >= since:
        ends.append(Close(row.superseded, "", "attached", None))
    return ends


def proof_expiring_fact(row: ItemRow, clock: int) -> Fact:
    """The fact that a proof's item opened by itself: for the case's streams, not for the history."""
    return Fact(
        ws=row.ws, pos=0, index=0, event_id=proof_expiring_name(row.id, row.created_at), time=row.created_at,
        type="proof.expiring", subject=row.source_id, at=clock, item=row.id, kind=row.kind, priority=row.priority,
        title=row.data.title, case_id=row.data.case_id, session_id=row.data.session_id, proof_id=row.source_id,
        target_user_id=row.target_user_id, target_role=row.target_role, opened=True, derived=True,
    )
