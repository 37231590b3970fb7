"""Replays source events and commands through the fold, and returns the changes of each workspace's list. Pure.

Entries are applied in the order of their own times, not of their arrival.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby
from operator import attrgetter

from ops.cli.rank_report.placements import ListChange
from ops.cli.rank_report.policy import RankedItem, ranked_item
from schemas.log import Dismiss, Event, Pack, Restore, SetPreferences, SetState
from schemas.scalars import DAY
from schemas.views import ItemRow
from streams.core.config import FoldConfig
from streams.core.fold.fold import Fold

__all__ = ["Entry", "replay_list_changes"]

Entry = Event | SetState | Dismiss | Restore | SetPreferences

_NEVER = 100 * 365 * DAY


def replay_list_changes(entries: Iterable[Entry], rules: FoldConfig) -> dict[str, list[ListChange]]:
    """Returns workspace -> changes of its list, by time. `entries` may be unsorted; repeated entries change nothing."""
    # The policy decides later when items are due. So this fold gets targets that are never reached.
    rules = replace(rules, targets=dict.fromkeys(rules.targets, _NEVER))
    rows: dict[bytes, bytes] = {}
    fold = Fold(rows, 0, rules)
    fold.load()
    changes: dict[str, list[ListChange]] = {}
    last: dict[str, RankedItem | None] = {}
    for number, (time, simultaneous) in enumerate(groupby(sorted(entries, key=_time), key=_time)):
        pack = Pack(time, list(simultaneous))
        done = False
        while not done:
            done = fold.apply(pack, number)
            for key, value in fold.pending_batch().rows:
                if value is None:
                    rows.pop(key, None)
                    continue
                rows[key] = value
                row = fold.state.get(key)
                if isinstance(row, ItemRow):
                    ranked = ranked_item(row) if row.is_listed else None
                    if ranked != last.get(row.id):
                        last[row.id] = ranked
                        changes.setdefault(row.ws, []).append((_since(row, time), row.id, ranked))
            fold.mark_durable()
    return changes


_time = attrgetter("time")


def _since(row: ItemRow, time: int) -> int:
    """Returns when the row changed.

    The clock opens the item of an expiring proof. The fold notices that at the next entry, which may be much later.
    """
    return row.created_at if row.kind == "proof_expiring" and row.is_listed else time
