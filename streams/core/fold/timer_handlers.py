"""What the clock does by itself: items become overdue, snoozes end, proofs begin to expire, old rows go."""

from __future__ import annotations

from collections.abc import Callable

from schemas.views import DraftRow, GroupRow, ItemRow, MarkRow, ProofsRow, SeenRow
from streams.core.domain import items, proofs
from streams.core.domain.keys import item_id, item_key
from streams.core.domain.periods import is_open
from streams.core.domain.proofs import expiring
from streams.core.fold import incident_groups, outcomes
from streams.core.fold.context import FoldContext
from streams.core.fold.state import digests

__all__ = ["wake_due"]


def wake_due(context: FoldContext, most: int) -> None:
    """Wakes rows that are due at the log's clock, earliest first, until they weigh `most` bytes."""
    while context.state.weight < most:
        key = context.state.pop_due(context.log_clock)
        if key is None:
            return
        _BY_KIND[key[:2]](context, key)


def _item(context: FoldContext, key: bytes) -> None:
    row, clock, config = context.state.get(key), context.log_clock, context.config
    assert isinstance(row, ItemRow)
    row.rev = context.revision
    row.wake = None
    if row.open:
        items.rank(row, clock, config)
    elif row.kind == "proof_expiring" and row.state == "hidden" and proofs.settle(row, clock, config):
        context.emit(expiring(row, clock))
    elif _is_old(context, row.touched):
        context.state.drop(key)  # its group remembers it, for an incident that outlives it
        return
    else:
        row.wake = row.touched + context.config.retention
    context.state.put(key, row)


def _is_old(context: FoldContext, touched: int) -> bool:
    return touched + context.config.retention <= context.log_clock


def _mark(context: FoldContext, key: bytes) -> None:
    """A snooze ends; any mark goes with its item, or when that has come back."""
    row = context.state.get(key)
    assert isinstance(row, MarkRow)
    item = context.state.item(item_key(row.item))
    if item is None or item.surge != row.surge or (row.until is not None and row.until <= context.log_clock):
        context.state.drop(key)
        return
    row.wake = items.mark_timer(item, row.until, context.log_clock, context.config.retention)
    context.state.put(key, row)


def _draft(context: FoldContext, key: bytes) -> None:
    row = context.state.get(key)
    assert isinstance(row, DraftRow)
    _keep_until_old(context, key, row)


def _group(context: FoldContext, key: bytes) -> None:
    row = context.state.get(key)
    assert isinstance(row, GroupRow)
    if row.regroup:
        incident_groups.regroup(context, key.decode(), row)
        return
    _keep_until_old(context, key, row, kept=any(is_open(member.periods) for member in row.members.values()))


def _proofs(context: FoldContext, key: bytes) -> None:
    """Kept as long as any of its proofs is, for a proof may expire long after its case was last heard of."""
    row = context.state.get(key)
    assert isinstance(row, ProofsRow)
    known = (item_key(item_id(row.ws, "proof_expiring", proof)) for _, proof in row.proofs)
    _keep_until_old(context, key, row, kept=any(context.state.get(item) is not None for item in known))


def _keep_until_old(context: FoldContext, key: bytes, row: DraftRow | GroupRow | ProofsRow, kept: bool = False) -> None:
    if not kept and _is_old(context, row.touched):
        context.state.drop(key)
        return
    row.wake = (context.log_clock if kept else row.touched) + context.config.retention
    context.state.put(key, row)


def _over(context: FoldContext, key: bytes) -> None:
    context.state.drop(key)


def _seen(context: FoldContext, key: bytes) -> None:
    row = context.state.get(key)
    assert isinstance(row, SeenRow)
    context.state.seen.difference_update(digests(row))
    context.state.drop(key)


_BY_KIND: dict[bytes, Callable[[FoldContext, bytes], None]] = {
    b"i:": _item, b"m:": _mark, b"d:": _draft, b"g:": _group, b"q:": _proofs, b"a:": _over, b"o:": outcomes.expire,
    b"k:": _over, b"e:": _seen,
}
