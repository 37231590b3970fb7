"""What was in the ranked lists of the past, from source events and commands: the fold, run again by their times. Pure.

Everything counts as if it had arrived when it happened.
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
    """Workspace -> what changed in its list, by time. `entries` in any order; repeats change nothing."""
    # When an item is due is up to the policy that is tried: here nothing wakes for it.
    rules = replace(rules, targets=dict.fromkeys(rules.targets, _NEVER))
    rows: dict[bytes, bytes] = {}
    fold = Fold(rows, 0, rules)
    fold.load()
    found: dict[str, list[ListChange]] = {}
    last: dict[str, RankedItem | None] = {}
    for number, (time, at_once) in enumerate(groupby(sorted(entries, key=_time), key=_time)):
        pack = Pack(time, list(at_once))
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
                    one = ranked_item(row) if row.is_listed else None
                    if one != last.get(row.id):
                        last[row.id] = one
                        found.setdefault(row.ws, []).append((_since(row, time), row.id, one))
            fold.mark_durable()
    return found


_time = attrgetter("time")


def _since(row: ItemRow, time: int) -> int:
    """A proof's item opens by the clock, and nothing may have happened for long when that is noticed."""
    return row.created_at if row.kind == "proof_expiring" and row.is_listed else time
