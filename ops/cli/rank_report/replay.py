"""Replays source events and commands through the fold, and returns the changes of each workspace's list. Pure.

Entries are applied in the order of their own times, not of their arrival. If any of them asks, the timers of the fold
run at their own times, too: an undecided question expires, and a decision that nobody confirms comes back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

import msgspec

from ops.cli.rank_report.placements import ListChange
from ops.cli.rank_report.policy import RankedItem, ranked_item
from schemas.facts import Fact
from schemas.log import (
    NO_PAYLOAD,
    Decide,
    DecideMany,
    Dismiss,
    Event,
    Pack,
    Report,
    Restore,
    SetPreferences,
    SetState,
    TakeBack,
)
from schemas.scalars import DAY
from schemas.views import ItemRow
from streams.core.config import FoldConfig
from streams.core.domain.keys import item_key
from streams.core.fold.fold import Fold

__all__ = ["Entry", "Replay", "replay"]

Entry = Event | SetState | Dismiss | Restore | SetPreferences | Decide | DecideMany | TakeBack | Report

_NEVER = 100 * 365 * DAY


class Replay(NamedTuple):
    """`changes`: workspace -> changes of its list, by time. `decided`: workspace -> items and when they were decided,
    by people."""

    changes: dict[str, list[ListChange]]
    decided: dict[str, set[tuple[str, int]]]


def replay(entries: Iterable[Entry], rules: FoldConfig) -> Replay:
    """Returns what happened in each workspace. `entries` may be unsorted; repeated entries change nothing."""
    # The policy decides later when items are due. So this fold gets targets that are never reached.
    rules = replace(rules, targets=dict.fromkeys(rules.targets, _NEVER))
    ordered = sorted(entries, key=_time)
    asks = rules.decisions == "all" or any(isinstance(one, Event) and one.data.ask is not NO_PAYLOAD for one in ordered)
    replaying = _Replaying(rules)
    for time, simultaneous in groupby(ordered, key=_time):
        while asks and (due := replaying.next_timer()) is not None and due < time:
            replaying.apply(due, [])
        replaying.apply(time, list(simultaneous))
    return Replay(replaying.changes, replaying.decided)


class _Replaying:
    """The fold of one replay, and what it has found."""

    def __init__(self, rules: FoldConfig) -> None:
        self._rows: dict[bytes, bytes] = {}
        self._fold = Fold(self._rows, 0, rules)
        self._fold.load()
        self._last: dict[str, RankedItem | None] = {}
        self._number = 0
        self.changes: dict[str, list[ListChange]] = {}
        self.decided: dict[str, set[tuple[str, int]]] = {}

    def next_timer(self) -> int | None:
        return self._fold.next_timer()

    def apply(self, time: int, entries: Sequence[Entry]) -> None:
        """Folds one pack, and records what it changed."""
        pack = Pack(time, list(self._with_revisions(entries)))
        done = False
        while not done:
            done = self._fold.apply(pack, self._number)
            batch = self._fold.pending_batch()
            for key, value in batch.rows:
                self._record_row(time, key, value)
            for fact in batch.facts:
                if isinstance(fact, Fact) and fact.type == "decision.made" and fact.actor and fact.item:
                    self.decided.setdefault(fact.ws, set()).add((fact.item, time))
            self._fold.mark_durable()
        self._number += 1

    def _with_revisions(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Yields the entries; the answers of `DecideMany` with the revisions of this replay, not of the log."""
        for entry in entries:
            if isinstance(entry, DecideMany):
                answers = []
                for answer in entry.answers:
                    row = self._fold.state.item(item_key(answer.item))
                    answers.append(answer if row is None else msgspec.structs.replace(answer, rev=row.rev))
                entry = msgspec.structs.replace(entry, answers=tuple(answers))
            yield entry

    def _record_row(self, time: int, key: bytes, value: bytes | None) -> None:
        if value is None:
            self._rows.pop(key, None)
            return
        self._rows[key] = value
        row = self._fold.state.get(key)
        if isinstance(row, ItemRow):
            ranked = ranked_item(row) if row.is_listed else None
            if ranked != self._last.get(row.id):
                self._last[row.id] = ranked
                self.changes.setdefault(row.ws, []).append((_since(row, time), row.id, ranked))


_time = attrgetter("time")


def _since(row: ItemRow, time: int) -> int:
    """Returns when the row changed.

    The clock opens the item of an expiring proof. The fold notices that at the next entry, which may be much later.
    """
    return row.created_at if row.kind == "proof_expiring" and row.is_listed else time
