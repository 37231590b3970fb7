"""State of one item: opening, update, close, and what is derived from them. All functions change the row in place.

The result depends on the set of events, not on their arrival order (law 2): each field has the value of the newest
event that names it, and the newest opening or close decides whether the item is open.
"""

from __future__ import annotations

from copy import copy
from operator import attrgetter

from schemas.log import NO_PAYLOAD, Data
from schemas.views import Close, ItemRow, Stamp
from streams.core.config import FoldConfig
from streams.core.domain import periods, questions
from streams.core.domain.event_types import BLOCKING_BY_DEFAULT
from streams.core.domain.rank import NO_DUE, band_of, due_of, priority_of

__all__ = [
    "derive_question", "derive_rank", "derive_state", "hide", "is_closed_by_answer", "mark_timer", "record_close",
    "record_open", "reopen", "resolve", "seconds_open", "set_opening_data", "update",
]

_NEVER = Stamp(-1, "")  # older than any event
# Name of both target fields in `over`: an event that names one of them replaces both.
_TARGET = "target"
_TARGET_FIELDS = ("target_user_id", "target_role")
# Fields that an update does not set as such: actor and action belong to a close; targets are set as a pair.
_NOT_UPDATABLE = frozenset({"by_user_id", "action", "decision", "reason", *_TARGET_FIELDS})
_UPDATABLE = tuple(name for name in Data.__struct_fields__ if name not in _NOT_UPDATABLE)
_values = attrgetter(*_UPDATABLE)
_PRIORITY_ORDER = {"urgent": 0, "high": 1, "normal": 2, "low": 3}


def set_opening_data(row: ItemRow, data: Data, stamp: Stamp) -> None:
    """Sets the item's data to those of an opening event, unless a newer one has set them. Newer updates are kept."""
    if row.base is not None and stamp <= row.base:
        return
    shown, data = row.data, copy(data)
    row.over = {name: at for name, at in row.over.items() if at.time > stamp.time}
    for name in row.over:
        for field in _TARGET_FIELDS if name == _TARGET else (name,):
            setattr(data, field, getattr(shown, field))
    row.data = data
    row.base = stamp


def record_open(row: ItemRow, data: Data, stamp: Stamp) -> None:
    """Adds an opening: sets the data, if it is the newest opening, and adds its time to the periods."""
    set_opening_data(row, data, stamp)
    periods.insert(row.periods, stamp.time, closes=False)


def update(row: ItemRow, data: Data, cleared: tuple[str, ...], stamp: Stamp) -> None:
    """Sets each field that the event names or clears, unless a newer event has set it (CONTRACT §2).

    `cleared`: names of fields that the event sets to null. A title is never cleared: an open item needs one.
    """
    if row.base is not None and stamp.time <= row.base.time:
        return
    shown, over = row.data, row.over
    # In the order of the fields: it becomes the order of `over`, hence of the row's bytes.
    named = [(name, value) for name, value in zip(_UPDATABLE, _values(data), strict=True)
             if (value is not None and value is not NO_PAYLOAD) or (name in cleared and name != "title")]
    for name, value in named:
        if stamp > over.get(name, _NEVER):
            setattr(shown, name, value)
            over[name] = stamp
    names_target = data.target_user_id is not None or data.target_role is not None
    if (names_target or any(name in cleared for name in _TARGET_FIELDS)) and stamp > over.get(_TARGET, _NEVER):
        shown.target_user_id, shown.target_role = data.target_user_id, data.target_role
        over[_TARGET] = stamp


def record_close(row: ItemRow, stamp: Stamp, action: str, by: str | None) -> None:
    """Adds a close to the periods, and stores how it closed, if it is the newest close."""
    periods.insert(row.periods, stamp.time, closes=True)
    if row.closed is None or stamp > row.closed.stamp:
        row.closed = Close(*stamp, action, by)


