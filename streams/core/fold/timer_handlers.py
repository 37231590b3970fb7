"""What the clock does by itself: items become overdue, snoozes end, proofs begin to expire, old rows go."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from schemas.views import DraftRow, GroupRow, ItemRow, MarkRow, ProofsRow, SeenRow
from streams.core.domain import items, proofs
from streams.core.domain.keys import item_id, item_key
from streams.core.domain.periods import is_open
from streams.core.domain.proofs import expiring
from streams.core.fold import incident_groups, outcomes
from streams.core.fold.state import digests

if TYPE_CHECKING:
    from streams.core.fold.fold import Fold

__all__ = ["wake_due", "wake_of_mark"]


def wake_due(fold: Fold, most: int) -> None:
    """Wakes rows that are due at the log's clock, earliest first, until they weigh `most` bytes."""
    while fold.state.weight < most:
        key = fold.state.pop_due(fold.clock)
        if key is None:
            return
        _BY_KIND[key[:2]](fold, key)


def _item(fold: Fold, key: bytes) -> None:
    row = fold.state.get(key)
    assert isinstance(row, ItemRow)
    row.rev = fold.at
    row.wake = None
    if row.open:
        items.rank(row, fold.clock, fold.rules)
    elif row.kind == "proof_expiring" and row.state == "hidden" and proofs.settle(row, fold.clock, fold.rules):
        fold.tell(expiring(row, fold.clock))
    elif _is_old(fold, row.touched):
        fold.state.drop(key)  # its group remembers it, for an incident that outlives it
        return
    else:
        row.wake = row.touched + fold.rules.retention
    fold.state.put(key, row)


def _is_old(fold: Fold, touched: int) -> bool:
    return touched + fold.rules.retention <= fold.clock


def wake_of_mark(fold: Fold, item: ItemRow, until: int | None) -> int:
    """When to look at a mark: at its end, or before that whether its item is still there, for a snooze may be long.

    What was resolved goes when it is next looked at, and its marks with it: a subject that comes back after that is
    something new, which nobody has put away.
    """
    look = fold.clock + fold.rules.retention if item.open or item.wake is None else item.wake
    return look if until is None else min(until, look)


def _mark(fold: Fold, key: bytes) -> None:
    """A snooze ends; any mark goes with its item, or when that has come back."""
    row = fold.state.get(key)
    assert isinstance(row, MarkRow)
    item = fold.state.item(item_key(row.item))
    if item is None or item.surge != row.surge or (row.until is not None and row.until <= fold.clock):
        fold.state.drop(key)
        return
    row.wake = wake_of_mark(fold, item, row.until)
    fold.state.put(key, row)


def _draft(fold: Fold, key: bytes) -> None:
    row = fold.state.get(key)
    assert isinstance(row, DraftRow)
    _keep_until_old(fold, key, row)


def _group(fold: Fold, key: bytes) -> None:
    row = fold.state.get(key)
    assert isinstance(row, GroupRow)
    if row.regroup:
        incident_groups.regroup(fold, key.decode(), row)
        return
    _keep_until_old(fold, key, row, kept=any(is_open(member.periods) for member in row.members.values()))


def _proofs(fold: Fold, key: bytes) -> None:
    """Kept as long as any of its proofs is, for a proof may expire long after its case was last heard of."""
    row = fold.state.get(key)
    assert isinstance(row, ProofsRow)
    known = (item_key(item_id(row.ws, "proof_expiring", proof)) for _, proof in row.proofs)
    _keep_until_old(fold, key, row, kept=any(fold.state.get(item) is not None for item in known))


def _keep_until_old(fold: Fold, key: bytes, row: DraftRow | GroupRow | ProofsRow, kept: bool = False) -> None:
    if not kept and _is_old(fold, row.touched):
        fold.state.drop(key)
        return
    row.wake = (fold.clock if kept else row.touched) + fold.rules.retention
    fold.state.put(key, row)


def _over(fold: Fold, key: bytes) -> None:
    fold.state.drop(key)


def _seen(fold: Fold, key: bytes) -> None:
    row = fold.state.get(key)
    assert isinstance(row, SeenRow)
    fold.state.seen.difference_update(digests(row))
    fold.state.drop(key)


_BY_KIND: dict[bytes, Callable[[Fold, bytes], None]] = {
    b"i:": _item, b"m:": _mark, b"d:": _draft, b"g:": _group, b"q:": _proofs, b"a:": _over, b"o:": outcomes.expire,
    b"k:": _over, b"e:": _seen,
}
