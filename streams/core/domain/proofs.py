"""Expiring proofs: their order within a case, the state of a proof's item, and the `proof.expiring` fact.

A proof with an expiry time opens an item by timer, which closes at the expiry or at the case's next proof
(CONTRACT §2, Z4).
"""

from __future__ import annotations

from bisect import insort

from schemas.facts import Fact
from schemas.views import Close, ItemRow, ProofsRow
from streams.core.config import FoldConfig
from streams.core.domain import items, periods, questions
from streams.core.domain.keys import proof_expiring_name
from streams.core.domain.rank import priority_of

__all__ = ["derive_proof_state", "insert_proof", "proof_expiring_fact"]

MAX_PROOFS = 64  # proofs kept per case, the newest; an older one is superseded in any case


def insert_proof(proofs: ProofsRow, proof: str, time: int) -> list[tuple[str, int | None]]:
    """Inserts a proof into the order of its case, in place, at the newest `time` (µs) at which this case received it.

    Returns (proof id, time of the case's next proof or None): of the proof itself, and of each proof whose next one
    changed. A proof keeps its position in this case when another case receives it later (law 2).
    """
    before = _successors(proofs)
    known = next((entry for entry in proofs.proofs if entry[1] == proof), None)
    if known is None or known[0] < time:
        if known is not None:
            proofs.proofs.remove(known)
        insort(proofs.proofs, (time, proof))
        del proofs.proofs[:-MAX_PROOFS]
    after = _successors(proofs)
    after.setdefault(proof, proofs.proofs[0][0])  # it is older than all stored proofs
    return [(name, next_) for name, next_ in after.items() if name == proof or before.get(name) != next_]


def _successors(proofs: ProofsRow) -> dict[str, int | None]:
    """Returns proof id -> time of the case's next proof; None for the newest."""
    times = [time for time, _ in proofs.proofs]
    return {name: after for (_, name), after in zip(proofs.proofs, [*times[1:], None], strict=False)}


def derive_proof_state(row: ItemRow, clock: int, config: FoldConfig) -> bool:
    """Derives state, rank and timer of a proof's item. Returns whether it opens now.

    | condition | state | timer |
    | --- | --- | --- |
    | no attached event yet, or no expiry time | hidden | retention |
    | it ended before it was to open | hidden | retention |
    | the log clock is before `opens` | hidden | `opens` |
    | it ended after it opened | resolved | retention |
    | else | open (unread, or as it was) | due time |

    `opens`: `proof_window` before the expiry, or the time of the attached event if that is later. The item ends at the
    expiry event or at the case's next proof, whichever comes first. An `unread` by a user reopens it: ends before that
    do not count.
    """
    data, expires = row.data, row.data.expires_at
    answered = questions.restore_listed(row)
    row.priority, row.blocking = priority_of(data.priority), bool(data.blocking)
    row.target_user_id, row.target_role = data.target_user_id, data.target_role
    was_open, waiting = row.is_open, False
    row.state = "hidden" if row.base is None or expires is None else row.state
    if row.base is not None and expires is not None:
        data.title = data.title or f"Proof of {data.case_title or data.case_id or row.source_id} expires"
        # The periods of a proof have no opening but a user's `unread`.
        opens, reopened_at = max(expires - config.proof_window, row.base.time), periods.newest_opening(row.periods)
        row.created_at = max(opens, reopened_at)
        ends = _end_candidates(row, max(row.base.time, reopened_at))
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
    items.derive_question(row, answered, clock, config)
    items.derive_rank(row, clock, config)
    if waiting:
        row.wake = opens
    return row.is_open and not was_open


def _end_candidates(row: ItemRow, since: int) -> list[Close]:
    """Returns the closes of the item at `since` (µs) or later: its expiry event, and the case's next proof."""
    ends: list[Close] = []
    if row.closed is not None and row.closed.time >= since:
        ends.append(row.closed)
    if row.superseded is not None and row.superseded >= since:
        ends.append(Close(row.superseded, "", "attached", None))
    return ends


def proof_expiring_fact(row: ItemRow, clock: int) -> Fact:
    """Returns the fact that a proof's item opened by timer. The case's event streams get it, the history does not."""
    return Fact(
        ws=row.ws, pos=0, index=0, event_id=proof_expiring_name(row.id, row.created_at), time=row.created_at,
        type="proof.expiring", subject=row.source_id, at=clock, item=row.id, kind=row.kind, priority=row.priority,
        title=row.data.title, case_id=row.data.case_id, session_id=row.data.session_id, proof_id=row.source_id,
        target_user_id=row.target_user_id, target_role=row.target_role, opened=True, derived=True,
    )