def derive_state(row: ItemRow, clock: int, config: FoldConfig) -> None:
    """Derives state, rank, question and timer from the row's events and the log clock.

    The caller must set `touched` before.
    """
    answered = row.question is not None and questions.restore_listed(row)
    raised = _update_priority(row)
    row.blocking = row.data.blocking if row.data.blocking is not None else row.kind in BLOCKING_BY_DEFAULT
    row.target_user_id, row.target_role = row.data.target_user_id, row.data.target_role
    was_open = row.is_open
    if row.base is None:
        row.state = "hidden"
    elif not periods.is_open(row.periods):
        resolve(row, row.closed)
    elif not was_open:
        reopen(row)
    elif raised:
        row.surge += 1
    if row.base is not None:
        row.created_at = periods.current_period_start(row.periods) or row.base.time
    if row.question is not None or row.data.ask is not NO_PAYLOAD or config.decisions == "all":
        derive_question(row, answered, clock, config)
    derive_rank(row, clock, config)


def derive_question(row: ItemRow, answered: bool, clock: int, config: FoldConfig) -> None:
    """Derives the row's question, and the state that follows from it (CONTRACT §7).

    An open item with a decided question is `decided`, with an expired or applied one `resolved`. `answered`: the item
    was one of these before; it opens again if its question does.
    """
    if questions.sync_question(row, config):
        row.surge += 1  # a changed question returns to those who dismissed the item
    if not row.is_open:
        questions.close_question(row, clock)
        return
    shown_as = questions.state_of_answered(row)
    if shown_as == "decided":
        row.state, row.wake = "decided", None
    elif shown_as == "resolved":
        resolve(row, questions.close_of(row))
    elif answered:
        reopen(row)


def _update_priority(row: ItemRow) -> bool:
    """Sets the priority of the row. Returns whether it rose."""
    before, row.priority = row.priority, priority_of(row.data.priority)
    return _PRIORITY_ORDER[row.priority] < _PRIORITY_ORDER[before]


def reopen(row: ItemRow) -> None:
    """Makes the item unread. Marks made before no longer apply, because `surge` is higher."""
    row.state = "unread"
    row.surge += 1
    row.read_at = row.read_by = row.resolved_at = row.resolved_by = row.resolved_action = None
    row.wake = None


def hide(row: ItemRow) -> None:
    """Makes the item hidden, as if it had never opened: a late event may prove that an incident never was one."""
    row.state = "hidden"
    row.resolved_at = row.resolved_by = row.resolved_action = None


def resolve(row: ItemRow, closed: Close | None) -> None:
    """Makes the item resolved, by `closed` where that is known."""
    if row.is_open:
        row.wake = None
    row.state = "resolved"
    if closed is not None:
        row.resolved_at, row.resolved_by = closed.time, closed.by
        row.resolved_action = closed.action or None  # a manual resolve may name no action (C14)


def is_closed_by_answer(row: ItemRow) -> bool:
    """Returns whether an applied or expired decision closed the item, and neither its source nor a user did.

    False for incidents and expiring proofs, whose facts do not count openings either.
    """
    return periods.is_open(row.periods) and questions.state_of_answered(row) == "resolved"


def seconds_open(row: ItemRow, until: int) -> float:
    """Returns for how many seconds the item was open until `until` (µs). At least 0: clocks of sources may differ."""
    return max(0, until - row.created_at) / 1e6


def derive_rank(row: ItemRow, clock: int, config: FoldConfig) -> None:
    """Derives due time, overdue, band, and the timer: when the log clock next changes the row."""
    row.due_at = due_of(row, config.targets)
    row.overdue = row.is_open and row.due_at <= clock
    row.band = band_of(row.priority, row.overdue)
    if row.is_open:
        row.wake = None if row.overdue or row.due_at == NO_DUE else row.due_at
        if row.question is not None:
            row.wake = questions.next_timer(row, row.wake)
    elif row.state == "decided":
        row.wake = None  # the timers of its decision bring it back
    elif row.wake is None or not row.touched <= row.wake <= row.touched + config.retention:
        # The timer is kept while it lies within the retention and is checked again when it is due: a row that changes
        # often needs one timer. A later one is from when the item was open or was about to open; replace it.
        row.wake = row.touched + config.retention


def mark_timer(item: ItemRow, until: int | None, clock: int, retention: int) -> int:
    """Returns when a mark is checked next, in microseconds: at its end `until`, or earlier with its item.

    A mark is deleted when it is checked after the deletion of its item. If the source opens the item again later, the
    item is new and has no marks.
    """
    check = clock + retention if item.is_open or item.wake is None else item.wake
    return check if until is None else min(until, check)
