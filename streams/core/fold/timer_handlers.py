"""Handlers of due timers: an item becomes overdue, a snooze ends, a proof starts to expire, a row passes its retention.

Timers run by the log clock, so every worker runs the same timers at the same position (law 1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from schemas.asking.question import BatchRow
from schemas.views import DraftRow, GroupRow, ItemRow, MarkRow, ProofsRow, SeenRow
from streams.core.domain import items, proofs, questions
from streams.core.domain.keys import item_id, item_key
from streams.core.domain.periods import is_open
from streams.core.domain.proofs import proof_expiring_fact
from streams.core.fold import incident_groups, outcomes
from streams.core.fold.context import FoldContext
from streams.core.fold.state import digests

__all__ = ["TIMER_HANDLERS", "TimerHandler", "run_due_timers"]


TimerHandler = Callable[[FoldContext, bytes], None]


def run_due_timers(context: FoldContext, max_bytes: int, handlers: Mapping[bytes, TimerHandler]) -> None:
    """Runs the timers that are due at the log clock, earliest first, until `max_bytes` of rows have changed.

    `handlers`: row key prefix -> handler.
    """
    while context.state.pack_bytes < max_bytes:
        key = context.state.pop_due(context.log_clock)
        if key is None:
            return
        handlers[key[:2]](context, key)


def _check_item(context: FoldContext, key: bytes) -> None:
    row, clock, config = context.state.get(key), context.log_clock, context.config
    assert isinstance(row, ItemRow)
    row.rev = context.revision
    row.wake = None
    before = row.question
    if row.is_open and questions.expire_due(row, clock):
        row.touched = clock
        items.derive_question(row, False, clock, config)
        items.derive_rank(row, clock, config)
        context.note_question(row, before)
        if row.kind == "failed_run":
            incident_groups.sync_group(context, row)
    elif row.is_open:
        items.derive_rank(row, clock, config)
    elif row.kind == "proof_expiring" and row.state == "hidden" and proofs.derive_proof_state(row, clock, config):
        context.emit(proof_expiring_fact(row, clock))
    elif _is_past_retention(context, row.touched):
        context.state.delete(key)  # its group keeps it as a member, for an incident that is still open
        return
    else:
        row.wake = row.touched + context.config.retention
    context.state.put(key, row)


def _is_past_retention(context: FoldContext, touched: int) -> bool:
    return touched + context.config.retention <= context.log_clock


def _check_mark(context: FoldContext, key: bytes) -> None:
    """Deletes the mark if its snooze has ended, or if its item was deleted, reopened or raised in priority."""
    row = context.state.get(key)
    assert isinstance(row, MarkRow)
    item = context.state.item(item_key(row.item))
    if item is None or item.surge != row.surge or (row.until is not None and row.until <= context.log_clock):
        context.state.delete(key)
        return
    row.wake = items.mark_timer(item, row.until, context.log_clock, context.config.retention)
    context.state.put(key, row)


def _check_draft(context: FoldContext, key: bytes) -> None:
    row = context.state.get(key)
    assert isinstance(row, DraftRow)
    _delete_after_retention(context, key, row)


def _check_group(context: FoldContext, key: bytes) -> None:
    row = context.state.get(key)
    assert isinstance(row, GroupRow)
    if row.regroup:
        incident_groups.propagate_grouping(context, key.decode(), row)
        return
    _delete_after_retention(context, key, row, kept=any(is_open(member.periods) for member in row.members.values()))


def _check_proofs(context: FoldContext, key: bytes) -> None:
    """Keeps the row while any of its proofs exists: a proof may expire long after the last event of its case."""
    row = context.state.get(key)
    assert isinstance(row, ProofsRow)
    item_keys = (item_key(item_id(row.ws, "proof_expiring", proof)) for _, proof in row.proofs)
    _delete_after_retention(context, key, row, kept=any(context.state.get(item) is not None for item in item_keys))


def _delete_after_retention(
    context: FoldContext, key: bytes, row: DraftRow | GroupRow | ProofsRow, kept: bool = False,
) -> None:
    """Deletes the row if it was not changed within the retention, unless `kept`; else sets the next check."""
    if not kept and _is_past_retention(context, row.touched):
        context.state.delete(key)
        return
    row.wake = (context.log_clock if kept else row.touched) + context.config.retention
    context.state.put(key, row)


def _check_batch(context: FoldContext, key: bytes) -> None:
    """Deletes a batch that no question joined or left within the retention."""
    row = context.state.get(key)
    assert isinstance(row, BatchRow)
    if _is_past_retention(context, row.touched):
        context.state.delete(key)
        return
    row.wake = row.touched + context.config.retention
    context.state.put(key, row)


def _expire(context: FoldContext, key: bytes) -> None:
    context.state.delete(key)


def _expire_digests(context: FoldContext, key: bytes) -> None:
    """Forgets the events of the row: the deduplication window has passed (ATTN_DEDUPE_DAYS)."""
    row = context.state.get(key)
    assert isinstance(row, SeenRow)
    context.state.seen.difference_update(digests(row))
    context.state.delete(key)


# Row key prefix -> handler of its timer.
TIMER_HANDLERS: dict[bytes, TimerHandler] = {
    b"i:": _check_item, b"m:": _check_mark, b"d:": _check_draft, b"g:": _check_group, b"q:": _check_proofs,
    b"a:": _expire, b"o:": outcomes.expire_outcome, b"k:": _expire, b"e:": _expire_digests,
    b"b:": _check_batch,
}
